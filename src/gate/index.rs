//! Every ApiToken by credential id.
//!
//! Readers take no lock and never wait: a table of small sorted shards, each replaced as a whole by the writer. An update
//! copies the shards of its own ids, a few entries each, so a revocation costs the same however
//! many tokens there are.
//!
//! An id is public, and whoever may write Secrets can make up a token with anybody's. So an id may have several *candidates*,
//! one of each ApiToken that names it, and the digest decides which is meant: a candidate more changes nothing for the others,
//! and to find the right one of ten thousand takes a dozen comparisons. Only where two ApiTokens name one digest there is a
//! choice to make, and every gate makes the same: see [`Claim`].

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arc_swap::{ArcSwapAny, Guard};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use triomphe::ThinArc;

use super::record::{Held, Record, Standing};
use crate::domain::token::CredentialId;

/// Bits of a key that choose its shard: 65,536 shards take half a megabyte, and hold some fifteen entries each with a million
/// tokens.
const SHARD_BITS: u32 = 16;
/// How far from where it probably is a key is looked for step by step.
const NEAR: usize = 16;

/// All that gates know, by credential id. See the module.
pub struct Index {
    shards: Box<[ArcSwapAny<Shard>]>,
    bits: u32,
    mix: Mix,
    book: Mutex<Book>,
}

/// Entries in the order of their keys; of one key, first the one of the best [`Claim`], then the others in the order of their
/// digests. One allocation.
type Shard = ThinArc<(), Slot>;

/// What decides between ApiTokens that name the same digest, or share an id: how the credential stands
/// ([`Held::rank`]), then age, then the uid. Nothing of it is chosen by who may only write ApiTokens and Secrets.
type Claim<'a> = (u8, i64, &'a str, &'a str, &'a str);

#[derive(Clone)]
struct Slot {
    key: u64,
    record: Record,
}

/// Spreads ids over the shards, and within each, evenly; without a secret of its own, ids could be chosen to fill one shard.
/// One-to-one, so that equal keys are equal ids.
#[derive(Clone, Copy)]
struct Mix {
    xor: u64,
    odd: u64,
}

impl Mix {
    fn key(self, id: CredentialId) -> u64 {
        let spread = (id.number() ^ self.xor).wrapping_mul(self.odd);
        (spread ^ (spread >> 32)).wrapping_mul(self.odd)
    }
}

/// What the writer knows.
#[derive(Default)]
struct Book {
    tokens: HashSet<Entry, ahash::RandomState>,
    stats: Stats,
    /// Counts lists; 0 is none.
    lists: u64,
}

/// Found by uid.
struct Entry {
    record: Record,
    version: u64,
    /// The last list that held it.
    seen: u64,
}

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        self.record.uid()
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.record.uid().hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.record.uid() == other.record.uid()
    }
}

impl Eq for Entry {}

/// How much is in the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// ApiTokens.
    pub tokens: usize,
    /// Their living credentials.
    pub credentials: usize,
    /// ApiTokens that cannot be understood.
    pub unreadable: usize,
}

/// A credential of the index. Holds on to the version it was found in; drop it before the next await.
pub struct Found {
    shard: Guard<Shard>,
    slot: usize,
    /// Its place among the record's.
    held: usize,
}

/// A search that has begun.
pub(super) struct Look {
    shard: Guard<Shard>,
    id: CredentialId,
    key: u64,
    guess: usize,
    /// The key at the guess.
    seen: Option<u64>,
}

impl Look {
    /// A credential of this id: of several, the one of the best claim.
    pub(super) fn find(self) -> Option<Found> {
        let Self { shard, id, key, guess, seen } = self;
        // Of several with one key the first counts.
        let alone = seen == Some(key) && (guess == 0 || shard.slice[guess - 1].key != key);
        let slot = if alone { guess } else { position(&shard.slice, key, guess).ok()? };
        let held = place(&shard.slice[slot].record, id)?;
        Some(Found { shard, slot, held })
    }
}

