//! Random lives. The world checks I1–I5 at every write; here stand the acts, and what must hold between the writes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::world::{Break, World, every, somebody_elses_token};
use crate::api::*;
use crate::domain::status::Problem;

/// Something that happens to the world.
#[derive(Clone, Debug)]
enum Act {
    Reconcile,
    Advance(u64),
    StepBack(u64),
    Restart,
    Crash(usize),
    LoseAnswer(usize),
    RefuseReads(bool),
    RefuseWrites(bool),
    Rename(Edit),
    Rotation(usize),
    Expiry(usize),
    Suspend(bool),
    /// A new value: one that was there before would ask for nothing.
    Request(&'static str),
    DeleteSecret,
    ForeignSecret,
    Alter(u8),
    TouchMetadata,
    WipeStatus,
}

/// An edit that must never cost a credential.
#[derive(Clone, Debug)]
enum Edit {
    Description(u8),
    Scopes(u8),
    Key(usize),
    Label(u8),
    Annotation(u8),
    Template(usize),
    Owner(u8),
    Contact(u8),
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<u8>().prop_map(Edit::Description),
        any::<u8>().prop_map(Edit::Scopes),
        (0..3_usize).prop_map(Edit::Key),
        any::<u8>().prop_map(Edit::Label),
        any::<u8>().prop_map(Edit::Annotation),
        (0..3_usize).prop_map(Edit::Template),
        any::<u8>().prop_map(Edit::Owner),
        any::<u8>().prop_map(Edit::Contact),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    let requests =
        prop_oneof![Just(keys::ROTATE_REQUESTED_AT), Just(keys::COMPROMISED_AT), Just(keys::RETIRE_NOW_AT)];
    prop_oneof![
        8 => Just(Act::Reconcile),
        3 => (1..5_000_u64).prop_map(Act::Advance),
        3 => (1..80_u64).prop_map(Act::Advance),
        1 => (1..90_u64).prop_map(Act::StepBack),
        1 => Just(Act::Restart),
        2 => (1..6_usize).prop_map(Act::Crash),
        1 => (1..6_usize).prop_map(Act::LoseAnswer),
        1 => any::<bool>().prop_map(Act::RefuseReads),
        1 => any::<bool>().prop_map(Act::RefuseWrites),
        3 => edits().prop_map(Act::Rename),
        1 => (0..6_usize).prop_map(Act::Rotation),
        1 => (0..5_usize).prop_map(Act::Expiry),
        1 => any::<bool>().prop_map(Act::Suspend),
        2 => requests.prop_map(Act::Request),
        1 => Just(Act::DeleteSecret),
        1 => Just(Act::ForeignSecret),
        1 => (0..3_u8).prop_map(Act::Alter),
        1 => Just(Act::TouchMetadata),
        1 => Just(Act::WipeStatus),
    ]
}

fn edit(world: &mut World, edit: &Edit) {
    match edit {
        Edit::Description(n) => world.edit(|spec| spec.description = Some(n.to_string())),
        Edit::Scopes(n) => world.edit(|spec| spec.scopes = vec![n.to_string()]),
        Edit::Key(n) => {
            let key = [None, Some("api-key"), Some("password")][*n].map(str::to_owned);
            world.edit_secret_spec(|secret| secret.key = key);
        }
        Edit::Label(n) => {
            world.edit_secret_spec(|secret| secret.labels = [("tier".into(), n.to_string())].into());
        }
        Edit::Annotation(n) => {
            world.edit_secret_spec(|secret| secret.annotations = [(format!("note-{n}"), "x".into())].into());
        }
        Edit::Template(n) => world.edit_secret_spec(|secret| {
            secret.template = match n {
                0 => BTreeMap::new(),
                1 => [("netrc".into(), "login {{ name }} password {{ token }}".into())].into(),
                _ => [("env".into(), "{{ id }} {{ owner }}".into())].into(),
            };
        }),
        Edit::Owner(n) => world.label("team", &format!("team-{n}")),
        Edit::Contact(n) => {
            world.namespace.annotations = Some([("contact".to_owned(), format!("#{n}"))].into());
        }
    }
}

/// The world, and what its history demands of the future.
struct Life {
    world: World,
    /// No gate may ever accept these again.
    dead: BTreeSet<String>,
    /// No gate may accept these from then on.
    deadlines: BTreeMap<String, Timestamp>,
    requests: usize,
}

impl Life {
    fn new() -> Self {
        Self {
            world: World::new(every("10h", "2h")),
            dead: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            requests: 0,
        }
    }

