//! The binary as a process of its own.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::Result;

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(600);

/// A loopback port that was free a moment ago.
pub async fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

/// A running controller or gate; killed when it is dropped.
pub struct Process {
    child: Child,
    port: u16,
    log: String,
    /// From its start until it was ready.
    pub ready_after: Duration,
}

impl Process {
    /// Starts it and waits until it is ready. `name` is that of its log.
    pub async fn start(name: &str, args: &[&str]) -> Result<Self> {
        let port = free_port().await?;
        let log = format!("{}/{name}.log", std::env::temp_dir().display());
        let binary = std::env::var("TOKENWARD_BIN").unwrap_or_else(|_| "target/release/tokenward".into());
        let started = Instant::now();
        let child = Command::new(&binary)
            .args(args)
            .args(["--log-level", "warn", "--admin-listen", &format!("127.0.0.1:{port}")])
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{binary} cannot be started: {error}"))?;
        let mut process = Self { child, port, log, ready_after: Duration::ZERO };
        let ready = async |process: &Self| {
            process.get("/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        };
        while !ready(&process).await {
            if started.elapsed() > PATIENCE || process.child.try_wait()?.is_some() {
                return Err(format!("it did not become ready; see {}", process.log).into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        process.ready_after = started.elapsed();
        Ok(process)
    }

    /// Waits until what it counts has got there, asking every `pause`.
    pub async fn wait(&self, pause: Duration, reached: impl Fn(&Metrics) -> bool) -> Result<()> {
        let started = Instant::now();
        while !reached(&self.metrics().await?) {
            if started.elapsed() > PATIENCE {
                return Err(format!("it did not get there in time; see {}", self.log).into());
            }
            sleep(pause).await;
        }
        Ok(())
    }

    /// What it counts.
    pub async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(self.get("/metrics").await?))
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap_or_default()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes: f64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
        Ok(kilobytes * 1024.0)
    }

    /// Has it end in order, as on SIGTERM, and waits for that.
    pub async fn stop(mut self) -> Result<()> {
        let id =
            self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).ok_or("it has ended")?;
        kill_process(id, Signal::TERM)?;
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
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

/// Metrics as they are scraped.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of a family's samples whose labels hold all of `labels`.
    pub fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let samples = self.0.lines().filter(|line| {
            line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
