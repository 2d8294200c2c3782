//! The table of what the CRD accepts and refuses, in `tests/cases/crd/`.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// One object that somebody may write.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// Added to the metadata.
    #[serde(default)]
    pub metadata: Value,
    pub spec: Option<Value>,
    /// Instead of `spec`: everything but apiVersion, kind and metadata.
    pub object: Option<Value>,
    /// The spec that is there already: the case is an update.
    pub old: Option<Value>,
    /// Written to the status of an ApiToken with an empty spec.
    pub status: Option<Value>,
    /// Part of the message; without it the object is accepted.
    pub reject: Option<String>,
    /// Accepted, but the controller says `Stalled` with this reason.
    pub stalled: Option<String>,
}

impl Case {
    /// The object, and the one it replaces if it is an update.
    pub fn objects(&self) -> (Value, Option<Value>) {
        let whole = |content: Value| {
            let mut object = json!({
                "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "metadata": {"name": "case"},
            });
            merge(&mut object["metadata"], &expanded(&self.metadata));
            merge(&mut object, &content);
            object
        };
        let of_spec = |spec: &Option<Value>| json!({"spec": expanded(spec.as_ref().unwrap_or(&json!({})))});
        let object = match (&self.object, &self.status) {
            (Some(object), _) => whole(expanded(object)),
            (None, Some(status)) => whole(json!({"spec": {}, "status": expanded(status)})),
            (None, None) => whole(of_spec(&self.spec)),
        };
        (object, self.old.is_some().then(|| whole(of_spec(&self.old))))
    }
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.clone());
    }
}

/// `{$repeat: [text, n]}` is a string, `{$list: n}` a list and `{$map: n}` a map of n different entries.
fn expanded(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(repeat)) = map.get("$repeat") {
                return json!(repeat[0].as_str().unwrap().repeat(count(&repeat[1])));
            }
            if let Some(n) = map.get("$list") {
                return (0..count(n)).map(|i| json!(format!("entry-{i}"))).collect();
            }
            if let Some(n) = map.get("$map") {
                let entries = (0..count(n)).map(|i| (format!("entry-{i}"), json!("value")));
                return Value::Object(entries.collect::<Map<_, _>>());
            }
            map.iter().map(|(key, value)| (key.clone(), expanded(value))).collect()
        }
        Value::Array(items) => items.iter().map(expanded).collect(),
        other => other.clone(),
    }
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Every case, named by its file.
pub fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/crd");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let cases = files.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap();
        let cases: Vec<Case> =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        cases.into_iter().map(move |case| Case { name: format!("{stem}: {}", case.name), ..case })
    });
    cases.collect()
}
