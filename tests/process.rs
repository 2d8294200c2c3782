//! The binary as a process: what it prints, how it ends, what it answers while it runs.

#![allow(clippy::expect_used, reason = "helpers of tests may fail as tests do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn tokenward(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenward"));
    // Settings of whoever runs the tests must not become settings of the process under test.
    command.env_clear().env("HOME", "/nowhere").args(args);
    command
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = tokenward(args).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// A kubeconfig that leads to a port where nobody listens.
fn dead_cluster(name: &str) -> PathBuf {
    cluster_at(name, "127.0.0.1:9")
}

/// A kubeconfig that leads to this address.
fn cluster_at(name: &str, address: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tokenward-process-{name}-{}", std::process::id()));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\nusers: [{{name: c, user: {{}}}}]\n"
    );
    std::fs::write(&path, text).expect("written");
    path
}

struct Running {
    child: Child,
    address: SocketAddr,
    config: PathBuf,
}

impl Running {
    fn start(name: &str, args: &[&str]) -> Self {
        Self::start_with(dead_cluster(name), args)
    }

    fn start_with(config: PathBuf, args: &[&str]) -> Self {
        Self::start_to(config, args, Stdio::piped())
    }

    fn start_to(config: PathBuf, args: &[&str], log: Stdio) -> Self {
        // Free a moment ago. Should somebody else take it meanwhile, the process says so and the test fails clearly.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let mut command = tokenward(&["controller", "--admin-listen", &address.to_string()]);
        command.arg("--kubeconfig").arg(&config).args(args).stderr(log);
        let running = Self { child: command.spawn().expect("it starts"), address, config };
        running.until(|| running.get("/healthz").is_ok());
        running
    }

