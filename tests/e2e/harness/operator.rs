//! The operator as a process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::command::{command, root};
use super::release::{Content, Env, Launch};
use super::scrape::Scrape;
use super::wait::until;

/// The binary under test.
pub async fn binary() -> PathBuf {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT
        .get_or_init(|| async {
            if let Some(given) = std::env::var_os("TOKENWARD_BIN") {
                return given.into();
            }
            let cargo = PathBuf::from(env!("CARGO"));
            command(&cargo, &["build", "--release", "--locked", "--bin", "tokenward"], &[], "").await.ok();
            root().join("target/release/tokenward")
        })
        .await
        .clone()
}

/// A loopback port that nobody listens on, below the range that outgoing connections are given, and that of the scripts.
/// Whoever asked listens on it a while later only, so this process gives each port once.
pub(super) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    let port = (0..1000)
        .map(|_| rand::random_range(10_000..20_000))
        .find(|port| !given.contains(port) && std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port");
    given.insert(port);
    port
}

/// A token of the Deployment's ServiceAccount.
async fn token(cluster: &Cluster, launch: &Launch, extra: &[&str]) -> String {
    let ask = ["create", "token", &launch.account, "--namespace", &launch.namespace];
    cluster.kubectl(&[&ask, extra].concat(), "").await.ok().trim().to_owned()
}

/// Fills folders as the kubelet would: each of the pod's with where it is here.
async fn mount(cluster: &Cluster, launch: &Launch, stem: &Path) -> Vec<(String, String)> {
    let mut folders = Vec::new();
    for (number, (path, contents)) in launch.mounts.iter().enumerate() {
        let folder = stem.with_extension(format!("mount-{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        for content in contents {
            match content {
                Content::Token { file, audience, seconds } => {
                    let duration = format!("{seconds}s");
                    let extra = ["--audience", audience.as_str(), "--duration", &duration];
                    std::fs::write(folder.join(file), token(cluster, launch, &extra).await).unwrap();
                }
                Content::Secret { name, files } => {
                    let secrets = Api::<Secret>::namespaced(cluster.client.clone(), &launch.namespace);
                    let data = secrets.get(name).await.unwrap().data.unwrap_or_default();
                    for (key, file) in files {
                        std::fs::write(folder.join(file), &data[key].0).unwrap();
                    }
                }
            }
        }
        folders.push((path.clone(), folder.to_str().unwrap().to_owned()));
    }
    folders
}

/// An argument as it has to be on this machine: `--NAME-listen` on a free loopback port, which is noted, and files of the
/// pod's folders where they are here.
fn here(arg: &str, folders: &[(String, String)], ports: &mut BTreeMap<String, u16>) -> String {
    let Some((flag, value)) = arg.split_once('=') else { return arg.to_owned() };
    if let Some(name) = flag.strip_prefix("--").and_then(|flag| flag.strip_suffix("-listen")) {
        let port = free_port();
        assert_eq!(ports.insert(name.to_owned(), port), None, "the Deployment says once where to listen");
        return format!("{flag}=127.0.0.1:{port}");
    }
    let found = folders.iter().find_map(|(path, folder)| {
        value
            .strip_prefix(path.as_str())
            .filter(|rest| rest.starts_with('/'))
            .map(|rest| format!("{folder}{rest}"))
    });
    format!("{flag}={}", found.as_deref().unwrap_or(value))
}

/// What can be sent to a process.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Term,
    Kill,
    Stop,
    Continue,
}

/// A running, or ended, operator.
pub struct Operator {
    /// What its Lease identity and its events name.
    pub pod: String,
    /// Everything it printed.
    pub log: PathBuf,
    ports: BTreeMap<String, u16>,
    pid: u32,
    pid_file: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Operator {
    /// Starts one exactly as the Deployment would. Four things differ: everything listens on free loopback ports, the
    /// pod's name, namespace and address are filled in, its folders are elsewhere, and the ServiceAccount's token comes in
    /// a kubeconfig.
    pub(super) async fn start(cluster: &Cluster, launch: &Launch, pod: &str, number: u32) -> Self {
        let namespace = launch.namespace.as_str();
        let token = token(cluster, launch, &["--duration", "2h"]).await;
        let stem = cluster.dir.join(format!("operator-{number}"));
        let kubeconfig = stem.with_extension("kubeconfig");
        std::fs::write(&kubeconfig, cluster.kubeconfig_with(&token)).unwrap();
        let folders = mount(cluster, launch, &stem).await;
        let mut ports = BTreeMap::new();
        let args = launch.args.iter().map(|arg| here(arg, &folders, &mut ports));
        let args: Vec<_> = args.collect();
        assert!(ports.contains_key("admin"), "the Deployment says where to listen");
        let env = launch.env.iter().map(|(name, value)| {
            let value = match value {
                Env::Value(value) => value.as_str(),
                Env::PodName => pod,
                Env::PodNamespace => namespace,
                Env::PodIp => "127.0.0.1",
            };
            (name, value)
        });
        let log = stem.with_extension("log");
        let output = File::create(&log).unwrap();
        let child = Command::new(binary().await)
            .args(args)
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .env_clear()
            .envs(env)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        // The guard of the control plane ends what such a file names, even if this process is killed.
        let pid_file = stem.with_extension("pid");
        std::fs::write(&pid_file, format!("{pid}\n")).unwrap();
        Self { pod: pod.to_owned(), log, ports, pid, pid_file, child: Mutex::new(Some(child)) }
    }

    /// Where it serves what the Deployment's `--NAME-listen` is about.
    pub fn port(&self, name: &str) -> u16 {
        *self.ports.get(name).unwrap_or_else(|| panic!("{} does not listen for {name}", self.pod))
    }

    /// Status and body of an answer of the admin endpoint; `None` if there is none.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let ask = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port("admin"))).await.ok()?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
        };
        timeout(Duration::from_secs(30), ask).await.ok().flatten()
    }

    pub async fn until_ready(&self) {
        until(&format!("{} is ready; its log is {}", self.pod, self.log.display()), async || {
            assert!(self.is_running(), "{} ended:\n{}", self.pod, self.read_log());
            self.get("/readyz").await.filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// Its metrics; `None` if it does not answer.
    pub async fn try_scrape(&self) -> Option<Scrape> {
        self.get("/metrics").await.map(|(_, text)| Scrape::parse(&text))
    }

    pub async fn scrape(&self) -> Scrape {
        until(&format!("{} answers a scrape", self.pod), async || self.try_scrape().await).await
    }

    pub async fn leads(&self) -> bool {
        self.try_scrape().await.is_some_and(|scrape| scrape.sum("tokenward_leader", &[]) == 1.0)
    }

    pub async fn until_leading(&self) {
        until(&format!("{} leads", self.pod), async || self.leads().await.then_some(())).await;
    }

    pub fn read_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    pub fn is_running(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The most memory that it has had so far, in MiB.
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    pub async fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Term => "-TERM",
            Signal::Kill => "-KILL",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        assert!(self.is_running(), "{} runs", self.pod);
        command(&PathBuf::from("/bin/kill"), &[name, &self.pid.to_string()], &[], "").await.ok();
    }

    /// Waits for its end.
    pub async fn ended(&self) -> ExitStatus {
        let child = self.child.lock().unwrap().take();
        let mut child = child.expect("ended once");
        let status = timeout(super::PATIENCE, child.wait()).await.expect("it ends in time").unwrap();
        let _ = std::fs::remove_file(&self.pid_file);
        status
    }

    /// Kills it, as a machine that loses power would.
    pub async fn kill(&self) {
        self.signal(Signal::Kill).await;
        self.ended().await;
    }
}
