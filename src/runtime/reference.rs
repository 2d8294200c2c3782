//! The API reference, generated from the CustomResourceDefinitions and from the words that the operator reports with.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};

mod words;

#[cfg(test)]
mod tests;

/// `docs/api.md`.
pub fn api(crds: &[CustomResourceDefinition]) -> String {
    let mut text = String::from(
        "# API reference\n\n\
         <!-- Generated from src/api and src/runtime/reference by `make generate`. Do not edit. -->\n\n",
    );
    crds.iter().for_each(|crd| kind(&mut text, crd));
    words::write(&mut text);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn kind(text: &mut String, crd: &CustomResourceDefinition) {
    let spec = &crd.spec;
    let _ = writeln!(text, "# {}\n", spec.names.kind);
    for version in &spec.versions {
        let root = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let _ = writeln!(
            text,
            "`apiVersion: {}/{}`, `kind: {}`; {}. In kubectl: {}.\n",
            spec.group,
            version.name,
            spec.names.kind,
            spec.scope.to_lowercase(),
            kubectl_names(crd),
        );
        let Some(root) = root else { continue };
        if let Some(description) = &root.description {
            let _ = writeln!(text, "{}\n", prose(description));
        }
        for part in ["spec", "status"] {
            let rows = rows_of(root, part);
            // A kind that only reports has nothing to declare.
            if rows.is_empty() {
                continue;
            }
            let _ = writeln!(text, "## {part}\n\n{}\n", intro(&spec.names.kind, part));
            text.push_str("| field | type | constraints | meaning |\n|---|---|---|---|\n");
            for row in &rows {
                let _ = writeln!(
                    text,
                    "| `{}` | {} | {} | {} |",
                    row.path,
                    row.kind,
                    row.constraints.join("; "),
                    row.meaning
                );
            }
            text.push('\n');
            if part == "spec" {
                rules(text, root, &rows);
            }
        }
        columns(text, version);
    }
}

fn kubectl_names(crd: &CustomResourceDefinition) -> String {
    let names = &crd.spec.names;
    let short = names.short_names.iter().flatten().map(String::as_str);
    let categories = names.categories.iter().flatten().map(|category| format!("{category} (category)"));
    let all = std::iter::once(names.plural.as_str()).chain(short).map(str::to_owned).chain(categories);
    all.map(|name| match name.split_once(' ') {
        Some((name, rest)) => format!("`{name}` {rest}"),
        None => format!("`{name}`"),
    })
    .collect::<Vec<_>>()
    .join(", ")
}

fn intro(kind: &str, part: &str) -> &'static str {
    match (kind, part) {
        ("TokenUsage", _) => {
            "What gates reported of the ApiToken of the same name, as the ledger merged it. Every list is bounded."
        }
        (_, "spec") => {
            "What you declare. The controller never writes it and sets no defaults in it. An optional field may be left out, but\n\
             not be `null`. Durations are written in hours, minutes and seconds: `720h`, `1h30m`, `90s`."
        }
        _ => {
            "What the controller reports. Every list is bounded, so that the status stays below 10 kB. `usage` and\n\
             `credentials[].lastUsedAt` are what gates reported, in brief; the TokenUsage of the same name has the detail."
        }
    }
}

/// One field of the schema.
struct Row {
    path: String,
    kind: String,
    constraints: Vec<String>,
    meaning: String,
    rules: Vec<String>,
}

fn rows_of(root: &JSONSchemaProps, part: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(schema) = root.properties.as_ref().and_then(|properties| properties.get(part)) {
        collect(schema, part, &mut rows);
    }
    rows
}

/// The fields below `schema`, each before its own fields.
fn collect(schema: &JSONSchemaProps, path: &str, rows: &mut Vec<Row>) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, property) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let mut constraints = Vec::new();
        if required.contains(name) {
            constraints.push("required".to_owned());
        }
        constraints.extend(constraints_of(property));
        let element = element(property);
        if let Some((each, element)) = element {
            let bounds = constraints_of(element);
            if element.properties.is_none() && !bounds.is_empty() {
                constraints.push(format!("{each}: {}", bounds.join(", ")));
            }
        }
        rows.push(Row {
            path: path.clone(),
            kind: kind_of(property),
            constraints,
            meaning: cell(property.description.as_deref().unwrap_or_default()),
            rules: messages(property),
        });
        match element {
            Some((_, element)) => collect(element, &format!("{path}[]"), rows),
            None => collect(property, &path, rows),
        }
    }
}

