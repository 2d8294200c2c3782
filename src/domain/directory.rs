//! Who holds which credential id. Ids are random, so two ApiTokens never share one by chance: a clash is a restored
//! backup or a forged status. The older ApiToken wins, on every gate alike, and both are told.

use std::collections::HashMap;
use std::sync::Arc;

use super::token::CredentialId;

/// An ApiToken as it competes for an id. Ordered by age: the smaller one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// `metadata.creationTimestamp`, Unix seconds.
    pub created: i64,
    /// `metadata.uid`, which decides between two of the same second.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// An id that two ApiTokens claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The id.
    pub id: CredentialId,
    /// `namespace/name` of the other.
    pub other: String,
    /// Whether the one that was asked about is the one that gates accept.
    pub wins: bool,
}

/// An ApiToken and the ids that its status names.
type Holding = (Arc<Claimant>, Box<[CredentialId]>);

/// Every ApiToken with the ids that its status names, living and ended. Some 550 bytes each with three ids: names are held once, and a claim
/// is a pointer.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    tokens: HashMap<Box<str>, Holding>,
    claims: HashMap<CredentialId, Claims>,
    /// When each id was last used, as far as a status says so; Unix seconds.
    shown: HashMap<CredentialId, i64>,
}

/// Who claims an id. Almost always one.
#[derive(Clone, Debug)]
enum Claims {
    One(Arc<Claimant>),
    /// In order: the first one holds it.
    Many(Vec<Arc<Claimant>>),
}

impl Claims {
    fn as_slice(&self) -> &[Arc<Claimant>] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn insert(&mut self, claimant: &Arc<Claimant>) {
        let mut all = self.as_slice().to_vec();
        if let Err(at) = all.binary_search(claimant) {
            all.insert(at, claimant.clone());
            *self = Self::Many(all);
        }
    }

    /// The claims without this one; `None` if none is left.
    fn without(&self, claimant: &Claimant) -> Option<Self> {
        let mut left: Vec<_> =
            self.as_slice().iter().filter(|other| other.as_ref() != claimant).cloned().collect();
        match left.len() {
            0 => None,
            1 => left.pop().map(Self::One),
            _ => Some(Self::Many(left)),
        }
    }
}

impl Directory {
    /// An ApiToken is there, or changed. Returns the ids whose holder may be another now, its own included.
    pub fn apply(&mut self, claimant: &Claimant, ids: &[CredentialId]) -> Vec<CredentialId> {
        let mut touched = self.take(&claimant.uid);
        let claimant = Arc::new(claimant.clone());
        for id in ids {
            self.claims
                .entry(*id)
                .and_modify(|claims| claims.insert(&claimant))
                .or_insert_with(|| Claims::One(claimant.clone()));
            if !touched.contains(id) {
                touched.push(*id);
            }
        }
        self.tokens.insert(claimant.uid.as_str().into(), (claimant, ids.into()));
        self.tidy(&touched);
        touched
    }

    /// An ApiToken is gone. Returns the ids that it held.
    pub fn remove(&mut self, uid: &str) -> Vec<CredentialId> {
        let ids = self.take(uid);
        self.tidy(&ids);
        ids
    }

    fn take(&mut self, uid: &str) -> Vec<CredentialId> {
        let Some((claimant, ids)) = self.tokens.remove(uid) else { return Vec::new() };
        for id in &ids {
            match self.claims.get(id).map(|claims| claims.without(&claimant)) {
                Some(Some(left)) => drop(self.claims.insert(*id, left)),
                Some(None) => drop(self.claims.remove(id)),
                None => {}
            }
        }
        ids.into_vec()
    }

    fn tidy(&mut self, ids: &[CredentialId]) {
        for id in ids.iter().filter(|id| !self.claims.contains_key(id)) {
            self.shown.remove(id);
        }
    }

    /// A status says that this id was used then.
    pub fn show(&mut self, id: CredentialId, second: i64) {
        if self.claims.contains_key(&id) {
            self.shown.insert(id, second);
        }
    }

    /// When this id was last used, as far as a status says so: Unix seconds.
    pub fn shown(&self, id: CredentialId) -> Option<i64> {
        self.shown.get(&id).copied()
    }

