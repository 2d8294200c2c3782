//! The API reference, generated from the CustomResourceDefinition and from the words that the controller reports with.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};

use crate::api::{ConditionType, Health, Reason, keys};

#[cfg(test)]
mod tests;

/// `docs/api.md`.
pub fn api(crd: &CustomResourceDefinition) -> String {
    let spec = &crd.spec;
    let mut text = format!(
        "# API reference: {kind}\n\n\
         <!-- Generated from src/api and src/runtime/reference.rs by `make generate`. Do not edit. -->\n\n",
        kind = spec.names.kind,
    );
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
            let _ = writeln!(text, "## {part}\n\n{}\n", intro(part));
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
                rules(&mut text, root, &rows);
            }
        }
        columns(&mut text, version);
    }
    annotations(&mut text);
    conditions(&mut text);
    reasons(&mut text);
    healths(&mut text);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
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

fn intro(part: &str) -> &'static str {
    match part {
        "spec" => {
            "What you declare. The controller never writes it and sets no defaults in it. An optional field may be left out, but\n\
             not be `null`. Durations are written in hours, minutes and seconds: `720h`, `1h30m`, `90s`."
        }
        _ => {
            "What the controller reports. Every list is bounded, so that the status stays below 10 kB. `usage`,\n\
             `credentials[].lastUsedAt` and the columns that show them stay empty until gates report use."
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

fn annotations(text: &mut String) {
    text.push_str(
        "## Requests\n\n\
         Annotations on an ApiToken ask for something once. Any new value counts, such as the current time; it is compared with\n\
         `status.lastHandled`, so that nothing happens twice. The first 128 bytes of a value count.\n\n\
         | annotation | what it asks for |\n|---|---|\n",
    );
    for (key, meaning) in [
        (
            keys::ROTATE_REQUESTED_AT,
            "A new credential now. The superseded one stays valid for `spec.rotation.overlap`",
        ),
        (
            keys::COMPROMISED_AT,
            "The end of every credential at once, without overlap, and a new one. While the token is suspended or expired, \
             the end alone",
        ),
        (keys::RETIRE_NOW_AT, "The end of the superseded credentials before their deadline"),
    ] {
        let _ = writeln!(text, "| `{key}` | {meaning} |");
    }
    text.push_str(
        "\n## What the Secret carries\n\n\
         Beside `spec.secret.labels` and `spec.secret.annotations`:\n\n\
         | key | kind | meaning |\n|---|---|---|\n",
    );
    for (key, kind, meaning) in [
        (keys::MANAGED_BY, "label", "Always `tokenward`; the controller watches Secrets by it"),
        (keys::TOKEN, "label, annotation", "Name of the ApiToken"),
        (keys::CREDENTIAL, "annotation", "Id of the credential that the Secret holds; not secret"),
        (keys::ISSUED_AT, "annotation", "When that credential was issued, RFC 3339"),
        (keys::OWNER, "annotation", "The owner's name, if there is an owner"),
        (keys::CONTACT, "annotation", "How to reach them, if that is known"),
    ] {
        let _ = writeln!(text, "| `{key}` | {kind} | {meaning} |");
    }
    text.push('\n');
}

const CONDITIONS: [ConditionType; 5] = [
    ConditionType::Ready,
    ConditionType::Reconciling,
    ConditionType::Stalled,
    ConditionType::OwnerResolved,
    ConditionType::Expiring,
];

fn conditions(text: &mut String) {
    text.push_str(
        "## Conditions\n\n\
         `Ready` and `OwnerResolved` are always present once the controller has seen the object. The others are present only\n\
         while they are `True`, as kstatus wants it. `lastTransitionTime` moves only when the status does. `Unknown` is never\n\
         said. Conditions of other types are left as they are.\n\n\
         | type | meaning while `True` |\n|---|---|\n",
    );
    for kind in CONDITIONS {
        let _ = writeln!(text, "| `{}` | {} |", kind.as_str(), condition(kind));
    }
    text.push('\n');
}

fn condition(kind: ConditionType) -> &'static str {
    match kind {
        ConditionType::Ready => "The Secret holds a credential that gates have to accept",
        ConditionType::Reconciling => "Work is under way, or will be tried again without your help",
        ConditionType::Stalled => "Nothing will change without you: the message says what to do",
        ConditionType::OwnerResolved => "Somebody answers for the token. `False` is not an error",
        ConditionType::Expiring => "The expiry is near: a tenth of the lifetime is left, at most 14 days",
    }
}

fn reasons(text: &mut String) {
    text.push_str(
        "## Reasons\n\n\
         The same words stand in conditions, in events, in `status.lastRotationReason` and in metrics. `R` marks why a\n\
         credential was issued: the value of `status.lastRotationReason`, of `status.credentials[].reason`, and of the label\n\
         `reason` of `tokenward_rotations_total`. `Ready=False` carries the reason of a problem only while the Secret holds no\n\
         accepted credential.\n\n\
         | reason | R | conditions | event | meaning |\n|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let entry = entry(*reason);
        let rotation = if entry.rotation { "R" } else { "" };
        let _ = writeln!(
            text,
            "| `{reason}` | {rotation} | {} | {} | {} |",
            entry.conditions, entry.event, entry.meaning
        );
    }
    text.push('\n');
}

/// Where a reason is found, and what it says.
struct Entry {
    rotation: bool,
    conditions: &'static str,
    event: &'static str,
    meaning: &'static str,
}

fn entry(reason: Reason) -> Entry {
    const fn issue(conditions: &'static str, event: &'static str, meaning: &'static str) -> Entry {
        Entry { rotation: true, conditions, event, meaning }
    }
    const fn state(conditions: &'static str, event: &'static str, meaning: &'static str) -> Entry {
        Entry { rotation: false, conditions, event, meaning }
    }
    const LOST: &str = "`Ready=False` until the successor is delivered";
    const PASSING: &str = "`Reconciling`, `Ready=False`";
    const TERMINAL: &str = "`Stalled`, `Ready=False`";
    const OWNED: &str = "`OwnerResolved=True`";
    match reason {
        Reason::Issued => issue("", "Normal", "The first credential"),
        Reason::Due => issue("", "Normal", "The interval elapsed or the schedule fired"),
        Reason::Requested => issue("", "Normal", "`tokenward.dev/rotate-requested-at` changed"),
        Reason::Compromised => {
            issue(LOST, "Warning, then Normal", "`tokenward.dev/compromised-at` changed: no overlap")
        }
        Reason::SecretLost => {
            issue(LOST, "Warning, then Normal", "The Secret was gone; nobody else holds its value")
        }
        Reason::SecretAltered => {
            issue(LOST, "Warning, then Normal", "The Secret no longer holds the active credential")
        }
        Reason::Revived => issue("", "Normal", "The expiry was extended after it had ended every credential"),
        Reason::Adopted => issue(
            "",
            "Normal",
            "The status had lost every credential; the one in the Secret was entered again, none was minted",
        ),
        Reason::Redelivered => state(
            "",
            "Normal",
            "What is declared of the Secret changed: it was written anew around the same credential",
        ),
        Reason::Retired => state("", "Normal", "Superseded credentials ended, by deadline or on request"),
        Reason::StatusAltered => state(
            "",
            "Warning",
            "The status held credentials that did not come from here: they were removed or revoked",
        ),
        Reason::Delivered => {
            state("`Ready=True`", "Normal, at the end of a stall", "The Secret holds an accepted credential")
        }
        Reason::Issuing => state(PASSING, "", "A credential is on its way into the Secret, which holds none"),
        Reason::Rotating => {
            state("`Reconciling`", "", "A successor is on its way; the present credential works")
        }
        Reason::Suspended => state(TERMINAL, "Normal", "`spec.suspend` is true"),
        Reason::Expired => state(TERMINAL, "Warning", "`spec.expiry` has passed: every credential has ended"),
        Reason::ExpiresSoon => state("`Expiring`", "Warning", "The expiry is near"),
        Reason::SecretConflict => state(
            TERMINAL,
            "Warning",
            "A Secret of this name is not controlled by this ApiToken and is left alone; looked at again every 15 seconds",
        ),
        Reason::SecretRejected => state(
            TERMINAL,
            "Warning",
            "The API server refuses the Secret as invalid or too large; tried again",
        ),
        Reason::SecretForbidden => state(
            PASSING,
            "",
            "RBAC or an admission policy forbids reading or writing the Secret; tried again",
        ),
        Reason::QuotaExceeded => state(PASSING, "", "A quota leaves no room for the Secret; tried again"),
        Reason::NamespaceTerminating => state(PASSING, "", "The namespace is being deleted, or gone"),
        Reason::ApiUnavailable => {
            state(PASSING, "", "More than three calls about the Secret failed in a row; tried again")
        }
        Reason::TemplateInvalid => state(TERMINAL, "Warning", "`spec.secret.template` does not render"),
        Reason::RotationInvalid => {
            state(TERMINAL, "Warning", "`spec.rotation` is not understood: nothing rotates by the clock")
        }
        Reason::ExpiryInvalid => state(
            TERMINAL,
            "Warning",
            "`spec.expiry` is not understood: nothing is issued, what was promised holds",
        ),
        Reason::FoundOnToken => state(OWNED, "", "The owner stands on the ApiToken"),
        Reason::FoundOnNamespace => state(OWNED, "", "The owner stands on the Namespace"),
        Reason::DefaultOwner => state(OWNED, "", "The installation's default owner stands in"),
        Reason::NoOwner => state("`OwnerResolved=False`", "", "No owner was found anywhere"),
    }
}

fn healths(text: &mut String) {
    text.push_str("## Health\n\n| word | meaning |\n|---|---|\n");
    for health in Health::ALL {
        let meaning = match health {
            Health::Healthy => "The Secret holds an accepted credential and nothing is wrong",
            Health::Issuing => "A credential is being delivered, and the Secret holds none",
            Health::Rotating => "A successor is being delivered; the present credential works",
            Health::Expiring => "Valid, but the expiry is near",
            Health::Expired => "Past its expiry",
            Health::Suspended => "Refused by `spec.suspend`",
            Health::Blocked => {
                "Something keeps the declared state from being reached; the conditions say what"
            }
        };
        let _ = writeln!(text, "| `{health}` | {meaning} |");
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
