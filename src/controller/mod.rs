//! The controller: observe → plan → execute for every ApiToken, in the replica that leads.

pub mod error;
pub mod events;
pub mod execute;
mod glimpse;
pub mod index;
pub mod kept;
pub mod leader;
pub mod looks;
pub mod memory;
pub mod metrics;
mod queue;
pub mod reconcile;
mod rows;
pub mod watches;
mod world;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::execute::Executor;
use self::index::{NamespaceIndex, SecretIndex};
use self::leader::Handle;
use self::memory::Memory;
use self::metrics::Metrics;
use self::metrics::tokens::TokenSource;
use self::reconcile::Context;
use self::watches::{Scope, Shared};
use crate::domain::directory::Directory;
use crate::domain::plan::Settings;
use crate::domain::ports::{Clock, Entropy, News, UsageSource};
use crate::domain::usage::NoLedger;
use crate::platform::budget;
use crate::platform::readiness::Readiness;
use crate::platform::vitals::Vitals;

/// What the controller is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the installation decides for every token.
    pub settings: Settings,
    /// The namespaces to serve; empty for all.
    pub namespaces: Vec<String>,
    /// Label keys of ApiTokens whose values stand in `tokenward_token_info`.
    pub metric_labels: Vec<String>,
    /// Reconciles at once.
    pub concurrency: u16,
    /// Longest time for one call to the API server.
    pub request_timeout: Duration,
    /// Longest time between two looks at a token.
    pub resync: Duration,
    /// How long reconciles under way may take to end on shutdown.
    pub shutdown_grace: Duration,
    /// Names this process in events.
    pub identity: String,
}

/// Time and randomness.
pub struct Sources {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where secrets come from.
    pub entropy: Arc<dyn Entropy>,
}

/// What the ledger has to say to the controller.
pub struct Usage {
    /// What is known of a token's use, asked at every look.
    pub source: Arc<dyn UsageSource>,
    /// ApiTokens of which something new is known.
    pub news: mpsc::Receiver<News>,
    /// The budget of writes that nobody waits for.
    pub budget: budget::Shared,
    /// The ApiTokens and their credential ids, kept up to date from the watch for the ledger to look at.
    pub world: Arc<RwLock<Directory>>,
}

impl Usage {
    /// No ledger listens.
    pub fn none(budget: budget::Shared) -> Self {
        Self { source: Arc::new(NoLedger), news: mpsc::channel(1).1, budget, world: Arc::default() }
    }
}

/// A controller, ready to run.
pub struct Controller {
    options: Options,
    context: Arc<Context>,
    shared: Shared,
    scopes: Vec<Scope>,
    publisher: events::Publisher,
    leader: Handle,
    clock: Arc<dyn Clock>,
    news: mpsc::Receiver<News>,
}

impl Controller {
    /// Puts a controller together; nothing is sent before [`Controller::run`]. Readiness is told through `readiness`,
    /// which waits for [`watches::awaited`].
    pub fn new(
        options: Options,
        client: Client,
        Sources { clock, entropy }: Sources,
        metrics: Metrics,
        leader: Handle,
        readiness: watch::Sender<Readiness>,
        usage: Usage,
    ) -> Self {
        let secrets = Arc::new(SecretIndex::new(&options.namespaces));
        let namespaces = Arc::new(NamespaceIndex::new(&options.settings.ownership));
        let memory = Arc::new(Memory::default());
        let (announcer, publisher) = events::channel(client.clone(), &options.identity, metrics.clone());
        let context = Arc::new(Context {
            executor: Executor::new(
                client.clone(),
                leader.fence.clone(),
                options.request_timeout,
                metrics.clone(),
            ),
            settings: options.settings.clone(),
            clock: clock.clone(),
            entropy,
            secrets: secrets.clone(),
            namespaces: namespaces.clone(),
            usage: usage.source,
            budget: usage.budget.clone(),
            world: usage.world.clone(),
            memory: memory.clone(),
            announcer,
            metrics: metrics.clone(),
            vitals: Arc::default(),
            resync: options.resync,
        });
        let scopes = match options.namespaces.as_slice() {
            [] => vec![Scope::new(None, usage.budget)],
            names => names.iter().map(|name| Scope::new(Some(name.clone()), usage.budget.clone())).collect(),
        };
        let ownership = Arc::new(options.settings.ownership.clone());
        let shared =
            Shared { client, secrets, namespaces, world: usage.world, memory, ownership, metrics, readiness };
        Self { options, context, shared, scopes, publisher, leader, clock, news: usage.news }
    }

    /// Its signs of life, for whoever watches it.
    pub fn vitals(&self) -> Arc<Vitals> {
        self.context.vitals.clone()
    }

    /// The ApiTokens as the metrics show them.
    pub fn token_rows(&self) -> Arc<dyn TokenSource> {
        Arc::new(rows::Rows::new(self.scopes.iter().map(Scope::store).collect(), &self.options.metric_labels))
    }

    /// Runs until `shutdown`, and then until the reconciles under way have ended or the grace is over.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut background = JoinSet::new();
        for scope in &mut self.scopes {
            scope.spawn(&mut background, &self.shared);
            scope.spawn_clock_watch(&mut background, self.clock.clone());
            scope.spawn_resync(&mut background, self.options.resync);
        }
        background.spawn(self.publisher.run());
        let listeners = self.scopes.iter().map(Scope::listener).collect();
        background.spawn(watches::pass_on(self.news, listeners));
        let mut leadership = self.leader.leadership.clone();
        loop {
            let term = async { leadership.wait_for(|now| now.leading).await.map(|now| now.term).ok() };
            let Some(Some(term)) = shutdown.run_until_cancelled(term).await else { break };
            info!(term, "leading: reconciling");
            let over = shutdown.child_token();
            let concurrency = usize::from(self.options.concurrency);
            // Each namespace as soon as it is known: one that is gone, or forbidden, does not hold up the others.
            let looks = futures::future::join_all(self.scopes.iter().map(async |scope| {
                if over.run_until_cancelled(scope.synced()).await.is_some() {
                    scope.looks.run(&self.context, concurrency, &over).await;
                }
            }));
            let mut leadership = leadership.clone();
            tokio::select! {
                // The fence has closed already; dropping what is under way only saves the attempt.
                _ = leadership.wait_for(|now| !now.leading || now.term != term) => info!(term, "no longer leading"),
                () = finish(looks, &shutdown, self.options.shutdown_grace) => {}
            }
            over.cancel();
            if shutdown.is_cancelled() {
                break;
            }
        }
        background.abort_all();
        while background.join_next().await.is_some() {}
    }
}

/// Awaits `work`, but for no longer than `grace` once `shutdown` is cancelled.
async fn finish<T>(work: impl Future<Output = T>, shutdown: &CancellationToken, grace: Duration) {
    let out_of_time = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        _ = work => {}
        () = out_of_time => warn!(?grace, "reconciles still under way are given up"),
    }
}
