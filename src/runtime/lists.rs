//! Comma-separated lists of names, checked.
//!
//! Newtypes rather than `Vec<String>`, so that an empty environment variable means an empty list, not one empty name.

use std::fmt;
use std::str::FromStr;

use crate::api::meaning::NEVER_TYPES;

/// Most entries in any of these lists.
const MAX_ENTRIES: usize = 256;

/// Namespaces; empty for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces(pub Vec<String>);

/// Label or annotation keys, the most telling first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(pub Vec<String>);

/// Types of Secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Types(pub Vec<String>);

/// Names of Secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

/// ServiceAccounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceAccounts(pub Vec<ServiceAccount>);

/// A ServiceAccount by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not the name of a namespace.
    #[error(
        "{0:?} is not a namespace: write lower-case letters, digits and dashes, at most 63, as in shop,billing"
    )]
    Namespace(String),
    /// Not the key of a label.
    #[error("{0:?} is not a label key: write as in team or example.com/team")]
    Key(String),
    /// Not the type of a Secret.
    #[error("{0:?} is not a Secret type: write as in kubernetes.io/tls or example.com/my-type")]
    Type(String),
    /// A type that cannot be allowed.
    #[error("{0} cannot be allowed: Kubernetes or Helm acts on Secrets of this type with rights of its own")]
    NeverType(String),
    /// Not the name of a Secret.
    #[error("{0:?} is not a Secret's name: write lower-case letters, digits, dashes and dots")]
    Name(String),
    /// Not a ServiceAccount.
    #[error("{0:?} is not a ServiceAccount: write NAMESPACE/NAME, as in shop/orders-api")]
    Account(String),
    /// The same twice.
    #[error("{0:?} is written twice: keep one of them")]
    Twice(String),
    /// Too many.
    #[error("{0} entries: write at most {MAX_ENTRIES}")]
    TooMany(usize),
}

/// As logs show them.
impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("all"),
            names => f.write_str(&names.join(",")),
        }
    }
}

impl FromStr for Namespaces {
    type Err = ListError;

    fn from_str(text: &str) -> Result<Self, ListError> {
        split(text, is_dns_label, ListError::Namespace).map(Self)
    }
}

impl FromStr for Keys {
    type Err = ListError;

    fn from_str(text: &str) -> Result<Self, ListError> {
        split(text, is_label_key, ListError::Key).map(Self)
    }
}

impl FromStr for Types {
    type Err = ListError;

    fn from_str(text: &str) -> Result<Self, ListError> {
        let types = split(text, is_secret_type, ListError::Type)?;
        match types.iter().find(|kind| NEVER_TYPES.contains(&kind.as_str())) {
            Some(never) => Err(ListError::NeverType(never.clone())),
            None => Ok(Self(types)),
        }
    }
}

impl FromStr for Names {
    type Err = ListError;

    fn from_str(text: &str) -> Result<Self, ListError> {
        split(text, is_dns_name, ListError::Name).map(Self)
    }
}

impl FromStr for ServiceAccounts {
    type Err = ListError;

    fn from_str(text: &str) -> Result<Self, ListError> {
        let accounts = split(text, is_account, ListError::Account)?;
        let account = |text: String| {
            let (namespace, name) = text.split_once('/')?;
            Some(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
        };
        Ok(Self(accounts.into_iter().filter_map(account).collect()))
    }
}

fn split(
    text: &str,
    valid: fn(&str) -> bool,
    error: fn(String) -> ListError,
) -> Result<Vec<String>, ListError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut entries: Vec<String> = Vec::new();
    for entry in text.split(',').map(str::trim) {
        if !valid(entry) {
            return Err(error(entry.chars().take(64).collect()));
        }
        if entries.iter().any(|known| known == entry) {
            return Err(ListError::Twice(entry.to_owned()));
        }
        entries.push(entry.to_owned());
    }
    if entries.len() > MAX_ENTRIES { Err(ListError::TooMany(entries.len())) } else { Ok(entries) }
}

/// RFC 1123 label, as namespaces have to be.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123 subdomain, as the names of most objects have to be.
pub(super) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_account(text: &str) -> bool {
    text.split_once('/').is_some_and(|(namespace, name)| is_dns_label(namespace) && is_dns_name(name))
}

/// As the definition checks `spec.secret.type`.
fn is_secret_type(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
}

/// `[prefix/]name` as the API server checks label keys.
fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    prefix.is_none_or(is_dns_name)
        && name.len() <= 63
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_trimmed_and_may_be_empty() {
        assert_eq!("shop, billing".parse(), Ok(Namespaces(vec!["shop".into(), "billing".into()])));
        assert_eq!("".parse(), Ok(Namespaces::default()));
        assert_eq!(Namespaces::default().to_string(), "all");
        assert_eq!(Namespaces(vec!["shop".into(), "billing".into()]).to_string(), "shop,billing");
        assert_eq!(
            "example.com/team,owner".parse(),
            Ok(Keys(vec!["example.com/team".into(), "owner".into()]))
        );
    }

    #[test]
    fn accounts_have_a_namespace_and_a_name() {
        let accounts: ServiceAccounts = "shop/orders, billing/invoices.v2".parse().expect("a list");
        let (first, second) = (&accounts.0[0], &accounts.0[1]);
        assert_eq!((&*first.namespace, &*first.name), ("shop", "orders"));
        assert_eq!((&*second.namespace, &*second.name), ("billing", "invoices.v2"));
        assert_eq!("".parse(), Ok(ServiceAccounts::default()));
        for wrong in ["shop", "shop/", "/orders", "shop/a/b", "Shop/orders", "shop/orders,"] {
            assert!(matches!(wrong.parse::<ServiceAccounts>(), Err(ListError::Account(_))), "{wrong}");
        }
    }

    #[test]
    fn types_and_names_of_secrets() {
        let types: Types = "kubernetes.io/tls, example.com/my-type".parse().expect("a list");
        assert_eq!(types.0, ["kubernetes.io/tls", "example.com/my-type"]);
        for wrong in ["a b", "a'", "/a", "a/", "+secret-types", &"t".repeat(254)] {
            assert!(matches!(wrong.parse::<Types>(), Err(ListError::Type(_))), "{wrong}");
        }
        let never = "kubernetes.io/tls,helm.sh/release.v1".parse::<Types>();
        assert_eq!(never, Err(ListError::NeverType("helm.sh/release.v1".to_owned())));
        assert_eq!("shop-kubeconfig".parse(), Ok(Names(vec!["shop-kubeconfig".into()])));
        for wrong in ["Shop", "a_b", "a'", "-a"] {
            assert!(matches!(wrong.parse::<Names>(), Err(ListError::Name(_))), "{wrong}");
        }
    }

    #[test]
    fn wrong_entries_are_named() {
        for wrong in ["Shop", "shop,", "-a", "a_b", "a.b", &"a".repeat(64)] {
            assert!(matches!(wrong.parse::<Namespaces>(), Err(ListError::Namespace(_))), "{wrong}");
        }
        for wrong in ["a b", "/team", "example.com/", "a/b/c", "-team", "Example.com/team", "team,,owner"] {
            assert!(matches!(wrong.parse::<Keys>(), Err(ListError::Key(_))), "{wrong}");
        }
        assert_eq!("a,b,a".parse::<Namespaces>(), Err(ListError::Twice("a".to_owned())));
        let many: Vec<String> = (0..300).map(|n| format!("n{n}")).collect();
        assert_eq!(many.join(",").parse::<Namespaces>(), Err(ListError::TooMany(300)));
    }
}
