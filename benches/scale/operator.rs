//! The operator as a process of its own.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::Result;

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(600);

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
pub struct Operator {
    child: Child,
    port: u16,
}

impl Operator {
    /// Starts it and waits until it is ready.
    pub async fn start(kubeconfig: &str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let log = fs::File::create(format!("{}/scale-operator.log", std::env::temp_dir().display()))?;
        let child = Command::new(
            std::env::var("TOKENWARD_BIN").unwrap_or_else(|_| "target/release/tokenward".into()),
        )
        .args(["controller", "--kubeconfig", kubeconfig, "--leader-elect=false", "--per-token-metrics=false"])
        .args(["--log-level", "warn", "--admin-listen", &format!("127.0.0.1:{port}")])
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
        let operator = Self { child, port };
        let started = Instant::now();
        while !operator.get("/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if started.elapsed() > PATIENCE {
                return Err("the operator did not become ready".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(operator)
    }

    /// Waits until this many tokens are healthy.
    pub async fn wait_healthy(&self, tokens: usize) -> Result<()> {
        self.wait(tokens, |metrics| sum(metrics, "tokenward_tokens", &[r#"health="Healthy""#])).await
    }

    /// Waits until this many reconciles are over.
    pub async fn wait_reconciled(&self, tokens: usize) -> Result<()> {
        self.wait(tokens, |metrics| sum(metrics, "tokenward_reconciles_total", &[])).await
    }

    /// Asks some dozens of times on the way, however many tokens there are: a scrape looks at each of them, and is not what
    /// is measured.
    async fn wait(&self, tokens: usize, reached: impl Fn(&str) -> u64) -> Result<()> {
        let pause = Duration::from_micros(100 * tokens as u64);
        let started = Instant::now();
        while reached(&self.get("/metrics").await?) < tokens as u64 {
            if started.elapsed() > PATIENCE {
                return Err("the operator did not get there in time; see scale-operator.log".into());
            }
            sleep(pause).await;
        }
        Ok(())
    }

    /// What it did so far.
    pub async fn counts(&self) -> Result<Counts> {
        let metrics = self.get("/metrics").await?;
        Ok(Counts {
            writes: sum(&metrics, "tokenward_secret_writes_total", &[])
                + sum(&metrics, "tokenward_status_writes_total", &[]),
            reads: sum(&metrics, "tokenward_api_requests_total", &[r#"verb="get""#]),
            lists: sum(&metrics, "tokenward_api_requests_total", &[r#"verb="list""#]),
            rotations: sum(&metrics, "tokenward_rotations_total", &[]),
        })
    }

    /// Resident memory, in MiB.
    pub fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap_or_default()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes: f64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
        Ok(kilobytes / 1024.0)
    }

    /// Kills it: nothing it leaves undone matters here.
    pub async fn stop(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

/// The sum of a family's samples whose labels hold all of `labels`.
fn sum(metrics: &str, family: &str, labels: &[&str]) -> u64 {
    let samples = metrics.lines().filter(|line| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}
