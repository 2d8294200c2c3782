//! A sealed set that waits for its receipt.

use std::time::Duration;

use prost::Message as _;
use smallvec::SmallVec;

use crate::api::report::Sealed;

/// A sealed set as it will be sent. With many tokens in use, most of a gate's memory is sets that wait for the ledger's budget
/// of writes: encoded, one takes a fifth.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its number.
    pub(super) sequence: u64,
    /// Answers in it.
    pub(super) answers: u64,
    /// When it is sent again.
    pub(super) again: Option<Duration>,
    /// How often it was sent.
    pub(super) sent: u32,
    encoded: Box<[u8]>,
    /// Credentials that were accepted, hashed. Two that are taken for one make the ledger hear of a use some seconds later.
    accepted: SmallVec<[u64; 1]>,
}

impl Waiting {
    /// One that was not sent yet.
    pub(super) fn new(set: &Sealed) -> Self {
        let accepted = set.credentials.iter().filter(|used| used.last_used > 0);
        Self {
            sequence: set.sequence,
            answers: set.answers(),
            again: None,
            sent: 0,
            encoded: set.encode_to_vec().into_boxed_slice(),
            accepted: accepted.map(|used| hash(&used.credential)).collect(),
        }
    }

    /// Whether it says that this credential was accepted.
    pub(super) fn tells_of(&self, credential: &str) -> bool {
        self.accepted.contains(&hash(credential))
    }

    /// Its size in a report.
    pub(super) fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// What is sent. There is always one: it was encoded here.
    pub(super) fn set(&self) -> Option<Sealed> {
        Sealed::decode(&*self.encoded).ok()
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
