//! What stands in the Secret is not what was written: an admission webhook or policy changed it on the way.

use k8s_openapi::api::core::v1::Secret;

use super::delivery::DesiredSecret;
use crate::api::{Reason, keys};

/// Fields that are named in a message; of more, the number is.
const MOST_NAMED: usize = 4;

/// A field of the Secret that does not stand as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// As `metadata.labels[tier]`, `data[token]` or `type`.
    pub field: String,
    /// What is there instead.
    pub change: Change,
}

/// How a field was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is not there.
    Removed,
    /// It holds something else, which is not for others to read.
    Altered,
    /// It holds something else, and both may be shown.
    Replaced {
        /// What was written.
        from: String,
        /// What stands.
        to: String,
    },
}

/// Where `actual` does not say what was wanted. What others added is theirs and does not count.
pub fn mutations(wanted: &DesiredSecret, actual: &Secret) -> Vec<Mutation> {
    let mut found = Vec::new();
    let labels = actual.metadata.labels.as_ref();
    for (key, value) in &wanted.labels {
        let is = labels.and_then(|labels| labels.get(key));
        push(&mut found, "metadata.labels", key, Some(value) == is, is.map(|is| shown(value, is, actual)));
    }
    let annotations = actual.metadata.annotations.as_ref();
    for (key, value) in &wanted.annotations {
        let is = annotations.and_then(|annotations| annotations.get(key));
        // Long, and who knows what another wrote there.
        push(&mut found, "metadata.annotations", key, Some(value) == is, is.map(|_| Change::Altered));
    }
    for (key, value) in &wanted.data {
        let is = actual.data.as_ref().and_then(|data| data.get(key));
        let same = is.is_some_and(|is| is.0 == value.as_bytes());
        push(&mut found, "data", key, same, is.map(|_| Change::Altered));
    }
    found
}

fn push(found: &mut Vec<Mutation>, map: &str, key: &str, same: bool, change: Option<Change>) {
    if !same {
        found.push(Mutation { field: format!("{map}[{key}]"), change: change.unwrap_or(Change::Removed) });
    }
}

/// A label's value may be shown, unless it was taken from the Secret's data.
fn shown(from: &str, to: &str, secret: &Secret) -> Change {
    let data = secret.data.iter().flat_map(|data| data.values());
    let mut texts = data.filter_map(|value| std::str::from_utf8(&value.0).ok());
    if !to.is_empty() && texts.any(|text| text.contains(to) || (!text.is_empty() && to.contains(text))) {
        return Change::Altered;
    }
    Change::Replaced { from: from.to_owned(), to: to.to_owned() }
}

impl Mutation {
    /// Whether a workload that reads the Secret finds something else than was declared.
    fn is_of_data(&self) -> bool {
        self.field.starts_with("data[")
    }
}

/// Whether the Secret, as it stands, is shown by the watch that selects by our label.
pub fn is_watched(secret: &Secret) -> bool {
    secret.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(keys::TOKEN))
}

/// How bad it is.
pub fn reason(mutations: &[Mutation]) -> Reason {
    if mutations.iter().any(Mutation::is_of_data) { Reason::DataMutated } else { Reason::MetadataMutated }
}

/// For people: which fields, and what to do. Values of data are never named.
pub fn message(name: &str, mutations: &[Mutation], watched: bool) -> String {
    // What workloads read comes first.
    let (data, metadata): (Vec<_>, Vec<_>) = mutations.iter().partition(|mutation| mutation.is_of_data());
    let all: Vec<_> = data.into_iter().chain(metadata).collect();
    let mut named: Vec<String> = all.iter().take(MOST_NAMED).map(|mutation| describe(mutation)).collect();
    if all.len() > MOST_NAMED {
        named.push(format!("{} more", all.len() - MOST_NAMED));
    }
    let blind = match watched {
        true => "",
        false => "; no watch shows it any more, so it is read again and again",
    };
    format!(
        "An admission webhook or policy changes Secret {name} as it is written: {}{blind}. Exempt it there, then annotate it, \
         so that it is written again",
        named.join(", ")
    )
}

fn describe(mutation: &Mutation) -> String {
    let field = &mutation.field;
    match &mutation.change {
        Change::Removed => format!("{field} is removed"),
        Change::Altered => format!("{field} is altered"),
        Change::Replaced { from, to } => format!("{field} is changed from {from:?} to {to:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use zeroize::Zeroizing;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn wanted() -> DesiredSecret {
        DesiredSecret {
            type_: "Opaque".into(),
            labels: map(&[(keys::MANAGED_BY, "tokenward"), (keys::TOKEN, "orders")]),
            annotations: map(&[("note", "mine")]),
            data: [("token".to_owned(), Zeroizing::new("twd_plaintext".to_owned()))].into(),
        }
    }

    fn stored(labels: &[(&str, &str)], annotations: &[(&str, &str)], token: &str) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.labels = Some(map(labels));
        secret.metadata.annotations = Some(map(annotations));
        secret.data = Some([("token".to_owned(), ByteString(token.as_bytes().to_vec()))].into());
        secret
    }

    #[test]
    fn what_others_add_is_no_mutation() {
        let labels = [(keys::MANAGED_BY, "tokenward"), (keys::TOKEN, "orders"), ("theirs", "x")];
        let secret = stored(&labels, &[("note", "mine"), ("more", "y")], "twd_plaintext");
        assert_eq!(mutations(&wanted(), &secret), []);
    }

    #[test]
    fn each_field_is_named_with_what_may_be_shown() {
        let secret = stored(&[(keys::MANAGED_BY, "platform")], &[("note", "theirs")], "another");
        let found = mutations(&wanted(), &secret);
        let message = message("orders", &found, is_watched(&secret));
        for part in [
            "data[token] is altered, metadata.labels[app.kubernetes.io/managed-by] is changed from \"tokenward\" to \"platform\"",
            "metadata.labels[tokenward.dev/token] is removed",
            "metadata.annotations[note] is altered; no watch shows it",
        ] {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        assert!(!message.contains("another") && !message.contains("theirs") && !message.contains("twd_"));
        assert_eq!(reason(&found), Reason::DataMutated);
        assert_eq!(reason(&found[..1]), Reason::MetadataMutated);
    }

    #[test]
    fn a_label_that_was_filled_from_the_data_is_not_shown() {
        for copy in ["twd_plaintext", "plain", "x-twd_plaintext-y"] {
            let labels = [(keys::MANAGED_BY, copy), (keys::TOKEN, "orders")];
            let found = mutations(&wanted(), &stored(&labels, &[("note", "mine")], "twd_plaintext"));
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].change, Change::Altered, "{copy}");
        }
    }

    #[test]
    fn a_long_list_is_cut_to_its_length() {
        let mut wanted = wanted();
        wanted.labels.extend((0..16).map(|n| (format!("label-{n}"), "x".repeat(63))));
        let found = mutations(&wanted, &stored(&[], &[], ""));
        assert_eq!(found.len(), 20);
        let message = message("orders", &found, false);
        assert!(message.contains("16 more") && message.len() < 768, "{message}");
    }
}