    fn until(&self, so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !so() {
            assert!(Instant::now() < deadline, "not in time");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lines of the log that were lost so far.
    fn lost(&self) -> u64 {
        let metrics = self.get("/metrics").expect("answers");
        let line = metrics.lines().find_map(|line| line.strip_prefix("tokenward_log_lines_lost_total "));
        line.expect("the metric").parse().expect("a number")
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn wait(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running after {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

#[test]
fn version_and_definitions_go_to_standard_output() {
    let (code, out, err) = run(&["--version"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with(&format!("tokenward {} (revision ", env!("CARGO_PKG_VERSION"))), "{out}");
    let (code, out, _) = run(&["crds"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("---\n") && out.contains("name: apitokens.tokenward.dev"), "{out}");
}

#[test]
fn an_error_is_one_line_and_an_exit_code() {
    for (args, code, wanted) in [
        (
            &["controller", "--lease-duration=5s"][..],
            2,
            "tokenward: --lease-renew-deadline 10s must be shorter than",
        ),
        (&["controller", "--log-level=a=b=c"], 2, "tokenward: --log-level \"a=b=c\": write error, warn"),
        (
            &["controller", "--kubeconfig=/nowhere/config", "--admin-listen=127.0.0.1:0"],
            1,
            "tokenward: --kubeconfig /nowhere/config: ",
        ),
        (
            &["controller", "--admin-listen=127.0.0.1:0"],
            1,
            "tokenward: no cluster: give --kubeconfig, set KUBECONFIG",
        ),
    ] {
        let (found, out, err) = run(args);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{args:?}: {err}");
        assert_eq!(err.lines().filter(|line| !line.contains("INFO")).count(), 1, "{args:?}: {err}");
        assert!(err.contains(wanted), "{args:?}: {err}");
    }
    let (code, _, err) = run(&["controller", "--resync=25h"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--resync") && err.contains("write 1m to 24h"), "{err}");
}

#[test]
fn without_an_api_server_it_lives_waits_and_leaves_when_told() {
    let mut running = Running::start("waits", &["--leader-elect=false", "--log-format=json"]);
    assert!(running.get("/healthz").expect("answers").starts_with("HTTP/1.1 200"));
    let ready = running.get("/readyz").expect("answers");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("not synced yet: apitokens"), "{ready}");
    let metrics = running.get("/metrics").expect("answers");
    assert!(metrics.contains("\ntokenward_leader 1\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    running.signal("TERM");
    assert_eq!(running.wait(Duration::from_secs(20)), Some(0));
    let log = BufReader::new(running.child.stderr.take().expect("piped"));
    for line in log.lines() {
        let line = line.expect("UTF-8");
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "not JSON: {line}");
    }
}

#[test]
fn a_standby_that_never_reached_the_lease_leaves_at_once() {
    let mut running = Running::start("standby", &[]);
    assert!(running.get("/metrics").expect("answers").contains("\ntokenward_leader 0\n"));
    let asked = Instant::now();
    running.signal("INT");
    assert_eq!(running.wait(Duration::from_secs(20)), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut running = Running::start("impatient", &["--leader-elect=false"]);
    // Half a request holds the admin endpoint open for its two seconds of grace.
    let mut stream = TcpStream::connect(running.address).expect("connected");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").expect("sent");
    // Connections are accepted in turn: with the answer to this one, that one is attended to. Then it has to be read.
    running.get("/healthz").expect("answers");
    std::thread::sleep(Duration::from_secs(1));
    running.signal("TERM");
    // The port is closed once the first signal was heard. Before that, a second would be the same one.
    let deadline = Instant::now() + Duration::from_secs(20);
    while running.get("/healthz").is_ok() {
        assert!(Instant::now() < deadline, "the first signal was not heard");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.signal("TERM");
    // An end in order would be 0.
    assert_eq!(running.wait(Duration::from_secs(20)), Some(130));
}

#[test]
fn a_log_that_nobody_reads_any_more_stops_nothing() {
    let mut running = Running::start("closed", &[]);
    drop(running.child.stderr.take());
    running.until(|| running.lost() > 0);
    assert!(running.get("/healthz").expect("answers").starts_with("HTTP/1.1 200"));
    running.signal("TERM");
    assert_eq!(running.wait(Duration::from_secs(20)), Some(0));
}

#[test]
fn a_log_whose_reader_hangs_stops_nothing() {
    // As much as a pipe takes stands in it already: not one line goes through.
    let (_unread, mut pipe) = std::io::pipe().expect("a pipe");
    pipe.write_all(&[b'x'; 65_536]).expect("filled");
    let mut running = Running::start_to(dead_cluster("full"), &["--log-level=trace"], pipe.into());
    assert!(running.get("/healthz").expect("answers").starts_with("HTTP/1.1 200"));
    running.signal("TERM");
    assert_eq!(running.wait(Duration::from_secs(20)), Some(0));
}

#[test]
fn an_api_server_that_never_answers_does_not_hold_the_end_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let held = std::thread::spawn(move || silent.incoming().take(64).collect::<Vec<_>>());
    for elect in ["--leader-elect=false", "--leader-elect=true"] {
        let config = cluster_at(&format!("silent{elect}"), &address);
        let mut running = Running::start_with(config, &[elect, "--shutdown-grace=1s"]);
        // Half a request of somebody who does not go on either.
        let mut stream = TcpStream::connect(running.address).expect("connected");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("sent");
        running.get("/healthz").expect("answers");
        running.signal("TERM");
        assert_eq!(running.wait(Duration::from_secs(30)), Some(0), "{elect}");
    }
    drop(held);
}

#[test]
fn an_unreachable_api_server_is_told_once_a_retry_with_its_address_and_in_words() {
    let mut running = Running::start("told", &[]);
    let log = BufReader::new(running.child.stderr.take().expect("piped"));
    let mut lines: Vec<String> = Vec::new();
    let mut asked = false;
    let told = |lines: &[String]| {
        lines.iter().filter(|line| line.contains("the API server cannot be reached")).count()
    };
    for line in log.lines() {
        let line = line.expect("UTF-8");
        let over = line.contains("stopped");
        lines.push(line);
        if !asked && told(&lines) == 3 {
            running.signal("TERM");
            asked = true;
        }
        if over {
            break;
        }
    }
    assert_eq!(running.wait(Duration::from_secs(20)), Some(0));
    for line in lines.iter().filter(|line| line.contains("cannot be reached")) {
        assert!(
            line.contains("server=\"http://127.0.0.1:9\"") && line.contains("Connection refused"),
            "{line}"
        );
        assert!(line.contains("check that it runs, that this address is right"), "{line}");
    }
    let troubles: Vec<_> =
        lines.iter().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    // Besides, once: the Lease, by its name.
    assert!(troubles.len() <= told(&lines) + 1, "{troubles:#?}");
    for word in ["Status {", "Error(", "HyperError", "ServiceError", "object.", "Some("] {
        assert!(!lines.iter().any(|line| line.contains(word)), "{word}: {lines:#?}");
    }
}

/// What the next test starts: a process whose every thread but the overseer's is blocked.
#[test]
fn a_child_that_hangs() {
    if std::env::var_os("TOKENWARD_TEST_HANGS").is_none() {
        return;
    }
    use tokenward::runtime::{overseer::Overseer, shutdown};
    let overseer = Overseer::start().expect("starts");
    let _stop = shutdown::on_signals(&overseer.handle(), Duration::from_secs(1)).expect("signals");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for _ in 0..2 {
        runtime.spawn(async { std::thread::sleep(Duration::from_secs(600)) });
    }
    std::fs::write(std::env::var_os("TOKENWARD_TEST_HANGS").expect("set"), "ready").expect("written");
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_signal_ends_a_process_in_which_everything_hangs() {
    let ready = std::env::temp_dir().join(format!("tokenward-process-hangs-{}", std::process::id()));
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "a_child_that_hangs"]).env("TOKENWARD_TEST_HANGS", &ready);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut running =
        Running { child, address: SocketAddr::from(([127, 0, 0, 1], 9)), config: ready.clone() };
    running.until(|| ready.exists());
    running.signal("TERM");
    assert_eq!(running.wait(Duration::from_secs(30)), Some(130));
}
