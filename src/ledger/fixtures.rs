//! ApiTokens and reports for the tests of this layer.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::check::{Checked, check};
use crate::api::Outcome;
use crate::api::report::{CallerUse, CredentialUse, OutcomeCount, Report, Sealed};
use crate::domain::directory::{Claimant, Directory, Published};
use crate::domain::lease::Moment;
use crate::domain::token::CredentialId;

/// The first of January 2026, midnight UTC.
pub const BASE: i64 = 1_767_225_600;

/// A moment by seconds since [`BASE`].
pub fn at(seconds: f64) -> Moment {
    let wall =
        Timestamp::from_nanosecond(i128::from(BASE) * 1_000_000_000 + (seconds * 1e9) as i128).unwrap();
    Moment { mono: Duration::from_secs_f64((seconds + 1_000.0).max(0.0)), wall }
}

/// The uid of a token.
pub fn uid(token: usize) -> String {
    format!("uid-{token:04}")
}

/// A token's credential.
pub fn credential(token: usize, number: usize) -> String {
    format!("{token:05}{number:05}")
}

/// So many ApiTokens of two credentials each, created a day before [`BASE`], never used.
pub fn world(tokens: usize) -> Directory {
    let mut world = Directory::default();
    for token in 0..tokens {
        let claimant = Claimant {
            created: BASE - 86_400,
            uid: uid(token),
            namespace: "shop".into(),
            name: format!("token-{token:04}"),
        };
        world.apply(&claimant, &[0, 1].map(|number| published(token, number, None)));
    }
    world
}

/// A token's credential as its status has it.
pub fn published(token: usize, number: usize, shown: Option<i64>) -> Published {
    let id = CredentialId::parse(&credential(token, number)).unwrap();
    Published { id, print: None, current: true, shown }
}

/// The status of a token says that its first credential was used then.
pub fn show(world: &mut Directory, token: usize, second: i64) {
    let claimant = world.token(&uid(token)).unwrap().0.clone();
    world.apply(&claimant, &[published(token, 0, Some(second)), published(token, 1, None)]);
}

/// Accepted requests with one credential, the last one at `second` after [`BASE`].
pub fn used(credential: &str, count: u64, second: f64) -> CredentialUse {
    called(credential, count, second, "10.0.0.1")
}

/// The same, from this address.
pub fn called(credential: &str, count: u64, second: f64, address: &str) -> CredentialUse {
    let last = BASE + second as i64;
    CredentialUse {
        credential: credential.to_owned(),
        outcomes: vec![OutcomeCount { outcome: Outcome::Accepted.index(), count }],
        first_used: last,
        last_used: last,
        callers: vec![CallerUse {
            address: address.to_owned(),
            count,
            first_seen: last,
            last_seen: last,
            ..CallerUse::default()
        }],
        ..CredentialUse::default()
    }
}

/// A sealed set.
pub fn sealed(token: usize, sequence: u64, credentials: Vec<CredentialUse>) -> Sealed {
    Sealed { token: uid(token), sequence, credentials, scopes: Vec::new() }
}

/// A report of a gate that started at [`BASE`].
pub fn report(gate: &str, sequence: u64, sealed: Vec<Sealed>, open: Vec<Sealed>) -> Report {
    let epoch = u64::try_from(BASE).unwrap() * 1000;
    let (gate, observing_since) = (gate.to_owned(), BASE);
    Report { gate, epoch, sequence, observing_since, leaving: false, sealed, open, more: false }
}

/// The same, judged.
pub fn checked(world: &Directory, report: Report, now: Moment) -> Checked {
    check(report, world, now.wall).unwrap()
}
