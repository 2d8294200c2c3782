//! What is measured: a controller with a ledger, many issued tokens, a gate that reports.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};
use tokenward::api::ApiToken;

use super::common::process::{Metrics, Process, free_port};
use super::common::{Result, cluster};
use super::{Progress, Settings};

/// Tokens that are in use from the beginning.
pub const BUSY: usize = 32;
const ACCOUNT: &str = "gate";
const AUDIENCE: &str = "tokenward-ledger";

/// Everything that runs.
pub struct Town {
    pub client: Client,
    pub namespace: String,
    /// The tokens themselves, by number; `t-0` is the first.
    pub tokens: Vec<String>,
    kubeconfig: String,
    ledger_token: PathBuf,
    controller: Option<Process>,
    gate: Option<Process>,
    /// Where the gate answers.
    pub http: SocketAddr,
    fresh: usize,
}

impl Town {
    /// Starts controller and gate, declares the tokens and waits until each is issued.
    pub async fn build(
        client: Client,
        kubeconfig: &str,
        settings: &Settings,
        progress: &Progress,
    ) -> Result<Self> {
        let namespace = cluster::fresh_namespace(&client).await?;
        let ledger_token = ledger_token(&client, &namespace).await?;
        let mut town = Self {
            client,
            namespace,
            tokens: Vec::new(),
            kubeconfig: kubeconfig.to_owned(),
            ledger_token,
            controller: None,
            gate: None,
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            fresh: BUSY,
        };
        town.start_controller(10).await?;
        town.start_gate().await?;
        // From now on gates watch: what silence means does not change any more, and no token needs a second look for that.
        let watched = "tokenward_ledger_coverage_since_timestamp_seconds";
        town.controller()?.wait(Duration::from_millis(50), |metrics| metrics.sum(watched, &[]) > 0.0).await?;

        progress.step(&format!("issuing {} tokens", settings.tokens));
        cluster::create_tokens(&town.client, &town.namespace, settings.tokens, 16).await?;
        let issued =
            |metrics: &Metrics| metrics.sum("tokenward_rotations_total", &[]) >= settings.tokens as f64;
        town.controller()?.wait(Duration::from_millis(500), issued).await?;
        town.tokens = plaintexts(&town.client, &town.namespace, settings.tokens).await?;
        let counted = town.controller()?.metrics().await?;
        let each = |family| counted.sum(family, &[]) / settings.tokens as f64;
        progress.step(&format!(
            "issued: {:.2} writes of Secrets and {:.2} of statuses for each",
            each("tokenward_secret_writes_total"),
            each("tokenward_status_writes_total"),
        ));
        // The feed may be a moment behind.
        let fed =
            |metrics: &Metrics| metrics.sum("tokenward_gate_credentials", &[]) >= settings.tokens as f64;
        town.gate()?.wait(Duration::from_millis(50), fed).await?;
        Ok(town)
    }

    /// Starts the controller anew, with this budget of writes a second.
    pub async fn start_controller(&mut self, writes_per_second: u32) -> Result<()> {
        if let Some(before) = self.controller.take() {
            before.stop().await?;
        }
        let listen = format!("127.0.0.1:{}", free_port().await?);
        let gates = format!("{}/{ACCOUNT}", self.namespace);
        let budget = writes_per_second.to_string();
        let args = ["controller", "--kubeconfig", &self.kubeconfig, "--lease-namespace", &self.namespace];
        let args = [&args[..], &["--per-token-metrics=false", "--identity", "controller"]].concat();
        let ledger = ["--ledger-listen", &listen, "--ledger-gates", &gates, "--ledger-audience", AUDIENCE];
        let args = [&args[..], &ledger, &["--usage-writes-per-second", &budget]].concat();
        self.controller = Some(Process::start("gate-scale-controller", &args).await?);
        let leads = |metrics: &Metrics| metrics.sum("tokenward_leader", &[]) == 1.0;
        self.controller()?.wait(Duration::from_millis(50), leads).await
    }

