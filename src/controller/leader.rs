//! Drives [`lease::Election`] against a real Lease, tells the rest of the process whether it leads, and holds the fence
//! that every write passes.
//!
//! All waiting is on tokio's clock, so the loop runs in virtual time; the wall clock is only written into the Lease.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::domain::lease::{Command, Config, Election, Event, Moment, Record, Seen};
use crate::domain::ports::Clock;

#[cfg(test)]
mod tests;

/// What is known about leadership, as last published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Whether this process leads.
    pub leading: bool,
    /// Until when it may act without another renewal; `None` without a limit, or when not leading.
    pub valid_until: Option<Instant>,
    /// Who leads, as far as known; empty if nobody.
    pub holder: String,
    /// Grows each time this process becomes leader. A receiver that was slow sees by it that the leadership it knew
    /// had ended in between.
    pub term: u64,
}

impl Leadership {
    /// The leadership of a process that was told not to elect: unlimited.
    pub fn always() -> Self {
        Self { leading: true, valid_until: None, holder: String::new(), term: 1 }
    }

    fn none() -> Self {
        Self { leading: false, valid_until: None, holder: String::new(), term: 0 }
    }
}

/// This process does not lead (any more): the write must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the leader: nothing is written")]
pub struct NotLeading;

impl NotLeading {
    /// A bounded name for metrics and logs.
    pub fn category(self) -> &'static str {
        "NotLeading"
    }
}

/// Asked right before each write. It compares the deadline with the clock itself, so it holds even if the loop that
/// renews, or the task that learns of a loss, does not get to run.
///
/// A write that has passed may still be on its way when the deadline strikes. That is what the time between the renew
/// deadline and the lease duration is for; bound the call by [`Fence::deadline`] where that time is too short.
#[derive(Debug, Clone)]
pub struct Fence {
    epoch: Instant,
    /// Nanoseconds after `epoch`; 0 while not leading, `u64::MAX` without limit.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// Open without limit, for a process that does not elect.
    pub fn always() -> Self {
        Self { epoch: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn closed(epoch: Instant) -> Self {
        Self { epoch, until: Arc::new(AtomicU64::new(0)) }
    }

    /// Refuses unless this process leads at this moment.
    pub fn check(&self) -> Result<(), NotLeading> {
        match self.until.load(Ordering::Acquire) {
            0 => Err(NotLeading),
            u64::MAX => Ok(()),
            until if self.epoch.elapsed() < Duration::from_nanos(until) => Ok(()),
            _ => Err(NotLeading),
        }
    }

    /// When leadership ends unless it is renewed; `None` without limit, or when not leading.
    pub fn deadline(&self) -> Option<Instant> {
        match self.until.load(Ordering::Acquire) {
            0 | u64::MAX => None,
            until => Some(self.epoch + Duration::from_nanos(until)),
        }
    }

    fn set(&self, until: Option<Duration>) {
        let nanos = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX - 1));
        self.until.store(nanos, Ordering::Release);
    }
}

/// What the rest of the process holds of the election.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Changes of leadership.
    pub leadership: watch::Receiver<Leadership>,
    /// The check before each write.
    pub fence: Fence,
    /// Keeps `changed()` pending instead of failing where nothing is elected.
    _sender: Option<Arc<watch::Sender<Leadership>>>,
}

impl Handle {
    /// For `--leader-elect=false`: always leading.
    pub fn always() -> Self {
        let (sender, leadership) = watch::channel(Leadership::always());
        Self { leadership, fence: Fence::always(), _sender: Some(Arc::new(sender)) }
    }
}

/// The loop that stands for election.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    election: Election,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    sender: watch::Sender<Leadership>,
    fence: Fence,
    /// The Lease as last answered: whatever in it is not ours (labels, annotations, other fields) is written back as is.
    object: Lease,
    failure: Option<String>,
}