/// What a list or a map holds.
fn element(schema: &JSONSchemaProps) -> Option<(&'static str, &JSONSchemaProps)> {
    match (&schema.items, &schema.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => Some(("each", items)),
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => Some(("each value", values)),
        _ => None,
    }
}

fn kind_of(schema: &JSONSchemaProps) -> String {
    match (element(schema), schema.type_.as_deref(), schema.format.as_deref()) {
        (Some(("each", items)), ..) => format!("list of {}", kind_of(items)),
        (Some((_, values)), ..) => format!("map to {}", kind_of(values)),
        (None, Some("string"), Some("date-time")) => "time".to_owned(),
        (None, Some(kind), _) => kind.to_owned(),
        (None, None, _) => "any".to_owned(),
    }
}

fn constraints_of(schema: &JSONSchemaProps) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(bounds(schema.min_length, schema.max_length, "characters"));
    all.extend(bounds(schema.min_items, schema.max_items, "entries"));
    all.extend(bounds(schema.min_properties, schema.max_properties, "keys"));
    let number = |bound: Option<f64>| bound.map(|bound| bound as i64);
    all.extend(bounds(number(schema.minimum), number(schema.maximum), "by value"));
    if let Some(values) = &schema.enum_ {
        let words: Vec<String> = values.iter().map(|value| format!("`{}`", literal(&value.0))).collect();
        all.push(words.join(" or "));
    }
    if let Some(pattern) = &schema.pattern {
        all.push(format!("matches `{}`", cell(pattern)));
    }
    if let Some(default) = &schema.default {
        all.push(format!("default `{}`", cell(&literal(&default.0))));
    }
    match (schema.x_kubernetes_list_type.as_deref(), &schema.x_kubernetes_list_map_keys) {
        (Some("set"), _) => all.push("no entry twice".to_owned()),
        (Some("map"), Some(keys)) => all.push(format!("one entry for each `{}`", keys.join("`, `"))),
        _ => {}
    }
    all
}

fn bounds(least: Option<i64>, most: Option<i64>, unit: &str) -> Option<String> {
    match (least.filter(|least| *least > 0), most) {
        (Some(least), Some(most)) => Some(format!("{least} to {most} {unit}")),
        (Some(least), None) => Some(format!("at least {least} {unit}")),
        (None, Some(most)) => Some(format!("at most {most} {unit}")),
        (None, None) => None,
    }
}

fn literal(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What the rules of a field say to whoever breaks them.
fn messages(schema: &JSONSchemaProps) -> Vec<String> {
    let rules = schema.x_kubernetes_validations.iter().flatten();
    let own = rules.map(|rule| {
        let when = if rule.rule.contains("oldSelf") { " *(checked on a change)*" } else { "" };
        format!("{}{when}", cell(rule.message.as_deref().unwrap_or(&rule.rule)))
    });
    let below = element(schema).filter(|(_, element)| element.properties.is_none());
    own.chain(below.into_iter().flat_map(|(_, element)| messages(element))).collect()
}

fn rules(text: &mut String, root: &JSONSchemaProps, rows: &[Row]) {
    text.push_str(
        "### What the API server refuses\n\n\
         These rules are part of the CustomResourceDefinition, so that a mistake is refused where it is made, with the message\n\
         that stands here. What they cannot know, the controller reports in the conditions.\n\n\
         | field | message |\n|---|---|\n",
    );
    let everywhere = messages(root).into_iter().map(|message| ("(the object)", message));
    let spec = root.properties.as_ref().and_then(|properties| properties.get("spec"));
    let of_spec = spec.map(messages).unwrap_or_default().into_iter().map(|message| ("spec", message));
    let of_fields =
        rows.iter().flat_map(|row| row.rules.iter().map(|rule| (row.path.as_str(), rule.clone())));
    for (path, message) in everywhere.chain(of_spec).chain(of_fields) {
        let path = if path.starts_with('(') { path.to_owned() } else { format!("`{path}`") };
        let _ = writeln!(text, "| {path} | {message} |");
    }
    text.push('\n');
}

fn columns(text: &mut String, version: &CustomResourceDefinitionVersion) {
    text.push_str("## Columns of kubectl get\n\n| column | only with `-o wide` | meaning |\n|---|---|---|\n");
    for column in version.additional_printer_columns.iter().flatten() {
        let wide = if column.priority.unwrap_or(0) > 0 { "yes" } else { "" };
        let meaning = column.description.as_deref().unwrap_or("Time since the creation");
        let _ = writeln!(text, "| {} | {wide} | {} |", column.name.to_uppercase(), cell(meaning));
    }
    text.push('\n');
}

/// Running text on one line.
fn prose(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    prose(text).replace('|', "\\|").replace('<', "&lt;")
}
