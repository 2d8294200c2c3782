//! The gate as a process, without a cluster: what it refuses to start with, what it says while it waits, how it leaves.

#![allow(clippy::expect_used, reason = "helpers of tests may fail as tests do")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder of this test; gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tokenward-gate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A kubeconfig that leads to `server`.
    fn kubeconfig(&self, server: SocketAddr) -> PathBuf {
        self.write(
            "kubeconfig",
            &format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                 clusters: [{{name: c, cluster: {{server: \"http://{server}\"}}}}]\n\
                 contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\nusers: [{{name: c, user: {{}}}}]\n"
            ),
        )
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Three that differ: all are taken before the first is let go.
fn free() -> [SocketAddr; 3] {
    // Free a moment ago. Should somebody else take one meanwhile, the process says so and the test fails clearly.
    let taken = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    taken.map(|listener| listener.local_addr().expect("bound"))
}

fn gate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenward"));
    // Settings of whoever runs the tests must not become settings of the process under test.
    command.env_clear().env("HOME", "/nowhere").arg("gate").args(args);
    command
}

fn fails(args: &[&str]) -> (Option<i32>, String) {
    let output = gate(args).output().expect("it starts");
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

fn ask(address: SocketAddr, head: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "{head}\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

struct Running {
    child: Child,
    admin: SocketAddr,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl Running {
    fn start(kubeconfig: &Path, args: &[&str]) -> Self {
        Self::start_to(kubeconfig, args, Stdio::piped())
    }

    fn start_to(kubeconfig: &Path, args: &[&str], log: Stdio) -> Self {
        let [admin, http, grpc] = free();
        let mut command = gate(&["--log-format=json", "--identity=g1"]);
        command.arg(format!("--admin-listen={admin}")).arg(format!("--http-listen={http}"));
        command.arg(format!("--grpc-listen={grpc}")).arg("--kubeconfig").arg(kubeconfig).args(args);
        let child = command.stderr(log).spawn().expect("it starts");
        let running = Self { child, admin, http, grpc };
        running.until(|| ask(admin, "GET /healthz HTTP/1.1").is_ok());
        running
    }

    fn until(&self, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "not in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Lines of the log that were lost so far.
    fn lost(&self) -> u64 {
        let metrics = ask(self.admin, "GET /metrics HTTP/1.1").expect("answers");
        let line = metrics.lines().find_map(|line| line.strip_prefix("tokenward_log_lines_lost_total "));
        line.expect("the metric").parse().expect("a number")
    }

    fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn wait(&mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status.code();
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut log = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
        (code, log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_cannot_be_used_ends_the_process_with_a_line_that_names_the_flag() {
    let folder = Folder::new("flags");
    let (taken, nobody) = (TcpListener::bind("127.0.0.1:0").expect("a port"), folder.0.join("nobody"));
    let taken = taken.local_addr().expect("bound");
    let garbage = folder.write("garbage.pem", "this is no PEM\n");
    let (nobody, garbage) = (nobody.display(), garbage.display());
    let flags = |own: &[String]| {
        let mut all: Vec<String> = ["--admin-listen", "--http-listen", "--grpc-listen"]
            .iter()
            .filter(|flag| !own.iter().any(|own| own.starts_with(**flag)))
            .map(|flag| format!("{flag}=127.0.0.1:0"))
            .collect();
        all.extend_from_slice(own);
        all
    };
    let _listener = TcpListener::bind(taken);
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let held = (held.local_addr().expect("bound"), held);
    for (own, wanted) in [
        (
            vec![format!("--http-listen={}", held.0)],
            format!("tokenward: --http-listen {} cannot be listened on", held.0),
        ),
        (
            vec![format!("--grpc-listen={}", held.0)],
            format!("tokenward: --grpc-listen {} cannot be listened on", held.0),
        ),
        (
            vec![format!("--tls-cert={nobody}"), format!("--tls-key={garbage}")],
            format!("tokenward: --tls-cert {nobody} cannot be read: "),
        ),
        (
            vec![format!("--tls-cert={garbage}"), format!("--tls-key={garbage}")],
            format!("tokenward: --tls-cert {garbage} holds no usable PEM"),
        ),
        (vec![format!("--kubeconfig={nobody}")], format!("tokenward: --kubeconfig {nobody}: ")),
        (vec![], "tokenward: no cluster: give --kubeconfig, set KUBECONFIG".to_owned()),
    ] {
        let args = flags(&own);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (code, err) = fails(&args);
        assert_eq!(code, Some(1), "{args:?}: {err}");
        assert!(err.lines().count() == 1 && err.starts_with(&wanted), "{args:?}: {err}");
    }
    for (flag, wanted) in [
        ("--deny-when-stale-for=1m", "write 1m30s to 720h"),
        ("--tls-cert=a", "--tls-key"),
        ("--introspect-callers=a", "NAMESPACE/NAME"),
    ] {
        let (code, err) = fails(&[flag]);
        assert!(code == Some(2) && err.contains(wanted), "{flag}: {err}");
    }
}

#[test]
fn without_an_api_server_it_waits_with_its_ports_taken_and_closed_and_leaves_when_told() {
    let folder = Folder::new("waits");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut running = Running::start(&folder.kubeconfig(nobody), &[]);
    let ready = ask(running.admin, "GET /readyz HTTP/1.1").expect("answers");
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("not synced yet: apitokens, listeners"),
        "{ready}"
    );
    let metrics = ask(running.admin, "GET /metrics HTTP/1.1").expect("answers");
    assert!(metrics.contains("\ntokenward_gate_ready 0\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    for port in [running.http, running.grpc] {
        let refused = TcpStream::connect(port).expect_err("not open");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "a proxy denies at once");
    }
    running.terminate();
    let asked = Instant::now();
    let (code, log) = running.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(asked.elapsed() < Duration::from_secs(8), "it has counted nothing: there is nothing to wait for");
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not JSON: {line}");
    }
}

/// An API server with one ApiToken, which no gate understands, and nothing else; every watch stays open.
fn small_cluster() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || while answer(&mut stream).is_ok() {});
        }
    });
    address
}

fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    if line.contains("watch=") {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        if line.contains("sendInitialEvents=true") {
            let broken = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"broken\",\"namespace\":\"shop\",\
                \"uid\":\"u\",\"resourceVersion\":\"6\"},\"spec\":7}}\n";
            write!(stream, "{:x}\r\n{broken}\r\n", broken.len())?;
            let bookmark = "{\"type\":\"BOOKMARK\",\"object\":{\"apiVersion\":\"tokenward.dev/v1alpha1\",\
                \"kind\":\"ApiToken\",\"metadata\":{\"resourceVersion\":\"7\",\
                \"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n";
            write!(stream, "{:x}\r\n{bookmark}\r\n", bookmark.len())?;
        }
        // Open until the client goes.
        let mut rest = [0; 64];
        while stream.read(&mut rest)? > 0 {}
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let list =
        "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[]}";
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{list}",
        list.len()
    )
}

#[test]
fn with_its_index_loaded_it_answers_and_on_sigterm_it_lets_requests_end() {
    let folder = Folder::new("serves");
    let mut running = Running::start(&folder.kubeconfig(small_cluster()), &[]);
    running.until(|| {
        ask(running.admin, "GET /readyz HTTP/1.1").is_ok_and(|ready| ready.starts_with("HTTP/1.1 200"))
    });
    let denied = ask(running.http, "GET /authz/nginx?audience=orders HTTP/1.1").expect("answers");
    assert!(
        denied.starts_with("HTTP/1.1 401") && denied.contains("www-authenticate: Bearer realm="),
        "{denied}"
    );
    assert!(ask(running.http, "GET / HTTP/1.1").expect("answers").starts_with("HTTP/1.1 404"));
    TcpStream::connect(running.grpc).expect("open");
    for _ in 0..3 {
        let denied = ask(running.http, "GET /authz/nginx?audienc=orders HTTP/1.1").expect("answers");
        assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    }
    // What would be cut off, or has been: nothing of a demand goes in silence.
    for target in [
        "/authz/caddy?scope=a#&scope=b",
        "/authz/caddy?scope=a&scope=b#",
        "/authz/caddy?scope=#a",
        "/authz/caddy?scope=a&#scope=b",
        "/authz/envoy?scope=a#&path=/orders",
        "http://gate.example/authz/traefik?scope=a#&scope=b",
        "/authz/nginx?",
        "/authz/nginx?scope=a&",
    ] {
        let denied = ask(running.http, &format!("GET {target} HTTP/1.1")).expect("answers");
        assert!(denied.starts_with("HTTP/1.1 403"), "{target}: {denied}");
    }
    for target in ["/authz/caddy#?scope=a", "/authz/envoy#?scope=a&path=/x"] {
        let nowhere = ask(running.http, &format!("GET {target} HTTP/1.1")).expect("answers");
        assert!(nowhere.starts_with("HTTP/1.1 404"), "{target}: {nowhere}");
    }
    // In HTTP/2 nobody could tell.
    let mut two = TcpStream::connect(running.http).expect("open");
    two.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    let mut answer = Vec::new();
    let _ = two.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    let metrics = ask(running.admin, "GET /metrics HTTP/1.1").expect("answers");
    let wanted = "tokenward_gate_requests_total{dialect=\"nginx\",outcome=\"Missing\"} 1";
    assert!(metrics.contains(wanted) && metrics.contains("\ntokenward_gate_ready 1\n"), "{metrics}");

    // A head that is half there when the signal comes: the connection ends, and the process with it.
    let mut half = TcpStream::connect(running.http).expect("open");
    half.write_all(b"GET /authz/nginx HTTP/1.1\r\nHost: x\r\n").expect("sent");
    let mut unused = TcpStream::connect(running.http).expect("open");
    unused.write_all(b"GET /authz/nginx HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut first = [0; 12];
    unused.read_exact(&mut first).expect("answered");
    running.terminate();
    half.write_all(b"\r\n").expect("sent");
    let (code, log) = running.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"stopped\"") && !log.contains("\"ERROR\""), "{log}");
    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let warnings: Vec<_> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    let about = |key: &str, value: &str| warnings.iter().filter(|line| line[key] == value).count();
    assert_eq!((about("key", "an unknown key"), about("name", "broken")), (1, 1), "each is said once: {log}");
    assert_eq!((about("key", "scope"), about("key", "path_prefix")), (2, 1), "one for each dialect: {log}");
    assert!(TcpStream::connect(running.http).is_err());
}

/// Resident memory in MiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

/// As many as the chart's defaults allow, each with half a head: others are answered, it fits into 60 % of the chart's limit of
/// memory, and it is given back when they are gone.
#[test]
fn half_open_connections_fit_into_the_charts_memory() {
    const LIMIT: u64 = 256;
    let files = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let files = files.lines().find(|line| line.starts_with("Max open files")).expect("there");
    let files: usize = files.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(1 << 20);
    let most = 4_096.min(files.saturating_sub(512) * 4 / 5);
    let folder = Folder::new("crowd");
    let running = Running::start(&folder.kubeconfig(small_cluster()), &[]);
    running.until(|| {
        ask(running.admin, "GET /readyz HTTP/1.1").is_ok_and(|ready| ready.starts_with("HTTP/1.1 200"))
    });
    let process = running.child.id();
    let answered = || {
        let began = Instant::now();
        let answer = ask(running.http, "GET /authz/nginx HTTP/1.1");
        assert!(answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 401")));
        began.elapsed()
    };
    answered();
    let rest = resident(process);
    let half = b"GET /authz/nginx HTTP/1.1\r\nHost: x\r\nCookie: ";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut open = Vec::new();
    for (address, bytes, count) in [(running.http, &half[..], most), (running.grpc, &preface[..], most / 4)] {
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).expect("accepted");
            stream.write_all(bytes).expect("sent");
            open.push(stream);
        }
    }
    let mut took: Vec<Duration> = (0..50).map(|_| answered()).collect();
    took.sort_unstable();
    let full = resident(process);
    println!("{} half open: {rest} MiB, then {full} MiB; others answered in {:?}", open.len(), took[25]);
    assert!(full <= LIMIT * 60 / 100, "{full} MiB of {LIMIT}");
    drop(open);
    let began = Instant::now();
    let given_back = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(500));
        answered();
        resident(process)
    });
    let left = given_back.take(120).find(|left| *left <= rest * 3 / 2);
    println!("given back to {left:?} MiB after {:?}", began.elapsed());
    assert!(left.is_some(), "{} MiB are kept", resident(process));
}

