//! Watches every commit of the server and says which of them breaks an invariant.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::Value;

use super::book::{Book, parse};
use super::replica::PREFIX;
use crate::api::{ApiToken, ConditionType};
use crate::testkit::apiserver::{ApiServer, Commit, RequestInfo};

/// Reconciles of one token that an hour may take in which nothing happens. The most are one in 15 seconds, of a token whose
/// place a foreign Secret takes; whatever feeds itself makes thousands.
pub const LOOKS_AN_HOUR: u64 = 300;
/// Statuses that tell only news, written within [`NEWS_WINDOW`]: ten a second, twenty saved up, and those of a process
/// that ended and of its successor.
const NEWS_AT_MOST: usize = 160;
const NEWS_WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// Most complaints that are kept: the first is the one to read.
const MAX_COMPLAINTS: usize = 20;

/// The oracles of one world. Clones are the same oracles.
#[derive(Clone, Default)]
pub struct Oracle(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    books: BTreeMap<String, Book>,
    /// Secrets by key, whosever they are.
    secrets: BTreeMap<String, Arc<Value>>,
    holder: Option<String>,
    check_leader: bool,
    skew: SignedDuration,
    complaints: Vec<String>,
    controller_writes: u64,
    /// When statuses were written that only told news.
    news: VecDeque<Timestamp>,
    /// Uids of ApiTokens that are gone: a late write may still be on its way for them.
    former: BTreeSet<String>,
}

impl Oracle {
    /// Starts watching.
    #[must_use]
    pub fn watch(server: &ApiServer) -> Self {
        let oracle = Self::default();
        let state = oracle.0.clone();
        server.on_commit(move |commit| state.lock().saw(commit));
        oracle
    }

    /// Judges a request as it reaches the server.
    pub(super) fn asked(&self, request: &RequestInfo) {
        self.0.lock().asked(request);
    }

    /// From now on, only the holder of the Lease may write: for worlds with an election, whose network delivers in time.
    pub fn expect_one_leader(&self) {
        self.0.lock().check_leader = true;
    }

    /// Clocks of controllers may be off by so much from now on, and have just been set.
    pub fn clocks_step(&self, by: SignedDuration) {
        let mut state = self.0.lock();
        state.skew = state.skew.max(by.abs());
        let skew = state.skew;
        for book in state.books.values_mut() {
            // A deadline that was over may lie ahead again.
            book.cause();
            book.skew = skew;
        }
    }

    /// What was broken, if anything.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.0.lock().complaints.clone()
    }

    /// Changes that controllers made to ApiTokens and Secrets so far.
    #[must_use]
    pub fn controller_writes(&self) -> u64 {
        self.0.lock().controller_writes
    }

    /// A quiet world rests: `looks` reconciles at `tokens` tokens within `time`, in which nobody did anything.
    pub fn rests(&self, looks: u64, tokens: usize, time: std::time::Duration) {
        let hours = time.as_secs().div_ceil(3600);
        let most = LOOKS_AN_HOUR * hours * u64::try_from(tokens).unwrap_or(u64::MAX).max(1);
        if looks > most {
            self.0.lock().complain(format!(
                "{looks} reconciles of {tokens} tokens in {time:?} of quiet, {most} at most"
            ));
        }
    }

    /// Whether gates accept what the Secret of this ApiToken holds.
    #[must_use]
    pub fn works(&self, key: &str, now: Timestamp) -> bool {
        self.0.lock().books.get(key).is_some_and(|book| book.works(now))
    }
}

impl State {
    fn saw(&mut self, commit: &Commit) {
        let controller = commit.client.starts_with(PREFIX);
        let verdict = match commit.resource.plural.as_str() {
            "apitokens" => self.token(commit, controller),
            "secrets" => self.secret(commit, controller),
            "leases" => {
                let holder = commit.after.as_ref().and_then(|lease| lease["spec"]["holderIdentity"].as_str());
                self.holder = holder.filter(|holder| !holder.is_empty()).map(str::to_owned);
                Ok(())
            }
            "tokenusages" => Ok(()),
            other if controller && other != "events" => Err(format!("a controller wrote to {other}")),
            _ => Ok(()),
        };
        if let Err(complaint) = verdict {
            let what = format!("{} of {} {}", commit.client, commit.resource.plural, commit.key);
            self.complain(format!("{} by {what}: {complaint}", commit.at));
        }
    }

