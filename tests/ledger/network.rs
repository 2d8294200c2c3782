//! The whole way of a report, over a socket: pinned certificate, HTTP/2, token, desk, receipt.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokenward::api::report::{METHOD, Receipt, Report};
use tokenward::platform::grpc::Connection;
use tokenward::platform::pinned::{Identity, client_config};
use tokenward::runtime::serve::{Limits, Meter, Server, listen};
use tokio_util::sync::CancellationToken;

use crate::service::{Authority, GATE, service, token};
use crate::support::{Cluster, credential};

#[tokio::test]
async fn a_report_arrives_over_tls_and_only_at_the_certificate_that_was_announced() {
    let cluster = Cluster::new();
    let uid = cluster.token("orders", &credential(1)).await;
    let process = cluster.ledger("ledger");
    while !process.ledger.is_open() {
        tokio::task::yield_now().await;
    }
    let service = Arc::new(service(&process, &Authority::knowing(GATE, "tokenward-ledger")));
    let identity = Identity::generate().unwrap();
    let tls = Arc::new(ArcSwap::new(identity.server_config().unwrap()));
    let listener = listen("--ledger-listen", ([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let server = Server::new(Limits::default(), Meter::none("ledger")).http2_only().with_tls(Some(tls));
    let served = tokio::spawn(server.serve(listener, service.serves(), stop.clone()));

    let limit = Duration::from_secs(30);
    let other = Identity::generate().unwrap().fingerprint();
    assert!(Connection::connect(&address, client_config(other).unwrap(), limit).await.is_err());

    let connection = Connection::connect(&address, client_config(identity.fingerprint()).unwrap(), limit);
    let connection = connection.await.unwrap();
    let gate = cluster.gate("gate-a");
    let send = async |sealed| {
        let mut request = tonic::Request::new(gate.report(sealed));
        request.metadata_mut().insert("authorization", format!("Bearer {}", token("ccc")).parse().unwrap());
        let answer = connection.call::<Report, Receipt>(METHOD, 1 << 20, request).await;
        answer.expect("taken").into_inner().settled
    };
    let mut settled = send(vec![cluster.sealed(&uid, 1, &credential(1), 3)]).await;
    for _ in 0..10_000 {
        if settled.is_empty() {
            settled = send(vec![]).await;
        }
    }
    assert_eq!((settled[0].sequence, settled[0].refused.as_str()), (1, ""));
    assert_eq!(cluster.status("orders").requests, 3);
    drop(connection);
    stop.cancel();
    served.await.unwrap();
}
