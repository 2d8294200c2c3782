//! What gives a Secret a meaning to somebody else: types, names, labels and annotations that Kubernetes or another tool acts
//! on, often with more rights than whoever declares an ApiToken has. The operator writes Secrets with its own rights, so it
//! must not write one that others obey.
//!
//! The tables here are the one source: for the rules of the CustomResourceDefinition, for the operator (an object may be
//! older than the rules), and for the reference. What an installation wants all the same, it allows by [`Allowed`].

pub(in crate::api) mod rules;
mod table;

pub use table::{KEYS, NAMES};

/// Types that may be asked for without further ado: Kubernetes only checks their keys, and nobody looks for them.
pub const TYPES: &[&str] = &["Opaque", "kubernetes.io/basic-auth", "kubernetes.io/dockerconfigjson"];

/// Types that no installation can allow: whoever writes one acts as Kubernetes, or as Helm.
pub const NEVER_TYPES: &[&str] =
    &["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", "helm.sh/release.v1"];

/// Keys of Kubernetes' own that only describe: free although the rest of their domain is not.
pub const FREE_KEYS: &[&str] = &[
    "app.kubernetes.io/component",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
];

/// What stands in the rules of the definition where an installation adds its own: no type, name or key can be this.
/// The chart puts its values behind it.
pub const MORE_TYPES: &str = "+secret-types";
/// Likewise for names.
pub const MORE_NAMES: &str = "+secret-names";
/// Likewise for label and annotation keys.
pub const MORE_KEYS: &str = "+secret-keys";

/// What an installation allows beyond the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Types of Secrets.
    pub types: Vec<String>,
    /// Names of Secrets.
    pub names: Vec<String>,
    /// Keys of labels and annotations.
    pub keys: Vec<String>,
}

/// Which keys of labels and annotations a row is about. Always compared in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Every key under this domain or one below it: `helm.sh/chart`, `meta.helm.sh/release-name`.
    Domain(&'static str),
    /// Every key that begins so.
    Begin(&'static str),
    /// This key, if it has this value.
    With(&'static str, &'static str),
}

/// Which names a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// This one.
    Is(&'static str),
    /// Every name that begins so.
    Begin(&'static str),
    /// Every name that ends so.
    End(&'static str),
}

/// A key or a name with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// Which.
    pub what: T,
    /// What it makes of a Secret, as a sentence goes on after the key.
    pub meaning: &'static str,
    /// Where that is said.
    pub source: &'static str,
}

impl Key {
    /// Whether it is about this key with this value.
    pub fn fits(self, key: &str, value: &str) -> bool {
        let key = key.to_ascii_lowercase();
        match self {
            Self::Domain(domain) => format!(".{key}").contains(&format!(".{domain}/")),
            Self::Begin(begin) => key.starts_with(begin),
            Self::With(own, with) => key == own && value.eq_ignore_ascii_case(with),
        }
    }
}

impl Name {
    /// Whether it is about this name.
    pub fn fits(self, name: &str) -> bool {
        match self {
            Self::Is(own) => name == own,
            Self::Begin(begin) => name.starts_with(begin),
            Self::End(end) => name.ends_with(end),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Domain(domain) if domain.contains('.') => write!(f, "{domain}/*, *.{domain}/*"),
            Self::Domain(domain) => write!(f, "{domain}/*"),
            Self::Begin(begin) => write!(f, "{begin}*"),
            Self::With(key, value) => write!(f, "{key}={value}"),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(name) => f.write_str(name),
            Self::Begin(begin) => write!(f, "{begin}*"),
            Self::End(end) => write!(f, "*{end}"),
        }
    }
}

/// Something that may not be asked for here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The type.
    #[error(
        "spec.secret.type {0} is never allowed: whoever reads it acts on it with rights of its own. Write another type"
    )]
    NeverType(String),
    /// The type.
    #[error(
        "spec.secret.type {0} is not allowed here: write {types}, or have whoever runs the operator allow it \
         (--secret-types)",
        types = TYPES.join(", ")
    )]
    Type(String),
    /// The name.
    #[error(
        "spec.secret.name {name} {meaning}: write another one, or have whoever runs the operator allow it (--secret-names)"
    )]
    Name {
        /// The name.
        name: String,
        /// From the table.
        meaning: &'static str,
    },
    /// A label or an annotation.
    #[error(
        "spec.secret.{field}: {key} {meaning}: leave it out, or have whoever runs the operator allow it (--secret-keys)"
    )]
    Key {
        /// `labels` or `annotations`.
        field: &'static str,
        /// The key.
        key: String,
        /// From the table.
        meaning: &'static str,
    },
}

impl Allowed {
    /// Whether a Secret of this type may be asked for.
    pub fn check_type(&self, wanted: &str) -> Result<(), Refusal> {
        if NEVER_TYPES.contains(&wanted) {
            return Err(Refusal::NeverType(wanted.to_owned()));
        }
        let known = TYPES.contains(&wanted) || self.types.iter().any(|own| own == wanted);
        known.then_some(()).ok_or_else(|| Refusal::Type(wanted.to_owned()))
    }

    /// Whether a Secret of this name may be asked for.
    pub fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let row = NAMES.iter().find(|row| row.what.fits(name));
        match row.filter(|_| !self.names.iter().any(|own| own == name)) {
            Some(row) => Err(Refusal::Name { name: name.to_owned(), meaning: row.meaning }),
            None => Ok(()),
        }
    }

    /// Whether these labels or annotations may be asked for; `field` says which they are.
    pub fn check_keys<'a>(
        &self,
        field: &'static str,
        pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<(), Refusal> {
        let free = |key: &str| FREE_KEYS.contains(&key) || self.keys.iter().any(|own| own == key);
        let refused = pairs
            .into_iter()
            .filter(|(key, _)| !free(key))
            .find_map(|(key, value)| Some((key, KEYS.iter().find(|row| row.what.fits(key, value))?.meaning)));
        match refused {
            Some((key, meaning)) => Err(Refusal::Key { field, key: key.clone(), meaning }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