impl Found {
    /// The ApiToken.
    pub fn record(&self) -> &Record {
        &self.shard.slice[self.slot].record
    }

    /// The credential.
    pub fn held(&self) -> &Held {
        self.record().at(self.held)
    }

    /// The credential of the same id that has this digest: of several, the one of the best claim. This one, if none has.
    pub(super) fn or_other(mut self, digest: &[u8; 32]) -> Self {
        let (key, id) = (self.shard.slice[self.slot].key, self.held().id());
        let others = &self.shard.slice[self.slot + 1..];
        let alone = others.first().is_none_or(|other| other.key != key);
        if alone || self.held().digest() == digest {
            return self;
        }
        let others = &others[..others.partition_point(|other| other.key == key)];
        // Digests are public, and what is compared with them is a hash: the time tells nothing that is worth knowing.
        let at = others.partition_point(|other| other.digest(id) < digest);
        if let Some(other) = others.get(at).filter(|other| other.digest(id) == digest)
            && let Some(held) = place(&other.record, id)
        {
            (self.slot, self.held) = (self.slot + 1 + at, held);
        }
        self
    }
}

/// Where among a record's credentials the one of this id is.
fn place(record: &Record, id: CredentialId) -> Option<usize> {
    record.held().position(|held| held.id() == id)
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.record().token(), self.held())
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::new(SHARD_BITS)
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats().fmt(f)
    }
}

impl Index {
    fn new(bits: u32) -> Self {
        let random = ahash::RandomState::new();
        let empty = Shard::from_header_and_iter((), std::iter::empty());
        Self {
            shards: (0..1 << bits).map(|_| ArcSwapAny::new(empty.clone())).collect(),
            bits,
            mix: Mix { xor: random.hash_one(1), odd: random.hash_one(2) | 1 },
            book: Mutex::default(),
        }
    }

    fn shard(&self, key: u64) -> &ArcSwapAny<Shard> {
        &self.shards[(key >> (64 - self.bits)) as usize]
    }

    /// Begins to look for an id. What has to come from memory is on its way when this returns.
    pub(super) fn look(&self, id: CredentialId) -> Look {
        let key = self.mix.key(id);
        let shard = self.shard(key).load();
        let guess = guess(&shard.slice, key, self.bits);
        let seen = shard.slice.get(guess).map(|slot| slot.key);
        Look { shard, id, key, guess, seen }
    }

    /// The credential of this id: of several, the one of the best claim.
    pub fn find(&self, id: CredentialId) -> Option<Found> {
        self.look(id).find()
    }

    /// How much there is.
    pub fn stats(&self) -> Stats {
        self.book.lock().stats
    }

    /// Whether there is an ApiToken of this uid.
    pub fn knows(&self, uid: &str) -> bool {
        self.book.lock().tokens.contains(uid)
    }

    /// Calls `visit` with every ApiToken. Holds up the writer, never a reader.
    pub fn for_each(&self, mut visit: impl FnMut(&Record)) {
        self.book.lock().tokens.iter().for_each(|entry| visit(&entry.record));
    }

