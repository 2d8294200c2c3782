//! What the gate accepts, what it refuses, and in which words.

use super::*;
use crate::gate::callers::Addresses;
use gate::GateArgs;

fn parse(args: &[&str]) -> Result<GateArgs, String> {
    let all = ["tokenward", "gate"].iter().chain(args);
    match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
        Command::Gate(args) => Ok(*args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let args = parse(&[]).expect("defaults");
    let second = Duration::from_secs(1);
    assert_eq!(args.http_listen.to_string(), "127.0.0.1:8181");
    assert_eq!(args.grpc_listen.to_string(), "127.0.0.1:8182");
    assert_eq!(args.admin_listen.to_string(), "127.0.0.1:8081");
    assert_eq!((args.token_prefix.as_str(), args.namespaces.0.len()), ("twd", 0));
    assert_eq!((args.deny_when_stale_for, args.trusted_proxies), (None, 0));
    assert_eq!(Addresses::from(args.caller_addresses), Addresses::Full);
    assert!(args.introspect_callers.0.is_empty() && args.tls_cert.is_none());
    assert_eq!(args.introspect_audience, "tokenward-introspect");
    assert_eq!(args.ledger_audience, "tokenward-ledger");
    assert_eq!(args.ledger_token_file.to_str(), Some("/var/run/secrets/tokenward/ledger/token"));
    assert_eq!((args.ledger_flush, args.shutdown_grace), (second, second * 10));
    assert_eq!((args.lease_name.as_str(), args.max_connections), ("tokenward", 4_096));
}

#[test]
fn what_cannot_be_used_is_refused_with_what_to_write() {
    for (args, wanted) in [
        (&["--deny-when-stale-for=60s"][..], "write 1m30s to 720h"),
        (&["--caller-addresses=some"], "[possible values: full, truncated, none]"),
        (&["--trusted-proxies=-1"], "0..=32"),
        (&["--introspect-callers=shop"], "write NAMESPACE/NAME"),
        (&["--ledger-flush=1ms"], "write 100ms to 1m"),
        (&["--max-connections=0"], "1..=1000000"),
        (&["--tls-cert=a"], "--tls-key"),
        (&["--tls-key=a"], "--tls-cert"),
        (&["--identity=a b"], "without spaces"),
        (&["--http-listen=8181"], "invalid"),
    ] {
        let message = parse(args).expect_err(wanted);
        assert!(message.contains(wanted), "{args:?}: {message}");
    }
    let args = parse(&["--deny-when-stale-for=90s", "--caller-addresses=truncated"]).expect("valid");
    assert_eq!(args.deny_when_stale_for, Some(Duration::from_secs(90)));
    assert_eq!(Addresses::from(args.caller_addresses), Addresses::Truncated);
}
