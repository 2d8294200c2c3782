//! What the real server does to Secrets before storing them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::status::{ApiError, Cause};

/// The largest sum of values.
const MAX_BYTES: usize = 1024 * 1024;

/// Folds `stringData` into `data`, gives the type its default, and drops what is empty.
pub(super) fn prepare(secret: &mut Value) -> Result<(), ApiError> {
    let Some(map) = secret.as_object_mut() else { return Ok(()) };
    if let Some(Value::Object(plain)) = map.remove("stringData") {
        let data = map.entry("data").or_insert_with(|| Value::Object(Map::new()));
        if data.is_null() {
            *data = Value::Object(Map::new());
        }
        for (key, value) in plain {
            data[key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
    }
    if map.get("type").is_none_or(|t| t.as_str().unwrap_or_default().is_empty()) {
        map.insert("type".into(), "Opaque".into());
    }
    if map.get("data").is_some_and(|d| d.is_null() || d.as_object().is_some_and(Map::is_empty)) {
        map.remove("data");
    }
    for (key, value) in map.get("data").and_then(Value::as_object).into_iter().flatten() {
        if value.as_str().is_none_or(|text| STANDARD.decode(text).is_err()) {
            return Err(ApiError::bad_request(format!(
                "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data in data[{key}]"
            )));
        }
    }
    Ok(())
}

/// The rules of types, sizes and immutability.
pub(super) fn validate(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let data = |secret: &Value| secret.get("data").cloned().unwrap_or_default();
    let kind = new["type"].as_str().unwrap_or_default();
    if let Some(old) = old {
        if old["type"] != new["type"] {
            causes.push(Cause::value_of("type", &format!("\"{kind}\""), "field is immutable"));
        }
        if old["immutable"] == Value::Bool(true) {
            let why = "field is immutable when `immutable` is set";
            if new["immutable"] != Value::Bool(true) {
                causes.push(Cause::forbidden("immutable", why));
            }
            if data(old) != data(new) {
                causes.push(Cause::forbidden("data", why));
            }
        }
    }
    let content = data(new);
    let has = |key: &str| content.get(key).is_some();
    let mut size = 0;
    for (key, value) in content.as_object().into_iter().flatten() {
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
            causes.push(Cause::value_of(&format!("data[{key}]"), &format!("\"{key}\""), why));
        }
        size += value.as_str().map_or(0, |text| text.len() / 4 * 3);
    }
    if size > MAX_BYTES {
        causes.push(Cause::too_long("data", MAX_BYTES));
    }
    match kind {
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            causes.push(Cause::required("data[username]", ""));
            causes.push(Cause::required("data[password]", ""));
        }
        "kubernetes.io/ssh-auth" if !has("ssh-privatekey") => {
            causes.push(Cause::required("data[ssh-privatekey]", ""));
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                causes.push(Cause::required(&format!("data[{key}]"), ""));
            }
        }
        "kubernetes.io/dockerconfigjson" => docker(&content, ".dockerconfigjson", causes),
        "kubernetes.io/dockercfg" => docker(&content, ".dockercfg", causes),
        _ => {}
    }
}

fn docker(content: &Value, key: &str, causes: &mut Vec<Cause>) {
    let field = format!("data[{key}]");
    match content.get(key).and_then(Value::as_str) {
        None => causes.push(Cause::required(&field, "")),
        Some(text) => {
            let bytes = STANDARD.decode(text).unwrap_or_default();
            if !serde_json::from_slice::<Value>(&bytes).is_ok_and(|v| v.is_object()) {
                causes.push(Cause::value_of(&field, "\"<secret contents redacted>\"", "not a JSON object"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_is_folded_and_the_type_defaulted() {
        let mut secret = json!({"data": {"a": "eA=="}, "stringData": {"b": "y"}});
        prepare(&mut secret).unwrap();
        assert_eq!(secret, json!({"data": {"a": "eA==", "b": "eQ=="}, "type": "Opaque"}));
        assert_eq!(prepare(&mut json!({"data": {"a": "not base64!"}})).unwrap_err().code, 400);
    }

    #[test]
    fn types_and_immutability() {
        let judge = |new: Value, old: Option<Value>| {
            let mut causes = Vec::new();
            validate(&new, old.as_ref(), &mut causes);
            causes.len()
        };
        assert_eq!(judge(json!({"type": "Opaque"}), None), 0);
        assert_eq!(judge(json!({"type": "b"}), Some(json!({"type": "a"}))), 1);
        assert_eq!(judge(json!({"type": "kubernetes.io/basic-auth"}), None), 2);
        assert_eq!(
            judge(
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}),
                None
            ),
            0
        );
        let frozen = json!({"type": "a", "immutable": true, "data": {"k": "eA=="}});
        assert_eq!(judge(json!({"type": "a", "immutable": true, "data": {}}), Some(frozen.clone())), 1);
        assert_eq!(judge(frozen.clone(), Some(frozen)), 0);
    }
}
