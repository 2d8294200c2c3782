//! Settings of the controller's ledger.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::between;
use crate::ledger::Pace;
use crate::runtime::lists::{ServiceAccounts, is_dns_name};

/// Settings of the ledger.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Where gates report the use of tokens, over gRPC and TLS [default: nowhere; use is then not judged]
    #[arg(long, env = "TOKENWARD_LEDGER_LISTEN", value_name = "ADDRESS:PORT")]
    pub ledger_listen: Option<SocketAddr>,

    /// Where gates find it, as noted on the Lease [default: $POD_IP and its port, or the address itself]
    #[arg(long, env = "TOKENWARD_LEDGER_ADVERTISE", value_name = "HOST:PORT", value_parser = advertised)]
    pub ledger_advertise: Option<String>,

    /// ServiceAccounts that may report
    #[arg(
        long,
        env = "TOKENWARD_LEDGER_GATES",
        default_value = "",
        hide_default_value = true,
        value_name = "NAMESPACE/NAME,…"
    )]
    pub ledger_gates: ServiceAccounts,

    /// Audience that their tokens must be for
    #[arg(
        long,
        env = "TOKENWARD_LEDGER_AUDIENCE",
        default_value = "tokenward-ledger",
        value_name = "AUDIENCE"
    )]
    pub ledger_audience: String,

    /// Writes a second of what nobody waits for, from 1 to 1000: use, and whatever else changes in a status by itself
    #[arg(long, env = "TOKENWARD_USAGE_WRITES_PER_SECOND", default_value_t = 10, value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub usage_writes_per_second: u32,

    /// Longest pause between two writes of a busy token's use, from 1s to 24h
    #[arg(long, env = "TOKENWARD_USAGE_INTERVAL", default_value = "5m", value_name = "DURATION",
        value_parser = |text: &str| between(text, Duration::from_secs(1), Duration::from_secs(86_400)))]
    pub usage_interval: Duration,
}

/// Settings of the ledger that cannot be used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerArgsError {
    /// Gates could not find it.
    #[error("gates find the ledger through the Lease: --ledger-listen needs --leader-elect=true")]
    NoLease,
    /// Nobody could use it.
    #[error(
        "nobody may report: --ledger-listen needs --ledger-gates, such as tokenward-system/tokenward-gate"
    )]
    NoGates,
}

impl LedgerArgs {
    /// Checks what the parser cannot.
    pub fn check(&self, leader_elect: bool) -> Result<(), LedgerArgsError> {
        match self.ledger_listen {
            Some(_) if !leader_elect => Err(LedgerArgsError::NoLease),
            Some(_) if self.ledger_gates.0.is_empty() => Err(LedgerArgsError::NoGates),
            _ => Ok(()),
        }
    }

    /// How often use may be written.
    pub fn pace(&self) -> Pace {
        Pace { writes_per_second: self.usage_writes_per_second, interval: self.usage_interval }
    }
}

fn advertised(text: &str) -> Result<String, String> {
    let host = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    let known = |host: &str| {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        literal.map_or_else(|| is_dns_name(host), |host| host.parse::<std::net::Ipv6Addr>().is_ok())
    };
    match host {
        Some((host, _)) if known(host) => Ok(text.to_owned()),
        _ => {
            Err("not where a ledger is found: write HOST:PORT, as in 10.0.0.7:8183 or [fd00::7]:8183"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser as _;

    fn args(flags: &[&str]) -> Result<LedgerArgs, clap::Error> {
        let all = ["tokenward", "controller"].iter().chain(flags);
        match Cli::try_parse_from(all)?.command {
            Command::Controller(args) => Ok(args.ledger),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_listener_there_is_no_ledger() {
        let args = args(&[]).unwrap();
        assert_eq!((args.ledger_listen, args.pace()), (None, Pace::default()));
        assert_eq!(args.check(false), Ok(()));
    }

    #[test]
    fn a_listener_needs_a_lease_and_somebody_who_may_report() {
        let listen = ["--ledger-listen", "127.0.0.1:8183"];
        let alone = args(&listen).unwrap();
        assert_eq!(alone.check(false), Err(LedgerArgsError::NoLease));
        assert_eq!(alone.check(true), Err(LedgerArgsError::NoGates));
        let both =
            args(&[&listen[..], &["--ledger-gates", "tokenward-system/tokenward-gate"]].concat()).unwrap();
        assert_eq!(both.check(true), Ok(()));
    }

    #[test]
    fn where_it_is_found_is_a_host_and_a_port() {
        for right in ["10.0.0.7:8183", "ledger.tokenward-system.svc:1", "[fd00::7]:8183"] {
            assert!(args(&["--ledger-advertise", right]).is_ok(), "{right}");
        }
        for wrong in ["10.0.0.7", ":8183", "host:0", "host:port", "fd00::7:8183", "a b:1"] {
            assert!(args(&["--ledger-advertise", wrong]).is_err(), "{wrong}");
        }
        for (flag, wrong) in [("--usage-writes-per-second", "0"), ("--usage-interval", "500ms")] {
            assert!(args(&[flag, wrong]).is_err(), "{flag}");
        }
    }
}
