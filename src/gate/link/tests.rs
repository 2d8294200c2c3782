use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::api::report::Settled;
use crate::platform::grpc;
use crate::platform::pinned::Identity;

/// What a ledger heard: bearer and report.
type Heard = Arc<Mutex<Vec<(String, Report)>>>;

/// A ledger at a port of this machine. Tokens that begin with `good` may report; `lost` leads nobody.
async fn ledger(identity: &Identity) -> (Ledger, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(identity.server_config().unwrap());
    let heard = Heard::default();
    let shared = heard.clone();
    let service = grpc::unary(METHOD, 1 << 20, move |request: Request<Report>| {
        let shared = shared.clone();
        async move {
            let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
            let bearer = bearer.unwrap_or_default().to_owned();
            if bearer == "Bearer lost" {
                return Err(Status::failed_precondition("this replica does not lead"));
            }
            if !bearer.starts_with("Bearer good") {
                return Err(Status::permission_denied("not you"));
            }
            let report = request.into_inner();
            if report.epoch == 0 {
                return Err(Status::invalid_argument("the epoch"));
            }
            shared.lock().push((bearer, report));
            let settled = vec![Settled { token: "t".into(), sequence: 1, refused: String::new() }];
            Ok(tonic::Response::new(Receipt { settled }))
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), service.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                }
            });
        }
    });
    let sha256 = identity.fingerprint().to_string();
    (Ledger { address, sha256, holder: "a".into() }, heard)
}

/// A token file of its own, removed at the end.
struct TokenFile(PathBuf);

impl TokenFile {
    fn new(name: &str, token: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tokenward-link-{name}-{}", std::process::id()));
        std::fs::write(&path, token).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn report(sequence: u64) -> Report {
    Report { gate: "gate-a".into(), epoch: 7, sequence, ..Report::default() }
}

#[tokio::test]
async fn a_report_goes_there_with_the_present_token_and_its_receipt_comes_back() {
    let identity = Identity::generate().unwrap();
    let (ledger, heard) = ledger(&identity).await;
    let file = TokenFile::new("present", "good-1\n");
    let link = Network::new(file.path()).connect(&ledger);
    assert_eq!(link.report(report(1)).await.unwrap().settled[0].token, "t");
    std::fs::write(file.path(), "good-2").unwrap();
    link.report(report(2)).await.unwrap();
    let bearers: Vec<_> =
        heard.lock().iter().map(|(bearer, report)| (bearer.clone(), report.sequence)).collect();
    assert_eq!(bearers, [("Bearer good-1".to_owned(), 1), ("Bearer good-2".to_owned(), 2)]);
}

#[tokio::test]
async fn every_no_has_its_name_and_the_next_attempt_may_go_well() {
    let identity = Identity::generate().unwrap();
    let (ledger, heard) = ledger(&identity).await;
    let file = TokenFile::new("no", "bad");
    let link = Network::new(file.path()).connect(&ledger);
    let category = async |token: &str, report: Report| {
        std::fs::write(file.path(), token).unwrap();
        link.report(report).await.unwrap_err().category()
    };
    assert_eq!(category("bad", report(1)).await, "Denied");
    assert_eq!(category("lost", report(1)).await, "NotLeading");
    assert_eq!(category("good", Report::default()).await, "Refused");
    assert_eq!(category("two\nlines", report(1)).await, "TokenFile");
    std::fs::write(file.path(), "good").unwrap();
    link.report(report(2)).await.unwrap();
    assert_eq!(heard.lock().len(), 1);
}

#[tokio::test]
async fn nothing_is_said_to_a_stranger() {
    let identity = Identity::generate().unwrap();
    let (mut ledger, heard) = ledger(&identity).await;
    let file = TokenFile::new("stranger", "good");
    let network = Network::new(file.path());
    ledger.sha256 = Identity::generate().unwrap().fingerprint().to_string();
    assert_eq!(network.connect(&ledger).report(report(1)).await.unwrap_err().category(), "Unreachable");
    ledger.sha256 = "not hex".into();
    assert_eq!(network.connect(&ledger).report(report(1)).await.unwrap_err().category(), "Address");
    ledger.address = "127.0.0.1:1".into();
    ledger.sha256 = identity.fingerprint().to_string();
    assert_eq!(network.connect(&ledger).report(report(1)).await.unwrap_err().category(), "Unreachable");
    let missing = Network::new("/nowhere/token").connect(&ledger);
    let error = missing.report(report(1)).await.unwrap_err();
    assert_eq!((error.category(), error.to_string().contains("/nowhere/token")), ("TokenFile", true));
    assert!(heard.lock().is_empty());
}
