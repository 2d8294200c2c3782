//! What is accepted, what is refused, and in which words.

use super::*;
use clap::CommandFactory;

fn parse(args: &[&str]) -> Result<ControllerArgs, String> {
    let all = ["tokenward", "controller"].iter().chain(args);
    match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
        Command::Controller(args) => Ok(*args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn clap_finds_the_definition_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let args = parse(&[]).expect("defaults");
    let second = Duration::from_secs(1);
    assert_eq!(args.admin_listen.to_string(), "127.0.0.1:8080");
    assert_eq!(args.namespaces, Namespaces::default());
    assert_eq!(args.token_prefix.as_str(), "twd");
    assert_eq!(args.owner_keys.0, ["tokenward.dev/owner", "team", "owner"]);
    assert_eq!(args.contact_keys.0, ["tokenward.dev/contact", "contact"]);
    assert!(args.per_token_metrics && args.leader_elect);
    assert_eq!((args.concurrency, args.request_timeout, args.resync), (32, second * 10, second * 43_200));
    assert_eq!(
        (args.lease_duration, args.lease_renew_deadline, args.lease_retry_period),
        (second * 15, second * 10, second)
    );
    assert_eq!((args.lease_name.as_str(), args.shutdown_grace), ("tokenward", second * 10));
    let checked = args.check().expect("coherent");
    assert_eq!(checked.settings.ownership, OwnershipRules::default(), "both places say the same");
}

#[test]
fn every_setting_has_a_twin_in_the_environment_and_help() {
    let cli = Cli::command();
    let role = |name| cli.find_subcommand(name).expect("there").get_arguments();
    for arg in cli.get_arguments().chain(role("controller")).chain(role("gate")).chain(role("crds")) {
        let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
        let twin = format!("TOKENWARD_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(twin.as_str()), "--{long}");
        assert!(arg.get_help().is_some_and(|help| help.to_string().len() > 20), "--{long}");
    }
}

#[test]
fn what_secrets_may_be_is_read_by_the_controller_and_by_who_prints_the_definitions() {
    let flags =
        ["--secret-types=kubernetes.io/tls", "--secret-names=a-kubeconfig", "--secret-keys=helm.sh/chart"];
    let wanted = crate::api::meaning::Allowed {
        types: vec!["kubernetes.io/tls".into()],
        names: vec!["a-kubeconfig".into()],
        keys: vec!["helm.sh/chart".into()],
    };
    let args = parse(&flags).expect("read");
    assert_eq!(args.check().expect("coherent").settings.allowed, wanted);
    let all = ["tokenward", "crds"].iter().chain(&flags);
    match Cli::try_parse_from(all).expect("read").command {
        Command::Crds(secrets) => assert_eq!(secrets.allowed(), wanted),
        other => panic!("{other:?}"),
    }
    assert_eq!(parse(&[]).expect("defaults").secrets.allowed(), Default::default());
    let refused = parse(&["--secret-types=helm.sh/release.v1"]).expect_err("never");
    assert!(refused.contains("cannot be allowed"), "{refused}");
}

#[test]
fn switches_and_lists_are_read() {
    let args = parse(&[
        "--per-token-metrics=false",
        "--leader-elect",
        "false",
        "--namespaces=shop,billing",
        "--metric-labels=team,cost-center",
        "--default-owner",
        "",
        "--token-prefix=acme_live",
        "--admin-listen=[::]:9090",
    ])
    .expect("valid");
    assert!(!args.per_token_metrics && !args.leader_elect);
    assert_eq!(args.namespaces.0, ["shop", "billing"]);
    let checked = args.check().expect("coherent");
    assert_eq!(checked.labels.keys(), ["team", "cost-center"]);
    assert_eq!(checked.settings.ownership.default_owner, None, "an empty owner is none");
    assert_eq!(checked.settings.prefix.as_str(), "acme_live");
}

#[test]
fn what_cannot_be_used_is_refused_with_what_to_write() {
    for (args, wanted) in [
        (&["--request-timeout=10"][..], "as in 10s"),
        (&["--request-timeout=1ms"], "write 100ms to 5m"),
        (&["--resync=25h"], "write 1m to 24h"),
        (&["--lease-duration=1.5m"], "write whole numbers"),
        (&["--concurrency=0"], "1..=64"),
        (&["--concurrency=65"], "1..=64"),
        (&["--token-prefix=Twd"], "lower-case letters"),
        (&["--namespaces=Shop"], "\"Shop\" is not a namespace"),
        (&["--owner-keys=a b"], "is not a label key"),
        (&["--lease-name=Nope_"], "not a name for a Lease"),
        (&["--lease-namespace=a.b"], "not a namespace"),
        (&["--admin-listen=8080"], "invalid"),
        (&["--leader-elect=maybe"], "true, false"),
    ] {
        let message = parse(args).expect_err(wanted);
        assert!(message.contains(wanted), "{args:?}: {message}");
    }
}

#[test]
fn times_that_contradict_each_other_name_their_flag() {
    let args = parse(&["--lease-renew-deadline=20s"]).expect("each by itself is fine");
    let message = args.check().expect_err("contradiction").to_string();
    assert!(message.starts_with("--lease-renew-deadline 20s must be shorter"), "{message}");
    let unused = parse(&["--lease-renew-deadline=20s", "--leader-elect=false"]).expect("parses");
    assert!(unused.check().is_ok(), "times that are not used are not checked");
    let clash = parse(&["--metric-labels=a-b,a.b"]).expect("parses").check().expect_err("clash");
    assert_eq!(clash.category(), "Labels");
}

#[test]
fn the_version_names_the_revision() {
    let message = Cli::try_parse_from(["tokenward", "--version"]).expect_err("shown").to_string();
    assert_eq!(message, format!("tokenward {} (revision {})\n", crate::VERSION, crate::REVISION));
}
