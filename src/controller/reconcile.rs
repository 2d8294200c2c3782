//! One look at one ApiToken: observe → plan → execute, until there is nothing left to do now.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource as _;
use kube::api::ObjectMeta;
use parking_lot::RwLock;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::error::Error;
use super::events::Announcer;
use super::execute::Executor;
use super::index::{NamespaceIndex, Progress, SecretIndex};
use super::kept::Kept;
use super::looks::Next;
use super::memory::{Memory, Verified};
use super::metrics::Metrics;
use crate::api::{ApiToken, ApiTokenStatus, Credential, CredentialState, Reason};
use crate::domain::directory::Directory;
use crate::domain::notice::notices;
use crate::domain::plan::{Observed, ReadSecret, SecretView, Settings, Step, plan};
use crate::domain::ports::{Clock, Entropy, UsageSource};
use crate::domain::status::Problem;
use crate::domain::token::Token;
use crate::domain::usage::Observation;
use crate::domain::{delivery, lifecycle, mutation, news};
use crate::platform::budget::{Purse, Shared};
use crate::platform::vitals::Vitals;

/// More steps than the longest sound sequence takes: read, mint, deliver, confirm, with a conflict on the way.
const MAX_STEPS: usize = 12;
/// A foreign Secret is looked at again after this long: no watch of ours reports its end.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// A watch that lags behind our own write reports it within this, or we look anyway.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Longest pause after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(120);

/// What reconciles share.
pub struct Context {
    /// Calls to the API server.
    pub executor: Executor,
    /// The installation's decisions.
    pub settings: Settings,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where secrets come from.
    pub entropy: Arc<dyn Entropy>,
    /// Secrets as their watch reports them.
    pub secrets: Arc<SecretIndex>,
    /// Namespaces as their watch reports them.
    pub namespaces: Arc<NamespaceIndex>,
    /// What gates reported.
    pub usage: Arc<dyn UsageSource>,
    /// What may be written that nobody waits for.
    pub budget: Shared,
    /// What every ApiToken has published.
    pub world: Arc<RwLock<Directory>>,
    /// What this process remembers.
    pub memory: Arc<Memory>,
    /// Publishes events.
    pub announcer: Announcer,
    /// Counts.
    pub metrics: Metrics,
    /// Signs of life.
    pub vitals: Arc<Vitals>,
    /// Longest time between two looks at a token.
    pub resync: Duration,
}

/// Brings one ApiToken as far as it can be brought now. `paid`: who has paid for one write of what nobody waits for.
pub async fn reconcile(kept: Arc<Kept>, paid: Option<Purse>, context: &Context) -> Result<Next, Error> {
    let mut bill = Bill::new(paid, &context.budget);
    let token: ApiToken = kept.read()?;
    drop(kept);
    if context.memory.is_stale(&token) {
        // The watch will bring our own write back; until then this object is history.
        return Ok(Next::Stale { paid: bill.paid.take(), at_the_latest: CATCH_UP });
    }
    let mut look = Look::new(token, bill, context);
    let result = look.run().await;
    let token = &look.token;
    if let Ok(Ended::Waiting { .. }) = result {
        context.memory.settled(token.uid());
    }
    match result? {
        Ended::Gone => {
            context.memory.forget(token.uid());
            Ok(Next::OnChange)
        }
        Ended::InLine => {
            let now = context.clock.now();
            let look = context.memory.look_in(token.uid()).and_then(|left| now.checked_add(left).ok());
            let due = news::next_deadline(token, now).into_iter().chain(look).min();
            Ok(match until(due, now, context.resync) {
                Next::After(pause) => Next::InLine(Some(pause)),
                _ => Next::InLine(None),
            })
        }
        Ended::Blocked(Reason::SecretConflict) => Ok(Next::After(LOOK_AGAIN)),
        Ended::Blocked(reason) => Err(Error::Blocked(reason)),
        Ended::Waiting { wake, untouched } => {
            if untouched {
                context.memory.tidy(token, context.secrets.get(&secret_key(token)).as_ref());
            }
            let now = context.clock.now();
            let look = context.memory.look_in(token.uid()).and_then(|left| now.checked_add(left).ok());
            Ok(until(wake.into_iter().chain(look).min(), now, context.resync))
        }
    }
}

/// How long to wait after a failed reconcile: doubling from a second to two minutes.
pub fn backoff(token: &Kept, error: &Error, context: &Context) -> Next {
    let failures = context.memory.failed(token.namespace(), token.uid());
    let pause = Duration::from_secs(1 << failures.saturating_sub(1).min(7)).min(MAX_BACKOFF);
    let (namespace, name) = (token.namespace(), token.name());
    match error {
        Error::Conflict(_) => debug!(namespace, name, %error, "reconcile repeats"),
        Error::NotLeading(_) => info!(namespace, name, "reconcile given up: another replica leads"),
        _ => {
            warn!(namespace, name, %error, category = error.category(), failures, ?pause, "reconcile failed")
        }
    }
    Next::After(pause)
}

