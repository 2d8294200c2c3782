//! Who answers for a token: an allow-list of keys, looked up on the ApiToken, then on its Namespace, then the default.

use kube::api::ObjectMeta;

use crate::api::Owner;

/// Most bytes of an owner's or contact's name; longer values are taken for prose and passed over.
pub const MAX_NAME: usize = 253;

/// Where owners are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnershipRules {
    /// Label or annotation keys that name an owner, most telling first.
    pub owner_keys: Vec<String>,
    /// Label or annotation keys that say how to reach them, most telling first.
    pub contact_keys: Vec<String>,
    /// Owner of what nobody claims.
    pub default_owner: Option<String>,
    /// Contact where none is given.
    pub default_contact: Option<String>,
}

impl Default for OwnershipRules {
    fn default() -> Self {
        let keys = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
        Self {
            owner_keys: keys(&["tokenward.dev/owner", "team", "owner"]),
            contact_keys: keys(&["tokenward.dev/contact", "contact"]),
            default_owner: None,
            default_contact: None,
        }
    }
}

/// Where the winning owner came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerOrigin {
    /// A label or annotation of the ApiToken.
    Token,
    /// A label or annotation of the Namespace.
    Namespace,
    /// The installation's default.
    Default,
}

/// Finds the owner. `namespace` is `None` while the Namespace has not been seen.
pub fn resolve(
    rules: &OwnershipRules,
    token: &ObjectMeta,
    namespace: Option<&ObjectMeta>,
) -> Option<(Owner, OwnerOrigin)> {
    let places =
        [(OwnerOrigin::Token, "ApiToken", Some(token)), (OwnerOrigin::Namespace, "Namespace", namespace)];
    let found = places.iter().find_map(|(origin, place, meta)| {
        let (kind, key, name) = lookup(&rules.owner_keys, (*meta)?)?;
        Some((name.to_owned(), format!("{place} {kind} {key}"), *origin))
    });
    let default = || {
        let name = rules.default_owner.as_deref().and_then(usable)?;
        Some((name.to_owned(), "installation default".to_owned(), OwnerOrigin::Default))
    };
    let (name, source, origin) = found.or_else(default)?;
    let contact = places
        .iter()
        .find_map(|(_, _, meta)| lookup(&rules.contact_keys, (*meta)?).map(|(_, _, contact)| contact))
        .or_else(|| rules.default_contact.as_deref().and_then(usable))
        .map(str::to_owned);
    Some((Owner { name, contact, source }, origin))
}

/// The first key that has a usable value; a label wins over an annotation of the same key.
fn lookup<'a>(keys: &'a [String], meta: &'a ObjectMeta) -> Option<(&'static str, &'a str, &'a str)> {
    keys.iter().find_map(|key| {
        let value = |map: &'a Option<std::collections::BTreeMap<String, String>>| {
            map.as_ref().and_then(|map| map.get(key)).and_then(|value| usable(value))
        };
        let label = value(&meta.labels).map(|found| ("label", key.as_str(), found));
        label.or_else(|| value(&meta.annotations).map(|found| ("annotation", key.as_str(), found)))
    })
}

/// A name, not prose: trimmed, one line, of bounded length.
fn usable(value: &str) -> Option<&str> {
    let value = value.trim();
    let fits = !value.is_empty() && value.len() <= MAX_NAME && !value.chars().any(char::is_control);
    fits.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> ObjectMeta {
        let map = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
        };
        ObjectMeta { labels: map(labels), annotations: map(annotations), ..Default::default() }
    }

    fn owner(token: &ObjectMeta, namespace: Option<&ObjectMeta>) -> Option<(String, String)> {
        resolve(&OwnershipRules::default(), token, namespace).map(|(owner, _)| (owner.name, owner.source))
    }

    #[test]
    fn order_of_precedence() {
        let namespace = meta(&[("team", "platform")], &[("tokenward.dev/owner", "infra")]);
        let cases = [
            (meta(&[("team", "payments")], &[]), "payments", "ApiToken label team"),
            (meta(&[("owner", "x"), ("team", "y")], &[]), "y", "ApiToken label team"),
            (
                meta(&[("team", "y")], &[("tokenward.dev/owner", "z")]),
                "z",
                "ApiToken annotation tokenward.dev/owner",
            ),
            (meta(&[("team", "l")], &[("team", "a")]), "l", "ApiToken label team"),
            (meta(&[], &[]), "infra", "Namespace annotation tokenward.dev/owner"),
            (meta(&[("team", "  ")], &[]), "infra", "Namespace annotation tokenward.dev/owner"),
            (meta(&[], &[("owner", "two\nlines")]), "infra", "Namespace annotation tokenward.dev/owner"),
        ];
        for (token, name, source) in cases {
            assert_eq!(owner(&token, Some(&namespace)), Some((name.into(), source.into())));
        }
        assert_eq!(owner(&meta(&[], &[]), None), None);
    }

    #[test]
    fn contact_is_looked_up_by_itself() {
        let rules = OwnershipRules { default_owner: Some("sre".into()), ..Default::default() };
        let namespace = meta(&[], &[("contact", "#platform")]);
        let (found, origin) = resolve(&rules, &meta(&[], &[]), Some(&namespace)).unwrap();
        assert_eq!((found.name.as_str(), found.contact.as_deref()), ("sre", Some("#platform")));
        assert_eq!(origin, OwnerOrigin::Default);
    }
}
