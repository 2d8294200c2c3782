//! Label and field selectors of list and watch.

use serde_json::Value;

use super::status::ApiError;

/// A parsed `labelSelector` and `fieldSelector`; an object must satisfy every requirement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(Field, String, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    SecretType,
}

impl Selector {
    pub(super) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        let mut selector = Self::default();
        for part in split(labels.unwrap_or_default()) {
            selector.labels.push(requirement(part)?);
        }
        for part in fields.unwrap_or_default().split(',').filter(|p| !p.is_empty()) {
            let (key, value, equal) = comparison(part)
                .ok_or_else(|| ApiError::bad_request(format!("invalid selector: '{part}'")))?;
            let field = match key {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                "type" => Field::SecretType,
                other => {
                    return Err(ApiError::bad_request(format!(
                        "Unable to find field label \"{other}\": field label not supported: {other}"
                    )));
                }
            };
            selector.fields.push((field, value.into(), equal));
        }
        Ok(selector)
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        if self.is_everything() {
            return true;
        }
        let metadata = &object["metadata"];
        let labels = &metadata["labels"];
        self.labels.iter().all(|r| r.holds(labels))
            && self.fields.iter().all(|(field, want, equal)| {
                let have = match field {
                    Field::Name => &metadata["name"],
                    Field::Namespace => &metadata["namespace"],
                    Field::SecretType => &object["type"],
                };
                (have.as_str().unwrap_or_default() == want) == *equal
            })
    }
}

impl Requirement {
    fn holds(&self, labels: &Value) -> bool {
        let get = |key: &String| labels.get(key).and_then(Value::as_str);
        match self {
            Self::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            // A missing label satisfies `notin` and `!=`, as in the real server.
            Self::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists(key) => get(key).is_some(),
            Self::Absent(key) => get(key).is_none(),
        }
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|p| !p.is_empty()).collect()
}

/// `key=value`, `key==value` or `key!=value`, and whether equality is asked for.
fn comparison(part: &str) -> Option<(&str, &str, bool)> {
    let (key, value, equal) = if let Some((k, v)) = part.split_once("!=") {
        (k, v, false)
    } else {
        let (k, v) = part.split_once("==").or_else(|| part.split_once('='))?;
        (k, v, true)
    };
    Some((key.trim(), value.trim(), equal))
}

fn requirement(part: &str) -> Result<Requirement, ApiError> {
    let bad = || ApiError::bad_request(format!("unable to parse requirement: '{part}'"));
    if let Some(open) = part.find('(') {
        let inner = part[open + 1..].strip_suffix(')').ok_or_else(bad)?;
        let values = inner.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = part[..open].split_whitespace();
        let key = words.next().ok_or_else(bad)?.to_owned();
        return match words.next() {
            Some("in") => Ok(Requirement::In(key, values)),
            Some("notin") => Ok(Requirement::NotIn(key, values)),
            _ => Err(bad()),
        };
    }
    if let Some((key, value, equal)) = comparison(part) {
        let (key, values) = (key.to_owned(), vec![value.to_owned()]);
        return Ok(if equal { Requirement::In(key, values) } else { Requirement::NotIn(key, values) });
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(key.trim().into())),
        None if part.contains(char::is_whitespace) => Err(bad()),
        None => Ok(Requirement::Exists(part.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_and_fields() {
        let object =
            json!({"metadata": {"name": "a", "namespace": "n", "labels": {"app": "x", "tier": "db"}}});
        for (labels, fields, want) in [
            ("", "", true),
            ("app=x", "", true),
            ("app==y", "", false),
            ("app!=y,tier", "", true),
            ("missing!=y", "", true),
            ("!app", "", false),
            ("!missing", "", true),
            ("app in (x, y),tier notin (web)", "", true),
            ("app in (y)", "", false),
            ("missing notin (y)", "", true),
            ("missing in (y)", "", false),
            ("", "metadata.name=a", true),
            ("", "metadata.name!=a", false),
            ("app", "metadata.namespace=n,metadata.name=b", false),
        ] {
            let selector = Selector::parse(Some(labels), Some(fields)).unwrap();
            assert_eq!(selector.matches(&object), want, "{labels} {fields}");
        }
        assert!(Selector::parse(None, Some("spec.x=1")).is_err());
        assert!(Selector::parse(Some("a b c"), None).is_err());
    }
}