/// How a look ended.
enum Ended {
    /// Nothing is due before `wake`. `untouched`: nothing had to be written or read either.
    Waiting { wake: Option<Timestamp>, untouched: bool },
    /// There is only news to tell, and nobody has paid for that.
    InLine,
    /// Held up by something that will not be reported.
    Blocked(Reason),
    /// The ApiToken was deleted meanwhile.
    Gone,
}

/// What a look may write, and what it did. A write that was paid for and not needed is given back.
struct Bill<'a> {
    paid: Option<Purse>,
    budget: &'a Shared,
    course: Course,
    writes: i64,
}

/// What a look turned out to be for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    /// That is not known yet.
    Open,
    /// Something that somebody waits for, and whatever there is to tell with it.
    Awaited,
    /// News alone.
    News,
}

impl<'a> Bill<'a> {
    fn new(paid: Option<Purse>, budget: &'a Shared) -> Self {
        Self { paid, budget, course: Course::Open, writes: 0 }
    }

    /// Whether this step may be taken.
    fn admits(&mut self, token: &ApiToken, secret: &SecretView, step: &Step) -> bool {
        if self.course == Course::Open {
            if news::is_news(token, secret, step) {
                if self.paid.is_none() {
                    return false;
                }
                self.course = Course::News;
            } else if !matches!(step, Step::ReadSecret) {
                self.course = Course::Awaited;
            }
        }
        self.writes += i64::from(!matches!(step, Step::ReadSecret));
        true
    }
}

impl Drop for Bill<'_> {
    fn drop(&mut self) {
        if let Some(purse) = self.paid {
            let told = if self.course == Course::News { self.writes } else { 0 };
            self.budget.charge(purse, told - 1, Instant::now());
        }
    }
}

struct Look<'a> {
    context: &'a Context,
    bill: Bill<'a>,
    token: ApiToken,
    secret: SecretView,
    in_hand: Option<Token>,
    refusal: Option<Problem>,
    failed: Option<Error>,
    untouched: bool,
    /// How far the Secret watch had come before the Secret was last read or written.
    seen: Progress,
}

fn secret_key(token: &ApiToken) -> (String, String) {
    (token.namespace().to_owned(), token.secret_name().to_owned())
}

impl<'a> Look<'a> {
    fn new(token: ApiToken, bill: Bill<'a>, context: &'a Context) -> Self {
        let found = context.secrets.get(&secret_key(&token));
        Self {
            context,
            bill,
            secret: context.memory.view(&token, found.as_ref(), context.secrets.progress(token.namespace())),
            in_hand: context.memory.in_hand(token.uid()),
            token,
            refusal: None,
            failed: None,
            untouched: true,
            seen: Progress::default(),
        }
    }

    async fn run(&mut self) -> Result<Ended, Error> {
        // As it is now, to the end of the look. Were it to change between the delivery and the status that notes it, the
        // status would note a content that was never delivered; so it is the next look, already called for, that sees it.
        let namespace = self.context.namespaces.get(self.token.namespace());
        // So is what gates reported.
        let usage = self.context.usage.observe(self.token.uid(), self.context.clock.now());
        for _ in 0..MAX_STEPS {
            let step = self.plan(namespace.as_ref(), &usage);
            match step {
                Step::Wait { wake, blocked } => {
                    self.remember();
                    return match (self.failed.take(), blocked) {
                        (Some(error), _) => Err(error),
                        (None, Some(reason)) => Ok(Ended::Blocked(reason)),
                        (None, None) => Ok(Ended::Waiting { wake, untouched: self.untouched }),
                    };
                }
                step => {
                    if !self.bill.admits(&self.token, &self.secret, &step) {
                        self.remember();
                        return self.failed.take().map_or(Ok(Ended::InLine), Err);
                    }
                    self.untouched = false;
                    if !self.execute(step).await? {
                        return Ok(Ended::Gone);
                    }
                }
            }
        }
        Err(Error::Endless(MAX_STEPS))
    }

    fn plan(&self, namespace: Option<&ObjectMeta>, usage: &Observation) -> Step {
        let observed = Observed {
            token: &self.token,
            namespace,
            secret: &self.secret,
            in_hand: self.in_hand.as_ref(),
            refusal: self.refusal.as_ref(),
            usage,
            world: &self.context.world.read(),
        };
        plan(self.context.clock.now(), &self.context.settings, &observed)
    }