impl Elector {
    /// A candidate for the Lease `name`; nothing is sent before [`Elector::run`].
    pub fn new(
        api: Api<Lease>,
        name: impl Into<String>,
        config: Config,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> (Self, Handle) {
        let (sender, leadership) = watch::channel(Leadership::none());
        let fence = Fence::closed(Instant::now());
        let handle = Handle { leadership, fence: fence.clone(), _sender: None };
        let elector = Self {
            api,
            name: name.into(),
            election: Election::new(config),
            clock,
            metrics,
            sender,
            fence,
            object: Lease::default(),
            failure: None,
        };
        (elector, handle)
    }

    /// Stands for election until `release` is cancelled, then gives the Lease back and returns. Cancel it only after the
    /// guarded work has stopped: the next leader may start at once.
    pub async fn run(mut self, release: CancellationToken) {
        let mut event = Event::Tick;
        let mut released = false;
        loop {
            let command = self.election.step(self.now(), event);
            self.publish();
            if command == Command::Done {
                return;
            }
            // A call that is cut off by the release may still have effect; the election reads the Lease again then.
            event = if released {
                self.carry_out(command).await
            } else {
                tokio::select! {
                    biased;
                    () = release.cancelled() => { released = true; Event::Release }
                    event = self.carry_out(command) => event,
                }
            };
        }
    }

    fn now(&self) -> Moment {
        Moment { mono: self.fence.epoch.elapsed(), wall: self.clock.now() }
    }

    /// Carries one command out. If leadership lapses meanwhile, that is published at that moment, not after the answer.
    async fn carry_out(&mut self, command: Command) -> Event {
        let until = match &command {
            Command::Wait(until) => Some(self.fence.epoch + *until),
            _ => None,
        };
        let lapse = self.fence.deadline().filter(|lapse| *lapse > Instant::now());
        let call = call(&self.api, &self.name, &self.object, self.election.config().call_timeout(), command);
        let outcome = {
            let mut work = pin!(async {
                match until {
                    Some(until) => {
                        tokio::time::sleep_until(until).await;
                        Ok(Answer::Waited)
                    }
                    None => call.await,
                }
            });
            match lapse {
                None => work.await,
                Some(lapse) => tokio::select! {
                    biased;
                    outcome = &mut work => outcome,
                    () = tokio::time::sleep_until(lapse) => {
                        publish(&self.election, &self.fence, &self.sender, &self.metrics);
                        work.await
                    }
                },
            }
        };
        self.understand(outcome)
    }

    fn understand(&mut self, outcome: Result<Answer, String>) -> Event {
        let event = match outcome {
            Ok(Answer::Waited) => return Event::Tick,
            Ok(Answer::Conflict) => Event::Conflict,
            Ok(Answer::Missing) => Event::Fetched(None),
            Ok(Answer::Found(lease)) => Event::Fetched(Some(self.keep(*lease))),
            Ok(Answer::Stored(lease)) => Event::Written(self.keep(*lease)),
            Err(message) => {
                // Once per cause: a standby asks every second.
                if self.failure.as_ref() != Some(&message) {
                    tracing::warn!(lease = %self.name, error = %message, "the Lease cannot be read or written");
                    self.failure = Some(message);
                }
                return Event::Failed;
            }
        };
        if self.failure.take().is_some() {
            tracing::info!(lease = %self.name, "the Lease answers again");
        }
        event
    }

    fn keep(&mut self, lease: Lease) -> Seen {
        let spec = lease.spec.clone().unwrap_or_default();
        let seen = Seen {
            version: lease.metadata.resource_version.clone().unwrap_or_default(),
            record: Record {
                holder: spec.holder_identity.unwrap_or_default(),
                duration_seconds: spec.lease_duration_seconds,
                acquired: spec.acquire_time.map(|time| time.0),
                renewed: spec.renew_time.map(|time| time.0),
                transitions: spec.lease_transitions.unwrap_or_default(),
            },
        };
        self.object = lease;
        seen
    }

    fn publish(&self) {
        publish(&self.election, &self.fence, &self.sender, &self.metrics);
    }
}

fn publish(election: &Election, fence: &Fence, sender: &watch::Sender<Leadership>, metrics: &Metrics) {
    let leading = election.leads(fence.epoch.elapsed());
    let valid_until = election.valid_until().filter(|_| leading);
    fence.set(valid_until);
    let next = Leadership {
        leading,
        valid_until: valid_until.map(|until| fence.epoch + until),
        holder: election.holder().to_owned(),
        term: election.term(),
    };
    sender.send_if_modified(|current| {
        if current.leading != next.leading || current.term != next.term {
            metrics.leader.set(i64::from(next.leading));
            if next.leading {
                tracing::info!(term = next.term, "became leader");
            } else if current.leading {
                tracing::warn!(holder = %next.holder, "no longer leader");
            }
        }
        if current.holder != next.holder {
            metrics.leader_transitions.inc();
            tracing::info!(holder = %next.holder, "the Lease has another holder");
        }
        let modified = *current != next;
        *current = next;
        modified
    });
}

enum Answer {
    Waited,
    Found(Box<Lease>),
    Missing,
    Stored(Box<Lease>),
    Conflict,
}

/// One call, bounded in time. An error is a message: what it was matters to people only, the election treats every
/// failure alike.
fn call(
    api: &Api<Lease>,
    name: &str,
    object: &Lease,
    limit: Duration,
    command: Command,
) -> impl Future<Output = Result<Answer, String>> + use<> {
    let (api, name) = (api.clone(), name.to_owned());
    let body = match &command {
        Command::Create(record) => Lease {
            // What the vanished Lease carried is kept, its identity is not.
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: object.metadata.labels.clone(),
                annotations: object.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(spec(None, record)),
        },
        Command::Replace { version, record } => {
            let mut lease = object.clone();
            lease.metadata.resource_version = Some(version.clone());
            lease.metadata.managed_fields = None;
            lease.spec = Some(spec(lease.spec.take(), record));
            lease
        }
        Command::Fetch | Command::Wait(_) | Command::Done => Lease::default(),
    };
    async move {
        let params = PostParams::default();
        let work = async {
            match command {
                Command::Fetch => Ok(match api.get_opt(&name).await? {
                    Some(lease) => Answer::Found(Box::new(lease)),
                    None => Answer::Missing,
                }),
                Command::Create(_) => api.create(&params, &body).await.map(Box::new).map(Answer::Stored),
                // PUT, so that it fails when anybody else wrote; a merge patch would go through.
                Command::Replace { .. } => {
                    api.replace(&name, &params, &body).await.map(Box::new).map(Answer::Stored)
                }
                Command::Wait(_) | Command::Done => Ok(Answer::Waited),
            }
        };
        let replacing = body.metadata.resource_version.is_some();
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(answer)) => Ok(answer),
            // 404 to a replace: somebody deleted the Lease. 404 to a create: there is no such namespace.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 || (replacing && status.code == 404) => {
                Ok(Answer::Conflict)
            }
            Ok(Err(kube::Error::Api(status))) => Err(format!("{} ({})", status.message, status.code)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {}", crate::domain::duration::format(limit))),
        }
    }
}

/// The record on top of what else the Lease's spec holds.
fn spec(base: Option<LeaseSpec>, record: &Record) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(record.holder.clone()),
        lease_duration_seconds: record.duration_seconds,
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..base.unwrap_or_default()
    }
}
