//! A sealed set that waits for its receipt.

use std::time::Duration;

use prost::Message as _;

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
}

impl Waiting {
    /// One that was not sent yet.
    pub(super) fn new(set: &Sealed) -> Self {
        Self {
            sequence: set.sequence,
            answers: set.answers(),
            again: None,
            sent: 0,
            encoded: set.encode_to_vec().into_boxed_slice(),
        }
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