    /// Carries out one step. False: the ApiToken is gone.
    async fn execute(&mut self, step: Step) -> Result<bool, Error> {
        match step {
            Step::Wait { .. } => Ok(true),
            Step::ReadSecret => {
                let seen = self.context.secrets.progress(self.token.namespace());
                match self.context.executor.read_secret(&self.token).await {
                    Ok(Some(secret)) => {
                        let answered = self.context.memory.answer(&self.token, &secret);
                        self.saw(ReadSecret { secret, written: false, answered }, seen);
                    }
                    Ok(None) => self.secret = SecretView::Absent,
                    Err(error) => self.refused(error)?,
                }
                Ok(true)
            }
            Step::Deliver { desired, precondition } => {
                let seen = self.context.secrets.progress(self.token.namespace());
                match self.context.executor.apply_secret(&self.token, &desired, &precondition).await {
                    Ok(secret) => {
                        let credential = desired.credential().to_owned();
                        self.context.memory.answered(&self.token, &credential, &secret);
                        self.saw(ReadSecret { secret, written: true, answered: Some(credential) }, seen);
                    }
                    // Somebody was faster: what is there now decides.
                    Err(Error::Conflict(_)) => self.secret = SecretView::Unread,
                    Err(error) => self.refused(error)?,
                }
                Ok(true)
            }
            Step::Mint { mut status, reason, expiry } => {
                let minted = match self.context.memory.unpublished(&self.token) {
                    Some(unpublished) => unpublished,
                    None => Token::mint(&self.context.settings.prefix, self.context.entropy.as_ref())?,
                };
                let now = self.context.clock.now();
                let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
                lifecycle::publish(&mut status, &minted, reason, expiry, now);
                // Held before it is published: an answer that gets lost does not lose the plaintext.
                self.context.memory.hold(&self.token, minted.clone());
                self.in_hand = Some(minted);
                let _ = self.reserve(&status);
                self.write_status(*status).await
            }
            // Another was faster: what that means is planned anew.
            Step::WriteStatus(status) if !self.reserve(&status) => Ok(true),
            Step::WriteStatus(status) => self.write_status(*status).await,
        }
    }

    fn saw(&mut self, read: ReadSecret, seen: Progress) {
        self.seen = seen;
        self.secret = SecretView::Read(Box::new(read));
    }

    /// Remembers the Secret that was read or written, once the status says that what it holds is the active credential.
    fn remember(&self) {
        let SecretView::Read(read) = &self.secret else { return };
        if delivery::holds_active(&read.secret, &self.token) {
            let verified = Verified {
                uid: read.secret.meta().uid.clone().unwrap_or_default(),
                resource_version: read.secret.meta().resource_version.clone().unwrap_or_default(),
                seen: self.seen,
                unwatched: (!mutation::is_watched(&read.secret)).then(tokio::time::Instant::now),
            };
            self.context.memory.verified(&self.token, verified);
        }
    }

    /// A digest is published by one ApiToken only, also where two are looked at side by side and the watch lags behind both.
    fn reserve(&self, after: &ApiTokenStatus) -> bool {
        let before = self.token.status.as_ref().map_or(&[][..], |status| &status.credentials);
        let is_new = |credential: &&Credential| before.iter().all(|known| known.digest != credential.digest);
        let mut new = after.credentials.iter().filter(is_new);
        new.all(|credential| self.context.world.write().reserve(self.token.uid(), &credential.digest))
    }

    /// Lets the plan say in the status what the user can do something about; passes on the rest.
    fn refused(&mut self, error: Error) -> Result<(), Error> {
        match error.problem(self.context.memory.failures(self.token.uid())) {
            Some(problem) => {
                self.refusal = Some(problem);
                self.failed = Some(error);
                Ok(())
            }
            None => Err(error),
        }
    }

    async fn write_status(&mut self, status: ApiTokenStatus) -> Result<bool, Error> {
        let before = self.token.status.clone().unwrap_or_default();
        let Some(token) = self.context.executor.write_status(&self.token, status).await? else {
            return Ok(false);
        };
        self.context.memory.wrote(&token);
        let after = token.status.clone().unwrap_or_default();
        let active =
            |status: &ApiTokenStatus| status.newest(CredentialState::Active).map(|active| active.id.clone());
        if active(&after).is_some() && active(&after) != active(&before) {
            let reason =
                after.last_rotation_reason.as_deref().and_then(Reason::parse).unwrap_or(Reason::Issued);
            self.context.metrics.rotations.inc([reason.as_str()]);
        }
        for notice in notices(&before, &after) {
            info!(
                namespace = token.namespace(),
                name = token.name(),
                reason = %notice.reason,
                credential = after.newest(CredentialState::Active).map(|active| active.id.as_str()),
                "{}",
                notice.note
            );
            self.context.announcer.announce(token.object_ref(&()), notice);
        }
        self.token = token;
        Ok(true)
    }
}

/// When to look again by ourselves. What is due after the next resync is left to that: a timer for each of ten thousand
/// tokens would be megabytes.
fn until(wake: Option<Timestamp>, now: Timestamp, resync: Duration) -> Next {
    let left = |wake: Timestamp| wake.duration_since(now).max(SignedDuration::ZERO).unsigned_abs();
    match wake.map(left) {
        // Timers tick in milliseconds and may fire early by one: never look before it is due.
        Some(left) if left <= resync => Next::After(left + Duration::from_millis(1)),
        _ => Next::OnChange,
    }
}