    /// The ApiToken that this id counts for.
    pub fn holder(&self, id: CredentialId) -> Option<&Claimant> {
        self.claims.get(&id)?.as_slice().first().map(AsRef::as_ref)
    }

    /// The ApiToken of this uid and its ids.
    pub fn token(&self, uid: &str) -> Option<(&Claimant, &[CredentialId])> {
        self.tokens.get(uid).map(|(claimant, ids)| (claimant.as_ref(), ids.as_ref()))
    }

    /// The ids that this ApiToken shares with others.
    pub fn clashes(&self, uid: &str) -> Vec<Clash> {
        let Some((claimant, ids)) = self.tokens.get(uid) else { return Vec::new() };
        let clash = |id: &CredentialId| {
            let claims = self.claims.get(id)?.as_slice();
            let wins = claims.first() == Some(claimant);
            let other = claims.iter().find(|other| *other != claimant)?;
            Some(Clash { id: *id, other: format!("{}/{}", other.namespace, other.name), wins })
        };
        ids.iter().filter_map(clash).collect()
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

    fn claimant(created: i64, name: &str) -> Claimant {
        Claimant { created, uid: format!("uid-{name}"), namespace: "shop".into(), name: name.into() }
    }

    fn id(text: &str) -> CredentialId {
        CredentialId::parse(text).unwrap()
    }

    #[test]
    fn the_older_one_wins_whatever_the_order() {
        let (old, new) = (claimant(1, "old"), claimant(2, "new"));
        let shared = id("0123456789");
        for order in [[&old, &new], [&new, &old]] {
            let mut directory = Directory::default();
            order.iter().for_each(|claimant| drop(directory.apply(claimant, &[shared])));
            assert_eq!(directory.holder(shared), Some(&old));
            assert_eq!(
                directory.clashes("uid-old")[0],
                Clash { id: shared, other: "shop/new".into(), wins: true }
            );
            assert_eq!(
                directory.clashes("uid-new")[0],
                Clash { id: shared, other: "shop/old".into(), wins: false }
            );
            assert_eq!(directory.remove("uid-old"), [shared]);
            assert_eq!(directory.holder(shared), Some(&new));
            assert!(directory.clashes("uid-new").is_empty());
        }
    }

    #[test]
    fn ids_that_are_given_up_are_nobodys() {
        let mut directory = Directory::default();
        let one = claimant(1, "one");
        directory.apply(&one, &[id("aaaaaaaaaa"), id("bbbbbbbbbb")]);
        let mut touched = directory.apply(&one, &[id("cccccccccc"), id("bbbbbbbbbb")]);
        touched.sort();
        assert_eq!(touched, [id("aaaaaaaaaa"), id("bbbbbbbbbb"), id("cccccccccc")]);
        assert_eq!(directory.holder(id("aaaaaaaaaa")), None);
        assert_eq!(directory.len(), 1);
    }
    #[test]
    fn three_that_share_an_id_give_it_up_one_by_one() {
        let shared = id("0123456789");
        let mut directory = Directory::default();
        for (created, name) in [(2, "b"), (3, "c"), (1, "a")] {
            directory.apply(&claimant(created, name), &[shared]);
        }
        for name in ["a", "b", "c"] {
            assert_eq!(directory.holder(shared).map(|holder| holder.name.as_str()), Some(name));
            directory.remove(&format!("uid-{name}"));
        }
        assert!(directory.holder(shared).is_none() && directory.is_empty());
    }

    #[test]
    fn what_is_shown_goes_with_the_last_claim() {
        let shared = id("0123456789");
        let mut directory = Directory::default();
        directory.show(shared, 7);
        assert_eq!(directory.shown(shared), None, "nobody's");
        directory.apply(&claimant(1, "a"), &[shared]);
        directory.show(shared, 7);
        directory.apply(&claimant(1, "a"), &[shared]);
        assert_eq!(directory.shown(shared), Some(7), "an update forgets nothing");
        directory.apply(&claimant(1, "a"), &[]);
        assert_eq!(directory.shown(shared), None);
    }
}