    /// Puts `new` in the place of `old` everywhere.
    fn replace(&self, stats: &mut Stats, old: Option<&Record>, new: Option<&Record>) {
        let ids = |record: Option<&Record>| -> Vec<CredentialId> {
            record.map(|record| record.held().map(Held::id).collect()).unwrap_or_default()
        };
        let (before, after) = (ids(old), ids(new));
        for id in before.iter().chain(after.iter().filter(|id| !before.contains(id))) {
            let key = self.mix.key(*id);
            let cell = self.shard(key);
            let shard = cell.load_full();
            let mut slots = Vec::with_capacity(shard.slice.len() + 1);
            slots.extend(shard.slice.iter().cloned());
            if let Some(old) = old.filter(|_| before.contains(id)) {
                withdraw(&mut slots, key, *id, old);
            }
            if let Some(new) = new.filter(|_| after.contains(id)) {
                enter(&mut slots, *id, Slot { key, record: new.clone() });
            }
            cell.store(Shard::from_header_and_iter((), slots.into_iter()));
        }
        for (record, sign) in [(old, false), (new, true)] {
            let Some(record) = record else { continue };
            let living = record.held().filter(|held| held.standing() == Standing::Living).count();
            let add = |sum: &mut usize, by: usize| *sum = if sign { *sum + by } else { *sum - by };
            add(&mut stats.tokens, 1);
            add(&mut stats.credentials, living);
            add(&mut stats.unreadable, usize::from(record.is_tombstone()));
        }
    }
}

impl Slot {
    fn digest(&self, id: CredentialId) -> &[u8; 32] {
        self.record.credential(id).map_or(&[0; 32], Held::digest)
    }

    fn claim(&self, id: CredentialId) -> Claim<'_> {
        let record = &self.record;
        let rank = record.credential(id).map_or(u8::MAX, Held::rank);
        (rank, record.created(), record.uid(), record.namespace(), record.name())
    }
}

/// The entries of this key.
fn candidates(slots: &[Slot], key: u64) -> std::ops::Range<usize> {
    let begin = slots.partition_point(|slot| slot.key < key);
    begin..begin + slots[begin..].partition_point(|slot| slot.key == key)
}

/// Takes the entry of `old` out.
fn withdraw(slots: &mut Vec<Slot>, key: u64, id: CredentialId, old: &Record) {
    let range = candidates(slots, key);
    let begin = range.start;
    let Some(at) = range.clone().find(|at| slots[*at].record.is(old)) else { return };
    slots.remove(at);
    if at == begin {
        let best = (begin..range.end - 1).min_by(|a, b| slots[*a].claim(id).cmp(&slots[*b].claim(id)));
        // The others keep their order.
        best.into_iter().for_each(|best| slots[begin..=best].rotate_right(1));
    }
}

/// Puts an entry in.
fn enter(slots: &mut Vec<Slot>, id: CredentialId, mut new: Slot) {
    let range = candidates(slots, new.key);
    if range.is_empty() {
        return slots.insert(range.start, new);
    }
    let first = &mut slots[range.start];
    if new.claim(id) < first.claim(id) {
        std::mem::swap(first, &mut new);
    }
    let others = &slots[range.start + 1..range.end];
    let order = |slot: &Slot| (*slot.digest(id), slot.claim(id)) < (*new.digest(id), new.claim(id));
    let at = range.start + 1 + others.partition_point(order);
    slots.insert(at, new);
}

/// Where a key probably is: keys are spread evenly, so this is mostly right, and one cache line instead of the several that
/// halving would touch.
fn guess(slots: &[Slot], key: u64, bits: u32) -> usize {
    let within = (key << bits) >> 32;
    ((within * slots.len() as u64) >> 32) as usize
}

/// The first entry of this key, else where it would be. It is near the guess, except where one id has a great many candidates.
fn position(slots: &[Slot], key: u64, guess: usize) -> Result<usize, usize> {
    let is_before = |at: usize| slots.get(at).is_some_and(|slot| slot.key < key);
    let mut near = guess;
    for _ in 0..NEAR {
        if near > 0 && !is_before(near - 1) {
            near -= 1;
        } else if is_before(near) {
            near += 1;
        } else {
            break;
        }
    }
    let found = (near == 0 || is_before(near - 1)) && !is_before(near);
    let at = if found { near } else { slots.partition_point(|slot| slot.key < key) };
    if slots.get(at).is_some_and(|slot| slot.key == key) { Ok(at) } else { Err(at) }
}

/// Whether a change was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It says something new.
    Changed,
    /// It says what is known already.
    Same,
    /// It is older than what is known, or of an ApiToken that is gone.
    Late,
}

