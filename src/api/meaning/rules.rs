//! The tables as rules of the CustomResourceDefinition, in CEL.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, ValidationRule};

use super::{
    Allowed, FREE_KEYS, KEYS, Key, MORE_KEYS, MORE_NAMES, MORE_TYPES, NAMES, NEVER_TYPES, Name, TYPES,
};

/// Where users find out more.
const SEE: &str = "leave it out, or have whoever runs the operator allow it";

/// Adds the rules to the schema of an ApiToken.
pub(in crate::api) fn add(root: &mut JSONSchemaProps, allowed: &Allowed) {
    root.x_kubernetes_validations.get_or_insert_default().push(names(allowed));
    let secret = root.properties.as_mut().and_then(|root| root.get_mut("spec"));
    let secret = secret.and_then(|spec| spec.properties.as_mut()?.get_mut("secret"));
    for (field, schema) in secret.and_then(|secret| secret.properties.as_mut()).into_iter().flatten() {
        let rules = match field.as_str() {
            "type" => types(allowed),
            "labels" => vec![keys("label", "labels", allowed)],
            "annotations" => vec![keys("annotation", "annotations", allowed)],
            _ => continue,
        };
        schema.x_kubernetes_validations.get_or_insert_default().extend(rules);
    }
}

fn types(allowed: &Allowed) -> Vec<ValidationRule> {
    let more = [MORE_TYPES].into_iter().chain(allowed.types.iter().map(String::as_str));
    vec![
        rule(
            format!("!(self in {})", list(NEVER_TYPES.iter().copied())),
            "whoever reads a Secret of this type, Kubernetes or Helm, acts on it with rights of its own: choose another type",
        ),
        rule(
            format!("self in {}", list(TYPES.iter().copied().chain(more))),
            &format!(
                "write {}, or have whoever runs the operator allow another type (--secret-types)",
                TYPES.join(", ")
            ),
        ),
    ]
}

/// On the object, because a name that is not given is the object's own. Only as long as there is no status: the name cannot
/// change, and a rule on the whole object would refuse the status of one that is older than the rule.
fn names(allowed: &Allowed) -> ValidationRule {
    let more = [MORE_NAMES].into_iter().chain(allowed.names.iter().map(String::as_str));
    let mut doubts = String::new();
    for row in NAMES {
        let _ = match row.what {
            Name::Is(name) => write!(doubts, " || n == '{name}'"),
            Name::Begin(begin) => write!(doubts, " || n.startsWith('{begin}')"),
            Name::End(end) => write!(doubts, " || n.endsWith('{end}')"),
        };
    }
    let own =
        "has(self.spec.secret) && has(self.spec.secret.name) ? self.spec.secret.name : self.metadata.name";
    rule(
        format!(
            "has(self.status) || [{own}].all(n, n in {} || !({}))",
            list(more),
            doubts.trim_start_matches(" || ")
        ),
        "spec.secret.name (default: metadata.name) is one that another tool looks for: write another one, or have whoever \
         runs the operator allow it (--secret-names)",
    )
}

fn keys(one: &str, field: &str, allowed: &Allowed) -> ValidationRule {
    let more = [MORE_KEYS].into_iter().chain(allowed.keys.iter().map(String::as_str));
    let free = list(FREE_KEYS.iter().copied().chain(more));
    let domains = KEYS.iter().filter_map(|row| match row.what {
        Key::Domain(domain) => Some(format!(".{domain}/")),
        _ => None,
    });
    let begins = KEYS.iter().filter_map(|row| match row.what {
        Key::Begin(begin) => Some(begin),
        _ => None,
    });
    let pairs = KEYS.iter().filter_map(|row| match row.what {
        Key::With(key, value) => {
            Some(format!(" || (k.lowerAscii() == '{key}' && self[k].lowerAscii() == '{value}')"))
        }
        _ => None,
    });
    let doubt = format!(
        "!(k in {free}) && ({}.exists(d, ('.' + k.lowerAscii()).contains(d)) || {}.exists(b, k.lowerAscii().startsWith(b)){})",
        list(domains),
        list(begins),
        pairs.collect::<String>(),
    );
    let general = format!(
        "a key of spec.secret.{field} gives the Secret a meaning to others: {SEE} (--secret-keys; docs/security.md lists them)"
    );
    ValidationRule {
        message_expression: Some(format!(
            "'{one} ' + self.filter(k, {doubt})[0] + ' gives the Secret a meaning to others: {SEE} (--secret-keys)'"
        )),
        ..rule(format!("!self.exists(k, {doubt})"), &general)
    }
}

fn rule(rule: String, message: &str) -> ValidationRule {
    ValidationRule { rule, message: Some(message.to_owned()), ..ValidationRule::default() }
}

/// A list of literals. Nothing in the tables, nor in what the arguments let through, has a quote in it.
fn list(words: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let words: Vec<String> = words.map(|word| format!("'{word}'")).collect();
    format!("[{}]", words.join(", "))
}