    /// No replica writes, or tries to, while another holds the Lease.
    fn asked(&mut self, info: &RequestInfo) {
        let guarded = ["apitokens", "secrets"].contains(&info.resource.as_str()) && info.verb.is_write();
        if !self.check_leader || !guarded || !info.client.starts_with(PREFIX) {
            return;
        }
        let pod = info.client.trim_start_matches(PREFIX).split('.').next();
        if pod != self.holder.as_deref() {
            let holder = &self.holder;
            self.complain(format!("{} wrote while {holder:?} held the Lease", info.client));
        }
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(what);
        }
    }

    fn token(&mut self, commit: &Commit, controller: bool) -> Result<(), String> {
        let key = commit.key.as_ref();
        let Some(after) = &commit.after else {
            let gone = self.books.remove(key);
            self.former.extend(gone.map(|book| book.token.uid().to_owned()));
            return if controller { Err("a controller deleted an ApiToken".to_owned()) } else { Ok(()) };
        };
        let token: ApiToken = parse(after)?;
        let fresh = self.books.get(key).is_none_or(|book| book.token.metadata.uid != token.metadata.uid);
        if fresh {
            let name = format!("{}/{}", token.namespace(), token.secret_name());
            let secret = self.secrets.get(&name).map(|secret| parse(secret)).transpose()?;
            self.books.insert(key.to_owned(), Book::new(token, secret, self.skew));
            return if controller { Err("a controller created an ApiToken".to_owned()) } else { Ok(()) };
        }
        if controller {
            self.is_nobody_elses(key, &token)?;
        }
        let Some(book) = self.books.get_mut(key) else { return Ok(()) };
        if controller {
            self.controller_writes += 1;
            let news = tells_only_news(&book.token, &token);
            book.reported(token, &commit.client, commit.at)?;
            if news { self.paced(commit.at) } else { Ok(()) }
        } else {
            book.edited(token, commit.at);
            book.still_works(commit.at)
        }
    }

    /// What nobody waits for keeps to its budget, whatever causes it.
    fn paced(&mut self, at: Timestamp) -> Result<(), String> {
        self.news.push_back(at);
        while self.news.front().is_some_and(|first| at.duration_since(*first) > NEWS_WINDOW) {
            self.news.pop_front();
        }
        match self.news.len() {
            count if count > NEWS_AT_MOST => {
                Err(format!("{count} statuses told only news within {NEWS_WINDOW:#}"))
            }
            _ => Ok(()),
        }
    }

    /// I9: what one ApiToken has published, living or ended, no controller publishes for another.
    fn is_nobody_elses(&self, key: &str, after: &ApiToken) -> Result<(), String> {
        let known: BTreeSet<_> = self.books.get(key).into_iter().flat_map(Book::digests).collect();
        let living = after.status.iter().flat_map(|status| &status.credentials);
        let new: BTreeSet<_> = living.map(|c| c.digest.clone()).filter(|d| !known.contains(d)).collect();
        let others = self.books.iter().filter(|(other, _)| *other != key);
        match others
            .flat_map(|(other, book)| book.digests().map(move |d| (other, d)))
            .find(|(_, d)| new.contains(d))
        {
            Some((other, digest)) => Err(format!("I9: {digest} is {other}'s")),
            None => Ok(()),
        }
    }

    fn is_for_a_former(&self, secret: &Value) -> bool {
        let owner = secret["metadata"]["ownerReferences"][0]["uid"].as_str();
        owner.is_some_and(|owner| self.former.contains(owner))
    }

    fn secret(&mut self, commit: &Commit, controller: bool) -> Result<(), String> {
        let key = commit.key.to_string();
        match &commit.after {
            Some(after) => drop(self.secrets.insert(key.clone(), after.clone())),
            None => drop(self.secrets.remove(&key)),
        }
        let late = controller && commit.after.as_ref().is_some_and(|after| self.is_for_a_former(after));
        let controller = controller && !late;
        let mut of = self
            .books
            .values_mut()
            .filter(|book| format!("{}/{}", book.token.namespace(), book.token.secret_name()) == key);
        let Some(book) = of.next() else {
            return if controller {
                Err("a controller wrote a Secret that no ApiToken names".into())
            } else {
                Ok(())
            };
        };
        match (&commit.after, controller) {
            (None, true) => Err("a controller deleted a Secret".to_owned()),
            (Some(after), true) => {
                self.controller_writes += 1;
                book.delivered(parse(after)?, commit.at)
            }
            (after, false) => {
                book.tampered(after.as_ref().map(|after| parse(after)).transpose()?);
                book.still_works(commit.at)
            }
        }
    }
}

/// Whether the status only says in other words how the token fares: nobody edited it or asked for something, nothing became of a
/// credential, and it is as Ready as before.
fn tells_only_news(before: &ApiToken, after: &ApiToken) -> bool {
    let rest = |token: &ApiToken| {
        let mut status = token.status.clone().unwrap_or_default();
        let ready = status.is_true(ConditionType::Ready);
        status.credentials.iter_mut().for_each(|credential| credential.last_used_at = None);
        let said = (status.observed_generation, status.last_handled, status.credentials, status.ended.len());
        (said, status.secret_name, status.expires_at, ready)
    };
    rest(before) == rest(after)
}
