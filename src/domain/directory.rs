//! Which ApiTokens there are, which credentials each has published, and so whether a credential is anybody's already.

use std::collections::HashMap;

use super::token::{CredentialId, digest_bytes};

/// An ApiToken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// `metadata.creationTimestamp`, Unix seconds.
    pub created: i64,
    /// `metadata.uid`.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// The first half of a digest: 128 bits, so that nobody makes up a token with the same one.
pub type Print = u128;

/// The print of a digest as a status writes it; `None` if that is none.
pub fn print_of(digest: &str) -> Option<Print> {
    digest_bytes(digest)?.first_chunk().map(|half| Print::from_be_bytes(*half))
}

/// A credential that the status of an ApiToken names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its id.
    pub id: CredentialId,
    /// Of its digest, if that can be read.
    pub print: Option<Print>,
    /// It is in the Secret, or on its way there.
    pub current: bool,
    /// When it was last used, as far as the status says so; Unix seconds.
    pub shown: Option<i64>,
}

/// An ApiToken with what it has published.
#[derive(Clone, Debug)]
struct Entry {
    claimant: Claimant,
    credentials: Box<[Published]>,
    /// What was current when every credential vanished from the status, until there is one again.
    lost: Box<[Print]>,
    /// What it is about to publish, or was once: nobody else may meanwhile.
    reserved: Option<Print>,
}

impl Entry {
    fn prints(&self) -> impl Iterator<Item = Print> {
        self.credentials.iter().filter_map(|credential| credential.print).chain(self.reserved)
    }
}

/// Every ApiToken that this process knows of, with the credentials that its status names, living and ended. Some 500 bytes each
/// with three credentials.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    tokens: HashMap<Box<str>, Entry>,
    /// How often each digest is published.
    published: HashMap<Print, u32>,
}

impl Directory {
    /// An ApiToken is there, or changed.
    pub fn apply(&mut self, claimant: &Claimant, credentials: &[Published]) {
        let before = self.take(&claimant.uid);
        let mut credentials: Box<[Published]> = credentials.into();
        let (mut lost, mut reserved) = (Box::default(), None);
        if let Some(before) = before {
            for credential in &mut credentials {
                let was = before.credentials.iter().find(|was| was.id == credential.id);
                credential.shown = credential.shown.or(was.and_then(|was| was.shown));
            }
            let current = before.credentials.iter().filter(|was| was.current).filter_map(|was| was.print);
            lost = match (credentials.is_empty(), before.credentials.is_empty()) {
                (true, true) => before.lost,
                (true, false) => current.collect(),
                (false, _) => Box::default(),
            };
            reserved = before.reserved;
        }
        self.put(Entry { claimant: claimant.clone(), credentials, lost, reserved });
    }