    fn act(&mut self, act: &Act) {
        let world = &mut self.world;
        match act {
            Act::Reconcile => self.reconcile(),
            Act::Advance(minutes) => self.advance(*minutes),
            Act::StepBack(minutes) => world.step_back(&format!("{minutes}m")),
            Act::Restart => world.restart(),
            Act::Crash(at) => world.break_at = Some(Break::Crash(*at)),
            Act::LoseAnswer(at) => world.break_at = Some(Break::LostAnswer(*at)),
            Act::RefuseReads(refuse) => {
                world.refuse_reads =
                    refuse.then(|| Problem::passing(Reason::ApiUnavailable, "no answer".into()));
            }
            Act::RefuseWrites(refuse) => {
                world.refuse_writes =
                    refuse.then(|| Problem::terminal(Reason::SecretForbidden, "RBAC".into()));
            }
            Act::Rename(change) => edit(world, change),
            Act::Rotation(n) => {
                let rotation = [
                    json!({"every": "10h", "overlap": "2h"}),
                    json!({"every": "1m", "overlap": "0s"}),
                    json!({"every": "30m"}),
                    json!({"schedule": "0 3 * * *", "timeZone": "Europe/Berlin"}),
                    json!({"schedule": "not cron"}),
                    json!(null),
                ][*n]
                    .clone();
                world.edit(|spec| spec.rotation = serde_json::from_value(rotation).unwrap());
            }
            Act::Expiry(n) => {
                let at = |hours| self.world.now.checked_add(SignedDuration::from_hours(hours)).unwrap();
                let expiry = match n {
                    0 => None,
                    1 => Some(ExpirySpec { after: Some("100h".into()), at: None }),
                    2 => Some(ExpirySpec { after: None, at: Some(Time(at(-1))) }),
                    3 => Some(ExpirySpec { after: None, at: Some(Time(at(20))) }),
                    _ => Some(ExpirySpec { after: Some("nonsense".into()), at: None }),
                };
                self.world.edit(|spec| spec.expiry = expiry);
            }
            Act::Suspend(suspend) => world.edit(|spec| spec.suspend = *suspend),
            Act::Request(key) => {
                self.requests += 1;
                if *key == keys::COMPROMISED_AT {
                    self.dead.extend(world.minted.iter().map(|(_, digest)| digest.clone()));
                }
                world.annotate(key, &self.requests.to_string());
            }
            Act::DeleteSecret => world.delete_secret(),
            Act::ForeignSecret => drop(world.put_foreign_secret()),
            Act::Alter(how) => {
                let key = world.key();
                world.tamper(|secret| match how {
                    0 => secret.data = None,
                    1 => {
                        secret.data.get_or_insert_default().insert(key, ByteString(b"junk".to_vec()));
                    }
                    _ => {
                        let value = ByteString(somebody_elses_token().expose().as_bytes().to_vec());
                        secret.data.get_or_insert_default().insert(key, value);
                    }
                });
            }
            Act::TouchMetadata => world.tamper(|secret| {
                secret.metadata.labels = Some([("theirs".to_owned(), "x".to_owned())].into());
                secret.metadata.annotations.get_or_insert_default().remove(keys::TOKEN);
            }),
            Act::WipeStatus => {
                world.wipe_status();
                // What the Secret holds is proven to be ours and may come back; nothing else may.
                if let Some(held) = world.held() {
                    self.deadlines.remove(&held);
                }
            }
        }
        self.check();
    }

    /// I8: time alone takes no working token away before its declared end, whoever is or is not running.
    fn advance(&mut self, minutes: u64) {
        let working = self.world.held().filter(|held| {
            self.world.is_true(ConditionType::Delivered)
                && self.world.accepts(held)
                && self.world.active().digest == *held
        });
        let promised = self.world.status().expires_at.map(|at| at.0);
        self.world.advance(&format!("{minutes}m"));
        let over = self.world.expires_at().into_iter().chain(promised).any(|at| at <= self.world.now);
        if let Some(working) = working
            && !over
        {
            assert!(self.world.accepts(&working), "I8: a working token ended by itself");
        }
    }

    fn reconcile(&mut self) {
        self.world.reconcile();
        let status = self.world.status();
        for credential in &status.credentials {
            if let (CredentialState::Retiring, Some(not_after)) = (credential.state, &credential.not_after) {
                let deadline = self.deadlines.entry(credential.digest.clone()).or_insert(not_after.0);
                *deadline = (*deadline).min(not_after.0);
            }
        }
    }

