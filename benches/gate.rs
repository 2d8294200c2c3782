//! What a verdict costs, at 100 to 1,000,000 tokens, for a token that is known and for one that is not; and what counting
//! its use adds, with two threads that answer. The ratios are printed at the end, each of the fastest of many short rounds:
//! whatever else runs on the machine only adds.

// A bench that cannot set its scene has nothing to measure.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "common/machine.rs"]
mod machine;

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokenward::api::Outcome;
use tokenward::domain::ports::{Entropy, EntropyError};
use tokenward::domain::token::{Prefix, Token};
use tokenward::gate::callers::{Addresses, Caller};
use tokenward::gate::demand::Demand;
use tokenward::gate::index::Writer;
use tokenward::gate::metrics::Dialect;
use tokenward::gate::record::Record;
use tokenward::gate::{Gate, Settings};

const SIZES: [usize; 4] = [100, 10_000, 100_000, 1_000_000];
/// Tokens that are presented in turn.
const TRAFFIC: usize = 1 << 14;
const ROUNDS: usize = 101;

/// Steele and others' SplitMix: good enough to scatter, the same in every run.
struct Chance(std::sync::Mutex<u64>);

impl Chance {
    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = *state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.iter_mut().for_each(|byte| *byte = self.next() as u8);
        Ok(())
    }
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn demand() -> Demand<'static> {
    Demand::from_query("audience=orders&scope=orders:read").unwrap()
}

/// A gate that knows `size` tokens, and a sample of them in the order they are presented.
fn scene(size: usize) -> (Gate, Vec<String>) {
    let (chance, prefix) = (Chance(std::sync::Mutex::new(7)), Prefix::new("twd").unwrap());
    let gate =
        Gate::new(Settings { prefix: prefix.clone(), deny_when_stale_for: None, addresses: Addresses::Full });
    let mut writer = Writer::new(gate.index(), None);
    let mut texts = Vec::with_capacity(size);
    writer.begin_list();
    for number in 0..size {
        let token = Token::mint(&prefix, &chance).unwrap();
        let metadata = ObjectMeta {
            name: Some(format!("client-{number}")),
            namespace: Some(format!("team-{}", number % 100)),
            uid: Some(format!("4d6f1c2e-8a3b-4c5d-9e7f-{number:012}")),
            resource_version: Some((number + 1).to_string()),
            creation_timestamp: Some(Time("2026-01-01T00:00:00Z".parse().unwrap())),
            ..ObjectMeta::default()
        };
        let object = json!({
            "spec": {"audiences": ["orders", "billing"], "scopes": ["orders:write", "orders:read"]},
            "status": {
                "owner": {"name": "payments", "source": "ApiToken label team"},
                "credentials": [{"id": token.id(), "digest": token.digest(), "state": "Active",
                                 "issuedAt": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z"}],
            },
        });
        writer.list_item(Record::from_json(&metadata, &object));
        texts.push(token.expose().to_owned());
    }
    writer.end_list();
    gate.open();
    let sample = (0..TRAFFIC).map(|_| texts[chance.next() as usize % size].clone()).collect();
    (gate, sample)
}

fn strangers() -> Vec<String> {
    let (chance, prefix) = (Chance(std::sync::Mutex::new(99)), Prefix::new("twd").unwrap());
    (0..TRAFFIC).map(|_| Token::mint(&prefix, &chance).unwrap().expose().to_owned()).collect()
}

/// Time of one round of all traffic.
fn round(gate: &Gate, traffic: &[String], expected: Outcome) -> Duration {
    let (now, demand) = (now(), demand());
    let begin = Instant::now();
    for text in traffic {
        assert_eq!(gate.judge(Ok(black_box(text)), &demand, now).outcome(), expected);
    }
    begin.elapsed()
}

/// Time until both of two threads have had all traffic answered.
fn two_threads(gate: &Gate, traffic: &[String], record: bool) -> Duration {
    let barrier = Barrier::new(2);
    let work = |address: std::net::IpAddr| {
        let (now, demand) = (now(), demand());
        let caller = Caller {
            address: Some(address),
            principal: "spiffe://cluster.local/ns/shop/sa/web",
            user_agent: "orders-client/1.4.2 (linux; x86_64) rust/1.95",
        };
        barrier.wait();
        let begin = Instant::now();
        for text in traffic {
            let credential = Ok(black_box(text.as_str()));
            let verdict = if record {
                gate.check(Dialect::EnvoyGrpc, credential, &demand, black_box(&caller), now)
            } else {
                gate.judge(credential, &demand, now)
            };
            assert_eq!(verdict.outcome(), Outcome::Accepted);
        }
        begin.elapsed()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| work([10, 0, 0, 2].into()));
        let own = work([10, 0, 0, 1].into());
        own + other.join().unwrap()
    })
}

/// The fastest rounds at one size.
struct Figures {
    hit: Duration,
    miss: Duration,
    /// Of two threads together, without and with recording.
    threads: [Duration; 2],
}

impl Default for Figures {
    fn default() -> Self {
        Self { hit: Duration::MAX, miss: Duration::MAX, threads: [Duration::MAX; 2] }
    }
}

impl Figures {
    fn take(&mut self, gate: &Gate, hits: &[String], misses: &[String]) {
        // The other sizes have just had the caches.
        round(gate, hits, Outcome::Accepted);
        self.hit = self.hit.min(round(gate, hits, Outcome::Accepted));
        self.miss = self.miss.min(round(gate, misses, Outcome::UnknownCredential));
        for (best, record) in self.threads.iter_mut().zip([false, true]) {
            *best = two_threads(gate, hits, record).min(*best);
        }
    }
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` passes nothing of the kind.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("{}", machine::describe());
    let misses = strangers();
    let scenes: Vec<_> = SIZES.iter().map(|size| (*size, scene(*size))).collect();
    let mut figures: Vec<_> = SIZES.iter().map(|_| Figures::default()).collect();
    // In turn, so that all meet the same machine.
    for _ in 0..ROUNDS {
        for ((_, (gate, hits)), figures) in scenes.iter().zip(&mut figures) {
            figures.take(gate, hits, &misses);
        }
    }
    let nanoseconds = |time: Duration, threads: usize| time.as_nanos() as f64 / (threads * TRAFFIC) as f64;
    for (size, figures) in SIZES.iter().zip(&figures) {
        let (hit, miss) = (nanoseconds(figures.hit, 1), nanoseconds(figures.miss, 1));
        println!(
            "verdict at {size:>7} tokens: hit {hit:.0} ns, miss {miss:.0} ns, miss/hit {:.2}",
            miss / hit
        );
    }
    let ratio = figures[SIZES.len() - 1].hit.as_secs_f64() / figures[0].hit.as_secs_f64();
    println!("verdict at 1,000,000 / at 100 tokens: {ratio:.2} (aim: at most 2)");
    for (size, figures) in SIZES.iter().zip(&figures) {
        let [without, with] = figures.threads.map(|time| nanoseconds(time, 2));
        let lost = (1.0 - without / with) * 100.0;
        println!(
            "recording on 2 threads at {size:>7} tokens: {without:.0} ns a verdict without, {with:.0} ns with: {lost:.1} % of \
             the throughput (aim: at most 5 %)"
        );
    }
}