    /// An ApiToken is gone.
    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
    }

    fn put(&mut self, entry: Entry) {
        for print in entry.prints() {
            *self.published.entry(print).or_default() += 1;
        }
        self.tokens.insert(entry.claimant.uid.as_str().into(), entry);
    }

    fn take(&mut self, uid: &str) -> Option<Entry> {
        let entry = self.tokens.remove(uid)?;
        for print in entry.prints() {
            match self.published.get_mut(&print) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.published.remove(&print)),
            }
        }
        Some(entry)
    }

    /// Whether another ApiToken than this one has published a credential of this digest, living or ended, or is about to.
    pub fn is_anothers(&self, uid: &str, digest: &str) -> bool {
        let Some(print) = print_of(digest) else { return false };
        let own = self.tokens.get(uid).map_or(0, |entry| entry.prints().filter(|own| *own == print).count());
        self.published.get(&print).is_some_and(|all| *all as usize > own)
    }

    /// Whether this ApiToken's current credential had this digest when its status lost all of them, as seen by this process.
    pub fn has_lost(&self, uid: &str, digest: &str) -> bool {
        let print = print_of(digest);
        self.tokens.get(uid).is_some_and(|entry| entry.lost.iter().any(|lost| Some(*lost) == print))
    }

    /// This ApiToken is about to publish a credential of this digest. False if it is another's; else no other may publish it
    /// from now on, until this one publishes the next, even if it does not come to it.
    pub fn reserve(&mut self, uid: &str, digest: &str) -> bool {
        if self.is_anothers(uid, digest) {
            return false;
        }
        if let Some(mut entry) = self.take(uid) {
            entry.reserved = print_of(digest);
            self.put(entry);
        }
        true
    }

    /// The ApiToken of this uid and its credentials.
    pub fn token(&self, uid: &str) -> Option<(&Claimant, &[Published])> {
        self.tokens.get(uid).map(|entry| (&entry.claimant, entry.credentials.as_ref()))
    }

    /// When this credential of this ApiToken was last used, as far as the status says so: Unix seconds.
    pub fn shown(&self, uid: &str, id: CredentialId) -> Option<i64> {
        let (_, credentials) = self.token(uid)?;
        credentials.iter().find(|credential| credential.id == id)?.shown
    }

    /// The uids of those that are there.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.tokens.keys().map(AsRef::as_ref)
    }

    /// How many ApiTokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(name: &str) -> Claimant {
        Claimant { created: 1, uid: format!("uid-{name}"), namespace: "shop".into(), name: name.into() }
    }

    fn digest(number: u8) -> String {
        crate::domain::token::digest_of(&[number])
    }

    fn published(number: u8, current: bool) -> Published {
        let id = CredentialId::parse(&format!("{number:010}")).unwrap();
        Published { id, print: print_of(&digest(number)), current, shown: None }
    }

    #[test]
    fn a_digest_is_anothers_while_another_names_it() {
        let mut directory = Directory::default();
        assert!(!directory.is_anothers("uid-a", &digest(1)));
        directory.apply(&claimant("a"), &[published(1, true), published(2, false)]);
        assert!(!directory.is_anothers("uid-a", &digest(1)), "its own");
        assert!(directory.is_anothers("uid-b", &digest(1)) && directory.is_anothers("uid-b", &digest(2)));
        assert!(directory.is_anothers("uid-unheard-of", &digest(1)));
        directory.apply(&claimant("b"), &[published(1, true)]);
        assert!(directory.is_anothers("uid-a", &digest(1)), "now it is both's");
        directory.remove("uid-b");
        assert!(!directory.is_anothers("uid-a", &digest(1)));
        directory.apply(&claimant("a"), &[]);
        assert!(!directory.is_anothers("uid-b", &digest(1)) && directory.published.is_empty());
        assert!(!directory.is_anothers("uid-b", "sha256:short") && print_of("sha256:short").is_none());
    }

    #[test]
    fn what_is_about_to_be_published_is_taken() {
        let mut directory = Directory::default();
        directory.apply(&claimant("a"), &[]);
        directory.apply(&claimant("b"), &[]);
        assert!(directory.reserve("uid-a", &digest(1)));
        assert!(directory.reserve("uid-a", &digest(1)), "again, after a write that failed");
        assert!(!directory.reserve("uid-b", &digest(1)));
        // The watch has not shown it yet.
        directory.apply(&claimant("a"), &[]);
        assert!(directory.is_anothers("uid-b", &digest(1)));
        directory.apply(&claimant("a"), &[published(1, true)]);
        assert!(!directory.is_anothers("uid-a", &digest(1)) && directory.is_anothers("uid-b", &digest(1)));
        directory.remove("uid-a");
        assert!(directory.reserve("uid-b", &digest(1)));
    }

    #[test]
    fn only_what_was_current_is_remembered_of_a_status_that_was_wiped() {
        let mut directory = Directory::default();
        directory.apply(&claimant("a"), &[published(1, true), published(2, false)]);
        assert!(!directory.has_lost("uid-a", &digest(1)), "it is there");
        directory.apply(&claimant("a"), &[]);
        directory.apply(&claimant("a"), &[]);
        assert!(directory.has_lost("uid-a", &digest(1)) && !directory.has_lost("uid-a", &digest(2)));
        assert!(!directory.has_lost("uid-b", &digest(1)));
        directory.apply(&claimant("a"), &[published(3, true)]);
        directory.apply(&claimant("a"), &[]);
        assert!(!directory.has_lost("uid-a", &digest(1)) && directory.has_lost("uid-a", &digest(3)));
        directory.remove("uid-a");
        directory.apply(&claimant("a"), &[]);
        assert!(!directory.has_lost("uid-a", &digest(3)), "another of the same uid, as far as anybody knows");
    }

    #[test]
    fn what_is_shown_is_each_ones_own() {
        let mut directory = Directory::default();
        let at = |shown| Published { shown, ..published(1, true) };
        directory.apply(&claimant("a"), &[at(Some(7))]);
        directory.apply(&claimant("b"), &[at(None)]);
        let id = published(1, true).id;
        assert_eq!((directory.shown("uid-a", id), directory.shown("uid-b", id)), (Some(7), None));
        directory.apply(&claimant("a"), &[at(None)]);
        assert_eq!(directory.shown("uid-a", id), Some(7), "an update forgets nothing");
        directory.apply(&claimant("a"), &[]);
        directory.apply(&claimant("a"), &[at(None)]);
        assert_eq!(directory.shown("uid-a", id), None);
    }
}
