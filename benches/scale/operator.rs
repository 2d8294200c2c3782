//! The operator, without a ledger.

use std::time::Duration;

use crate::common::Result;
use crate::common::process::{Metrics, Process};

/// Requests and rotations by the operator's own count. Leases and events are left out of both sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Secrets and statuses written.
    pub writes: u64,
    /// GETs of anything but the Lease.
    pub reads: u64,
    /// Lists.
    pub lists: u64,
    /// Credentials that became active.
    pub rotations: u64,
}

/// A running operator.
pub struct Operator(Process);

impl Operator {
    /// Starts it and waits until it is ready.
    pub async fn start(kubeconfig: &str) -> Result<Self> {
        let args = ["controller", "--kubeconfig", kubeconfig, "--leader-elect=false"];
        let args = [&args[..], &["--per-token-metrics=false"]].concat();
        Ok(Self(Process::start("scale-operator", &args).await?))
    }

    /// Waits until this many tokens are healthy.
    pub async fn wait_healthy(&self, tokens: usize) -> Result<()> {
        let healthy = |metrics: &Metrics| metrics.sum("tokenward_tokens", &[r#"health="Healthy""#]);
        self.wait(tokens, healthy).await
    }

    /// Waits until this many reconciles are over.
    pub async fn wait_reconciled(&self, tokens: usize) -> Result<()> {
        self.wait(tokens, |metrics| metrics.sum("tokenward_reconciles_total", &[])).await
    }

    /// Asks some dozens of times on the way, however many tokens there are: a scrape looks at each of them, and is not what
    /// is measured.
    async fn wait(&self, tokens: usize, count: impl Fn(&Metrics) -> f64) -> Result<()> {
        let pause = Duration::from_micros(100 * tokens as u64);
        self.0.wait(pause, |metrics| count(metrics) >= tokens as f64).await
    }

    /// What it did so far.
    pub async fn counts(&self) -> Result<Counts> {
        let metrics = self.0.metrics().await?;
        let sum = |family: &str, labels: &[&str]| metrics.sum(family, labels) as u64;
        Ok(Counts {
            writes: sum("tokenward_secret_writes_total", &[]) + sum("tokenward_status_writes_total", &[]),
            reads: sum("tokenward_api_requests_total", &[r#"verb="get""#]),
            lists: sum("tokenward_api_requests_total", &[r#"verb="list""#]),
            rotations: sum("tokenward_rotations_total", &[]),
        })
    }

    /// Resident memory, in MiB.
    pub fn resident_mib(&self) -> Result<f64> {
        Ok(self.0.resident()? / f64::from(1 << 20))
    }

    /// Kills it.
    pub async fn stop(self) -> Result<()> {
        self.0.stop().await
    }
}
