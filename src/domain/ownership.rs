//! Who answers for a token: `spec.owner`, then an allow-list of keys, looked up on the ApiToken, then on its Namespace, then
//! the default.

use kube::api::ObjectMeta;

use crate::api::{Owner, OwnerSpec};

/// Most characters of an owner's or contact's name; longer values are taken for prose and passed over.
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
    /// `spec.owner`, or a label or annotation of the ApiToken.
    Token,
    /// A label or annotation of the Namespace.
    Namespace,
    /// The installation's default.
    Default,
}

/// Finds the owner. `declared` is `spec.owner`; `namespace` is `None` while the Namespace has not been seen. A contact that
/// is not declared is looked up by itself.
pub fn resolve(
    rules: &OwnershipRules,
    declared: Option<&OwnerSpec>,
    token: &ObjectMeta,
    namespace: Option<&ObjectMeta>,
) -> Option<(Owner, OwnerOrigin)> {
    let places =
        [(OwnerOrigin::Token, "ApiToken", Some(token)), (OwnerOrigin::Namespace, "Namespace", namespace)];
    let said = || {
        let name = usable(&declared?.name)?;
        Some((name.to_owned(), "spec.owner".to_owned(), OwnerOrigin::Token))
    };
    let found = || {
        places.iter().find_map(|(origin, place, meta)| {
            let (kind, key, name) = lookup(&rules.owner_keys, (*meta)?)?;
            Some((name.to_owned(), format!("{place} {kind} {key}"), *origin))
        })
    };
    let default = || {
        let name = rules.default_owner.as_deref().and_then(usable)?;
        Some((name.to_owned(), "installation default".to_owned(), OwnerOrigin::Default))
    };
    let (name, source, origin) = said().or_else(found).or_else(default)?;
    let contact = declared
        .and_then(|declared| usable(declared.contact.as_deref()?))
        .or_else(|| {
            let contact = |meta| lookup(&rules.contact_keys, meta).map(|(_, _, contact)| contact);
            places.iter().find_map(|(_, _, meta)| contact((*meta)?))
        })
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
    let fits = !value.is_empty() && value.chars().count() <= MAX_NAME && !value.chars().any(char::is_control);
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
        resolve(&OwnershipRules::default(), None, token, namespace)
            .map(|(owner, _)| (owner.name, owner.source))
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
        let (found, origin) = resolve(&rules, None, &meta(&[], &[]), Some(&namespace)).unwrap();
        assert_eq!((found.name.as_str(), found.contact.as_deref()), ("sre", Some("#platform")));
        assert_eq!(origin, OwnerOrigin::Default);
    }

    #[test]
    fn what_the_spec_says_comes_first() {
        let rules = OwnershipRules { default_owner: Some("sre".into()), ..Default::default() };
        let token = meta(&[("tokenward.dev/owner", "label"), ("contact", "label-contact")], &[]);
        let namespace = meta(&[("team", "platform")], &[]);
        let said = |name: &str, contact: Option<&str>| {
            let declared = OwnerSpec { name: name.into(), contact: contact.map(Into::into) };
            let (owner, origin) = resolve(&rules, Some(&declared), &token, Some(&namespace)).unwrap();
            assert_eq!(origin, OwnerOrigin::Token);
            (owner.name, owner.contact.unwrap_or_default(), owner.source)
        };
        let spec = |name: &str, contact: &str| (name.to_owned(), contact.to_owned(), "spec.owner".to_owned());
        assert_eq!(said("payments", Some("#pay")), spec("payments", "#pay"));
        assert_eq!(said("payments", None), spec("payments", "label-contact"));
        assert_eq!(said(&"ß".repeat(253), None).0, "ß".repeat(253), "as long as the definition allows");
        // Stored under another definition: what is no name is passed over, as it is in a label.
        for unusable in ["", "  ", "two\nlines", &"x".repeat(254)] {
            assert_eq!(said(unusable, None).2, "ApiToken label tokenward.dev/owner", "{unusable:?}");
        }
    }
}
