//! A structural schema applied offline, in the words of the API server: the bounds here, the rules by `kube_cel`.

use std::collections::BTreeSet;

use kube_cel::ErrorKind;
use serde_json::Value;

/// What an object breaks: the bound, by the path of its schema, and the message.
#[derive(Debug)]
pub struct Violation {
    pub bound: String,
    pub message: String,
    /// The API server then evaluates no rules.
    blocks: bool,
}

/// Everything that `object` breaks.
pub fn violations(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<Violation> {
    let (object, old) = (without_nulls(object), old.map(without_nulls));
    let mut found = Vec::new();
    walk(schema, &object, "", &mut found);
    if found.iter().any(|violation| violation.blocks) {
        return found;
    }
    if let Err(errors) = kube_cel::Validator::new().validate(schema, &object, old.as_ref()) {
        found.extend(errors.into_vec().into_iter().map(|error| {
            // A value of the wrong form may fail to evaluate; a rule that never could would prove nothing.
            assert!(
                matches!(error.kind, ErrorKind::ValidationFailure | ErrorKind::EvaluationError),
                "{error:?}"
            );
            let bound = format!("{} rule: {}", error.field_path, error.rule);
            Violation { bound, message: format!("{}: {}", error.field_path, error.message), blocks: false }
        }));
    }
    found
}

/// A null where none is allowed is dropped before anything is checked.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        other => other.clone(),
    }
}

/// Every bound and rule under `path` in the schema, as [`Violation::bound`] names them.
pub fn bounds(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    const BOUNDS: [&str; 8] =
        ["maxLength", "minLength", "maxItems", "minItems", "maxProperties", "pattern", "enum", "format"];
    for bound in BOUNDS.iter().filter(|bound| schema.get(**bound).is_some()) {
        into.insert(format!("{path} {bound}"));
    }
    for required in strings(&schema["required"]) {
        into.insert(format!("{} required", join(path, required)));
    }
    if matches!(schema["x-kubernetes-list-type"].as_str(), Some("set" | "map")) {
        into.insert(format!("{path} duplicate"));
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        // Not by its message, which may be put together from what was found.
        into.insert(format!("{path} rule: {}", rule["rule"].as_str().unwrap()));
    }
    for (path, schema) in children(schema, path) {
        bounds(schema, &path, into);
    }
}

/// The schemas directly below, with their paths.
pub fn children<'a>(schema: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut children: Vec<_> = properties.map(|(name, schema)| (join(path, name), schema)).collect();
    children.extend(schema.get("items").map(|schema| (format!("{path}[]"), schema)));
    children.extend(schema.get("additionalProperties").map(|schema| (format!("{path}{{}}"), schema)));
    children
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<Violation>) {
    let mut say = |bound: &str, blocks: bool, message: String| {
        found.push(Violation {
            bound: format!("{path} {bound}"),
            message: format!("{path}: {message}"),
            blocks,
        });
    };
    let wanted = schema["type"].as_str().unwrap_or("object");
    let fits = match wanted {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !fits {
        return say("type", true, format!("must be of type {wanted}"));
    }
    let limit = |bound: &str| schema[bound].as_u64().and_then(|limit| usize::try_from(limit).ok());
    if let Some(text) = value.as_str() {
        let length = text.chars().count();
        if let Some(limit) = limit("maxLength").filter(|limit| length > *limit) {
            say("maxLength", true, format!("Too long: may not be more than {limit} bytes"));
        }
        if let Some(limit) = limit("minLength").filter(|limit| length < *limit) {
            say("minLength", false, format!("should be at least {limit} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && !matches(pattern, text)
        {
            say("pattern", false, format!("should match '{pattern}'"));
        }
        if schema["format"] == "date-time" && !is_date_time(text) {
            say("format", true, "must be of type date-time".to_owned());
        }
        if schema.get("enum").is_some() && !strings(&schema["enum"]).any(|allowed| allowed == text) {
            say("enum", true, format!("Unsupported value: {text:?}"));
        }
    }
    if let Some(number) = value.as_i64()
        && schema["format"] == "int32"
        && i32::try_from(number).is_err()
    {
        say("format", true, "must be of type integer with format int32".to_owned());
    }
    if let Some(items) = value.as_array() {
        if let Some(limit) = limit("maxItems").filter(|limit| items.len() > *limit) {
            say("maxItems", true, format!("Too many: {}: must have at most {limit} items", items.len()));
        }
        let keys: Vec<&str> = strings(&schema["x-kubernetes-list-map-keys"]).collect();
        let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Some(item.to_string()),
            Some("map") => Some(keys.iter().map(|key| format!("{};", item[*key])).collect()),
            _ => None,
        };
        let mut seen = BTreeSet::new();
        if items.iter().filter_map(identity).any(|identity| !seen.insert(identity)) {
            say("duplicate", false, "Duplicate value".to_owned());
        }
        items.iter().for_each(|item| walk(&schema["items"], item, &format!("{path}[]"), found));
    } else if let Some(map) = value.as_object() {
        if let Some(limit) = limit("maxProperties").filter(|limit| map.len() > *limit) {
            say("maxProperties", true, format!("Too many: {}: must have at most {limit} items", map.len()));
        }
        for required in strings(&schema["required"]).filter(|required| !map.contains_key(*required)) {
            let path = join(path, required);
            let message = format!("{path}: Required value");
            found.push(Violation { bound: format!("{path} required"), message, blocks: true });
        }
        for (name, value) in map {
            let child = schema["properties"].get(name).map(|schema| (join(path, name), schema));
            let other = || schema.get("additionalProperties").map(|schema| (format!("{path}{{}}"), schema));
            // What the schema does not know is pruned.
            if let Some((path, schema)) = child.or_else(other) {
                walk(schema, value, &path, found);
            }
        }
    }
}

/// Patterns are RE2, as in CEL.
fn matches(pattern: &str, text: &str) -> bool {
    let rule = format!("self.matches({})", serde_json::to_string(pattern).unwrap());
    let schema =
        serde_json::json!({"type": "string", "x-kubernetes-validations": [{"rule": rule, "message": ""}]});
    kube_cel::Validator::new().validate(&schema, &Value::from(text), None).is_ok()
}

/// As lenient as the API server's format check.
fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let clock = "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](.[0-9]+)?([zZ]|[+-][0-9]{2}:[0-9]{2})$";
    date.parse::<k8s_openapi::jiff::civil::Date>().is_ok() && matches(clock, time)
}
