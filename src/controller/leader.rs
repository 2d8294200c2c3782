//! Drives [`lease::Election`] against a real Lease, and tells the rest of the process whether it leads.
//!
//! All waiting is on tokio's clock, so the loop runs in virtual time; the wall clock is only written into the Lease.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
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
use crate::platform::leadership::Notes;
pub use crate::platform::leadership::{Fence, Handle, Leadership, NotLeading};
use crate::platform::words;

#[cfg(test)]
mod tests;

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
    notes: Option<Arc<Notes>>,
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
        let handle = Handle::new(leadership, fence.clone());
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
            notes: None,
        };
        (elector, handle)
    }

    /// Keeps these annotations on the Lease while it leads.
    #[must_use]
    pub fn with_notes(mut self, notes: Arc<Notes>) -> Self {
        self.notes = Some(notes);
        self
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
        Moment { mono: self.fence.epoch().elapsed(), wall: self.clock.now() }
    }

    /// Carries one command out. If leadership lapses meanwhile, that is published at that moment, not after the answer.
    async fn carry_out(&mut self, command: Command) -> Event {
        let until = match &command {
            Command::Wait(until) => Some(self.fence.epoch() + *until),
            _ => None,
        };
        let lapse = self.fence.deadline().filter(|lapse| *lapse > Instant::now());
        let object = self.annotated(&command);
        let call = call(&self.api, &self.name, &object, self.election.config().call_timeout(), command);
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

    /// The Lease as last answered, with the annotations that go with the command.
    fn annotated(&self, command: &Command) -> Lease {
        let mut object = self.object.clone();
        let (Some(notes), Command::Create(record) | Command::Replace { record, .. }) = (&self.notes, command)
        else {
            return object;
        };
        let held = record.holder == self.election.config().identity();
        // A claim made while not leading begins a new term: until that is read, the predecessor's legacy stands.
        let term = (!held || self.election.leads(self.now().mono)).then(|| self.election.term());
        notes.write(&mut object.metadata.annotations, held, term);
        object
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
        if let Some(notes) = &self.notes {
            notes.saw(lease.metadata.annotations.as_ref());
        }
        self.object = lease;
        seen
    }

    fn publish(&self) {
        publish(&self.election, &self.fence, &self.sender, &self.metrics);
    }
}

fn publish(election: &Election, fence: &Fence, sender: &watch::Sender<Leadership>, metrics: &Metrics) {
    let leading = election.leads(fence.epoch().elapsed());
    let valid_until = election.valid_until().filter(|_| leading);
    fence.set(valid_until);
    let next = Leadership {
        leading,
        valid_until: valid_until.map(|until| fence.epoch() + until),
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
            match next.holder.as_str() {
                "" => tracing::info!("nobody holds the Lease"),
                own if own == election.config().identity() => {}
                holder => tracing::info!(holder, "another replica holds the Lease"),
            }
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
            Ok(Err(error)) => Err(words::of(&error)),
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