    /// I6: by the gate's clock and its view of the object alone.
    fn check(&self) {
        let world = &self.world;
        let over = self.world.expires_at().is_some_and(|at| at <= world.now);
        for (_, digest) in &world.minted {
            let refused = world.token.spec.suspend
                || over
                || self.dead.contains(digest)
                || self.deadlines.get(digest).is_some_and(|deadline| *deadline <= world.now)
                || world.status().ended.iter().any(|ended| ended.digest == *digest);
            assert!(!(refused && world.accepts(digest)), "I6: {digest} is accepted");
        }
        assert!(!world.accepts(&somebody_elses_token().digest()));
    }

    /// Every obstacle that will pass has passed.
    fn settle(&mut self) {
        self.world.break_at = None;
        self.world.refuse_reads = None;
        self.world.refuse_writes = None;
        self.reconcile();
        self.check();
        self.world.check_delivered();
        self.world.check_quiescent();
        let world = &self.world;
        let (status, spec) = (world.status(), &world.token.spec);
        assert_eq!(status.observed_generation, world.token.metadata.generation);
        let stalled = status.is_true(ConditionType::Stalled);
        assert!(!status.is_true(ConditionType::Reconciling), "settled, but {status:#?}");
        assert!(status.is_true(ConditionType::Ready) || stalled, "neither Ready nor Stalled");
        if status.is_true(ConditionType::Ready) {
            let held = world.held();
            assert!(held.is_some_and(|held| held == world.active().digest && world.accepts(&held)), "I1");
        }
        if !stalled {
            let states: Vec<_> = status.credentials.iter().map(|credential| credential.state).collect();
            assert_eq!(states.iter().filter(|state| **state == CredentialState::Active).count(), 1);
            assert!(!states.contains(&CredentialState::Pending));
            assert!(!spec.suspend);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold(acts in prop::collection::vec(acts(), 1..80)) {
        let mut life = Life::new();
        for act in &acts {
            life.act(act);
        }
        life.settle();
    }

    #[test]
    fn edits_and_restarts_never_cost_a_credential(
        acts in prop::collection::vec((edits(), any::<bool>(), prop::option::of(1..4_usize)), 1..40)
    ) {
        let mut world = World::issued(every("720h", "24h"));
        let (first, next) = (world.active(), world.status().next_rotation_time);
        for (change, restart, crash) in &acts {
            edit(&mut world, change);
            world.advance("1m");
            if *restart {
                world.restart();
            }
            world.break_at = crash.map(Break::Crash);
            world.reconcile();
            world.break_at = None;
            world.reconcile();
            prop_assert_eq!(world.held(), Some(first.digest.clone()));
            prop_assert!(world.is_true(ConditionType::Ready));
        }
        prop_assert_eq!(world.active(), first);
        prop_assert_eq!(world.status().next_rotation_time, next);
        prop_assert_eq!(world.minted.len(), 1);
        world.check_quiescent();
    }
}

/// Something that calls for writes, and whether the token must stay Ready throughout.
const CALLS: [(&str, fn(&mut World), bool); 6] = [
    ("due", |world| world.advance("720h"), true),
    ("requested", |world| world.annotate(keys::ROTATE_REQUESTED_AT, "1"), true),
    ("key", |world| world.edit_secret_spec(|secret| secret.key = Some("other".into())), true),
    ("compromised", |world| world.annotate(keys::COMPROMISED_AT, "1"), false),
    ("lost", |world| world.delete_secret(), false),
    ("altered", |world| world.tamper(|secret| secret.data = None), false),
];

#[test]
fn a_crash_at_any_write_is_repaired_by_looking() {
    for (what, call, stays_ready) in CALLS {
        for (first, second) in (1..=4).flat_map(|first| (0..=4).map(move |second| (first, second))) {
            let mut world = World::issued(every("720h", "24h"));
            call(&mut world);
            for at in [first, second] {
                world.break_at = (at > 0).then_some(Break::Crash(at));
                world.reconcile();
                assert!(!stays_ready || world.is_true(ConditionType::Ready), "{what} {first} {second}");
            }
            world.break_at = None;
            world.reconcile();
            assert_eq!(world.says(ConditionType::Ready), "True Delivered", "{what} {first} {second}");
            assert_eq!(world.held(), Some(world.active().digest), "{what} {first} {second}");
            world.check_quiescent();
        }
    }
}