#[test]
fn it_serves_over_tls_when_told_to() {
    let folder = Folder::new("tls");
    let made = rcgen::generate_simple_self_signed(["gate.example".to_owned()]).expect("a certificate");
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let certificate = folder.write("tls.crt", &pem("CERTIFICATE", made.cert.der()));
    let key = folder.write("tls.key", &pem("PRIVATE KEY", &made.signing_key.serialize_der()));
    let flags = [format!("--tls-cert={}", certificate.display()), format!("--tls-key={}", key.display())];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let running = Running::start(&folder.kubeconfig(small_cluster()), &flags);
    running.until(|| {
        ask(running.admin, "GET /readyz HTTP/1.1").is_ok_and(|ready| ready.starts_with("HTTP/1.1 200"))
    });
    let plain = ask(running.http, "GET /authz/nginx HTTP/1.1");
    assert!(!plain.is_ok_and(|answer| answer.starts_with("HTTP/1.1")), "nothing is said in the clear");
    let identity = tokenward::platform::pinned::Fingerprint::of(made.cert.der());
    let config = tokenward::platform::pinned::client_config(identity).expect("a configuration");
    let name = "gate.example".try_into().expect("a name");
    let connection = tokio_rustls::rustls::ClientConnection::new(config, name).expect("a connection");
    let stream = TcpStream::connect(running.grpc).expect("open");
    let mut stream = tokio_rustls::rustls::StreamOwned::new(connection, stream);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).expect("answered");
    assert_eq!(settings[3], 4, "a SETTINGS frame of HTTP/2");
    assert!(running.child.id() > 0);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = Folder::new("unread");
    let config = folder.kubeconfig(SocketAddr::from(([127, 0, 0, 1], 9)));
    for closed in [true, false] {
        let (unread, mut pipe) = std::io::pipe().expect("a pipe");
        if !closed {
            // As much as a pipe takes stands in it already: not one line goes through.
            pipe.write_all(&[b'x'; 65_536]).expect("filled");
        }
        let mut running = Running::start_to(&config, &["--log-level", "trace"], pipe.into());
        let _unread = (!closed).then_some(unread);
        if closed {
            running.until(|| running.lost() > 0);
        }
        assert!(ask(running.admin, "GET /healthz HTTP/1.1").expect("answers").starts_with("HTTP/1.1 200"));
        running.terminate();
        let deadline = Instant::now() + Duration::from_secs(20);
        let code = loop {
            if let Some(status) = running.child.try_wait().expect("a child") {
                break status.code();
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(code, Some(0), "closed: {closed}");
    }
}