    /// Starts the gate anew.
    pub async fn start_gate(&mut self) -> Result<()> {
        if let Some(before) = self.gate.take() {
            before.stop().await?;
        }
        let token = self.ledger_token.display().to_string();
        let (gate, http) = gate(&self.kubeconfig, &self.namespace, &token).await?;
        self.http = http;
        self.gate = Some(gate);
        Ok(())
    }

    /// Starts a gate that the ledger does not let report.
    pub async fn start_mute_gate(&mut self) -> Result<()> {
        let token = std::env::temp_dir().join("gate-scale-no.token");
        std::fs::write(&token, "nobody's")?;
        let (gate, http) = gate(&self.kubeconfig, &self.namespace, &token.display().to_string()).await?;
        (self.gate, self.http) = (Some(gate), http);
        Ok(())
    }

    /// Stops gate and controller, in order.
    pub async fn stop_processes(&mut self) -> Result<()> {
        for process in [self.gate.take(), self.controller.take()].into_iter().flatten() {
            process.stop().await?;
        }
        Ok(())
    }

    /// The running controller.
    pub fn controller(&self) -> Result<&Process> {
        Ok(self.controller.as_ref().ok_or("no controller")?)
    }

    /// The running gate.
    pub fn gate(&self) -> Result<&Process> {
        Ok(self.gate.as_ref().ok_or("no gate")?)
    }

    /// The ApiTokens.
    pub fn api(&self) -> Api<ApiToken> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The tokens that are in use all the time.
    pub fn busy(&self) -> &[String] {
        &self.tokens[..BUSY.min(self.tokens.len())]
    }

    /// So many that no part has touched yet.
    pub fn untouched(&mut self, count: usize) -> Result<Range<usize>> {
        let range = self.fresh..self.fresh + count;
        if range.end > self.tokens.len() {
            return Err("TOKENWARD_BENCH_TOKENS is too small for the other settings".into());
        }
        self.fresh = range.end;
        Ok(range)
    }

    /// Stops everything.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop_processes().await?;
        Ok(std::fs::remove_file(&self.ledger_token)?)
    }
}

/// Starts a gate; where it answers.
pub async fn gate(kubeconfig: &str, namespace: &str, ledger_token: &str) -> Result<(Process, SocketAddr)> {
    let http = SocketAddr::from(([127, 0, 0, 1], free_port().await?));
    let (http_listen, grpc_listen) = (http.to_string(), format!("127.0.0.1:{}", free_port().await?));
    let args = ["gate", "--kubeconfig", kubeconfig, "--identity", "gate", "--lease-namespace", namespace];
    let listen = ["--http-listen", &http_listen, "--grpc-listen", &grpc_listen];
    let args = [&args[..], &listen, &["--ledger-token-file", ledger_token]].concat();
    Ok((Process::start("gate-scale-gate", &args).await?, http))
}

/// A token by which the gate proves itself to the ledger, as the kubelet would project it.
async fn ledger_token(client: &Client, namespace: &str) -> Result<PathBuf> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let metadata = ObjectMeta { name: Some(ACCOUNT.into()), ..Default::default() };
    accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..Default::default() }).await?;
    let spec = TokenRequestSpec {
        audiences: Some(vec![AUDIENCE.into()]),
        expiration_seconds: Some(86_400),
        ..Default::default()
    };
    let request = TokenRequest { spec: Some(spec), ..Default::default() };
    let answer = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await?;
    let token = answer.status.and_then(|status| status.token).ok_or("no token for the gate")?;
    let path = std::env::temp_dir().join(format!("gate-scale-{}.token", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(token.as_bytes())?;
    Ok(path)
}

/// The tokens out of their Secrets, by number.
async fn plaintexts(client: &Client, namespace: &str, count: usize) -> Result<Vec<String>> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    let by_name: BTreeMap<String, Secret> =
        secrets.into_iter().map(|secret| (secret.name_any(), secret)).collect();
    let plaintext = |number: usize| {
        let data = by_name.get(&format!("t-{number}"))?.data.as_ref()?;
        String::from_utf8(data.get("token")?.0.clone()).ok()
    };
    (0..count).map(|number| plaintext(number).ok_or_else(|| "a token has no Secret".into())).collect()
}