/// Writes what one watch reports: of one namespace, or of all. A list that is interrupted loses nothing and brings nothing
/// back: until a list has come to its end, nothing is removed for not being in it.
#[derive(Debug)]
pub struct Writer {
    index: Arc<Index>,
    namespace: Option<Box<str>>,
    /// The list that is going on; 0 is none.
    list: u64,
    /// The highest version that this watch has reported since its last list began.
    highest: u64,
}

impl Writer {
    /// For the watch of `namespace`, or of all.
    pub fn new(index: &Arc<Index>, namespace: Option<&str>) -> Self {
        Self { index: Arc::clone(index), namespace: namespace.map(Box::from), list: 0, highest: 0 }
    }

    /// A list begins, perhaps in the place of one that was interrupted.
    pub fn begin_list(&mut self) {
        let mut book = self.index.book.lock();
        book.lists += 1;
        self.list = book.lists;
        // After a restore from a backup, versions begin anew below those that were known.
        self.highest = 0;
    }

    /// An ApiToken of the list. It counts at once and whatever its version: the list is newer than what is known.
    pub fn list_item(&mut self, record: Record) -> Applied {
        self.highest = self.highest.max(record.version());
        self.put(record, true)
    }

    /// The list is complete: what is not in it is gone. Returns how many that were. Without a list, nothing happens.
    pub fn end_list(&mut self) -> usize {
        let list = std::mem::take(&mut self.list);
        if list == 0 {
            return 0;
        }
        let mut book = self.index.book.lock();
        let Book { tokens, stats, .. } = &mut *book;
        let ours = |record: &Record| {
            self.namespace.as_deref().is_none_or(|namespace| record.namespace() == namespace)
        };
        let mut gone = 0;
        for entry in tokens.extract_if(|entry| entry.seen < list && ours(&entry.record)) {
            self.index.replace(stats, Some(&entry.record), None);
            gone += 1;
        }
        gone
    }

    /// An ApiToken was added or changed. One that is older than what is known, or than what was deleted, does not count.
    pub fn apply(&mut self, record: Record) -> Applied {
        let late = record.version() != 0 && record.version() <= self.highest;
        self.highest = self.highest.max(record.version());
        if late && !self.index.book.lock().tokens.contains(record.uid()) {
            return Applied::Late;
        }
        self.put(record, false)
    }

    /// An ApiToken was deleted. A uid never comes back, so this counts whatever its version.
    pub fn delete(&mut self, metadata: &ObjectMeta) -> Applied {
        let version = metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        self.highest = self.highest.max(version.unwrap_or(0));
        let mut book = self.index.book.lock();
        let Book { tokens, stats, .. } = &mut *book;
        match tokens.take(metadata.uid.as_deref().unwrap_or_default()) {
            Some(entry) => {
                self.index.replace(stats, Some(&entry.record), None);
                Applied::Changed
            }
            None => Applied::Same,
        }
    }

    fn put(&self, record: Record, listed: bool) -> Applied {
        let mut book = self.index.book.lock();
        let Book { tokens, stats, .. } = &mut *book;
        let known = tokens.get(record.uid());
        let (known_version, seen) = known.map_or((0, 0), |known| (known.version, known.seen));
        let old = known.map(|known| known.record.clone());
        let version = record.version();
        if !listed && version != 0 && version < known_version {
            return Applied::Late;
        }
        let record = match &old {
            Some(old) => record.with_last_known(old),
            None => record,
        };
        let (record, applied) = match &old {
            Some(old) if old.says_the_same(&record) => (old.clone(), Applied::Same),
            _ => (record, Applied::Changed),
        };
        if applied == Applied::Changed {
            self.index.replace(stats, old.as_ref(), Some(&record));
        }
        let seen = if self.list == 0 { seen } else { self.list };
        tokens.replace(Entry { record, version, seen });
        applied
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
