//! Real proxies, configured as the examples say, and requests to them of which every byte is ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::command::{root, tool};
use super::edge::replaced;
use super::operator::free_port;
use super::upstream::MARK;
use super::wait::until;

/// Which proxy, and how it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EnvoyGrpc,
    EnvoyHttp,
    Nginx,
    Caddy,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::EnvoyGrpc, Self::EnvoyHttp, Self::Nginx, Self::Caddy];

    /// Its file in examples/gate.
    fn example(self) -> &'static str {
        match self {
            Self::EnvoyGrpc => "envoy-grpc.yaml",
            Self::EnvoyHttp => "envoy-http.yaml",
            Self::Nginx => "nginx.conf",
            Self::Caddy => "Caddyfile",
        }
    }

    /// How long its example waits for a gate.
    fn patience(self) -> &'static str {
        match self {
            Self::EnvoyGrpc | Self::EnvoyHttp => "0.2s",
            Self::Nginx | Self::Caddy => "200ms",
        }
    }

    /// What a client gets when no gate answers.
    pub fn without_gate(self) -> u16 {
        match self {
            Self::EnvoyGrpc | Self::EnvoyHttp => 503,
            Self::Nginx => 500,
            Self::Caddy => 502,
        }
    }
}

/// What the ports of the examples stand for.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http: u16,
    pub grpc: u16,
    pub upstream: u16,
}

/// A running proxy.
pub struct Proxy {
    pub kind: Kind,
    port: u16,
    log: PathBuf,
    pid_file: PathBuf,
    child: Mutex<Child>,
}

impl Proxy {
    /// Starts one with its example, changed by nothing but `edit`, the ports, and more patience with the gate. `name` is
    /// unique in `dir`.
    pub async fn start(
        kind: Kind,
        dir: &Path,
        name: &str,
        ports: Ports,
        edit: impl Fn(&str) -> String,
    ) -> Self {
        let home = dir.join(format!("proxy-{name}"));
        std::fs::create_dir_all(&home).unwrap();
        let port = free_port();
        let text = std::fs::read_to_string(root().join("examples/gate").join(kind.example())).unwrap();
        // On a busy machine an answer may take longer. A gate that is gone refuses at once, however long is waited.
        let mut text = replaced(&edit(&text), kind.patience(), "10s");
        let gate = if kind == Kind::EnvoyGrpc { ("8182", ports.grpc) } else { ("8181", ports.http) };
        let numbers = [("8000", port), gate, ("9000", ports.upstream)];
        for (place, (written, _)) in numbers.iter().enumerate() {
            assert!(text.contains(written), "{} names port {written}", kind.example());
            // Marked first: a new number may contain an old one.
            text = text.replace(written, &format!("<{place}>"));
        }
        for (place, (_, meant)) in numbers.iter().enumerate() {
            text = text.replace(&format!("<{place}>"), &meant.to_string());
        }
        let config = home.join(kind.example());
        std::fs::write(&config, text).unwrap();
        let log = home.with_extension("log");
        let output = File::create(&log).unwrap();
        let child = command(kind, &home, &config)
            .env("HOME", &home)
            .env("XDG_DATA_HOME", &home)
            .env("XDG_CONFIG_HOME", &home)
            .current_dir(&home)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid_file = home.with_extension("pid");
        std::fs::write(&pid_file, format!("{}\n", child.id().unwrap())).unwrap();
        let proxy = Self { kind, port, log, pid_file, child: Mutex::new(child) };
        until(&format!("{kind:?} listens; its log is {}", proxy.log.display()), async || {
            let ended = proxy.child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{kind:?} ended:\n{}", std::fs::read_to_string(&proxy.log).unwrap());
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        proxy
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// GET with these headers, and nothing else but Host and Connection.
    pub async fn get(&self, path: &str, headers: &[(&str, &[u8])]) -> Answer {
        request(self.port, "GET", path, headers, b"").await.unwrap_or_else(|| {
            let log = std::fs::read_to_string(&self.log).unwrap();
            panic!("{:?} does not answer {path}; its log:\n{log}", self.kind)
        })
    }

    /// GET with this Bearer token.
    pub async fn bearer(&self, token: &str) -> Answer {
        self.get("/orders", &[("Authorization", format!("Bearer {token}").as_bytes())]).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pid_file);
    }
}

fn command(kind: Kind, home: &Path, config: &Path) -> Command {
    match kind {
        Kind::EnvoyGrpc | Kind::EnvoyHttp => {
            let mut command = Command::new(tool("envoy"));
            // Two Envoys on one machine would share memory, unless told not to.
            command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
            command.arg("--config-path").arg(config);
            command
        }
        Kind::Nginx => {
            let mut command = Command::new(tool("nginx"));
            // One process: it is killed with its case, which a worker of its own would outlive.
            command.arg("-p").arg(home).arg("-c").arg(config).args(["-g", "daemon off; master_process off;"]);
            command
        }
        Kind::Caddy => {
            let mut command = Command::new(tool("caddy"));
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
            command
        }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, headers: pairs(lines), body: body.to_owned() })
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// The headers that reached the application; `None` if the proxy answered by itself.
    pub fn upstream(&self) -> Option<Upstream> {
        (self.all(MARK) == ["yes"]).then(|| Upstream(pairs(self.body.lines())))
    }
}

/// The headers that reached the application.
#[derive(Clone, Debug)]
pub struct Upstream(pub Vec<(String, String)>);

impl Upstream {
    /// The value of a header that is there once at most; empty if it is not there.
    #[track_caller]
    pub fn one(&self, name: &str) -> &str {
        let found = values(&self.0, name);
        assert!(found.len() < 2, "{name} more than once: {:?}", self.0);
        found.first().copied().unwrap_or_default()
    }
}

fn pairs<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let pair = lines.filter_map(|line| line.split_once(':'));
    pair.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
}

fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
}

/// A request of which every byte is ours, on a connection of its own; `None` if no whole answer comes back.
pub async fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &[u8])],
    body: &[u8],
) -> Option<Answer> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: orders.example\r\n").into_bytes();
    let mut closes = b"close".to_vec();
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("connection") {
            closes.extend_from_slice(b", ");
            closes.extend_from_slice(value);
            continue;
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"Connection: ");
    bytes.extend_from_slice(&closes);
    bytes.extend_from_slice(format!("\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        // One that refuses a long header may close before it has read all of it.
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        Answer::parse(&answer)
    };
    timeout(Duration::from_secs(20), ask).await.ok().flatten()
}
