//! The protocol between gates and the ledger: gRPC `tokenward.ledger.v1.Ledger/Report`.
//!
//! A gate *seals* what it has counted about a token under a number of its own and sends that until the ledger says that it
//! is settled: persisted, or refused for good. The ledger applies a sealed number once. What is counted meanwhile
//! waits, so a gate holds few sets of counts per token, however long the ledger is away. What waits travels ahead, as it
//! stands at each flush, under the number that it will be sealed with: should the gate die, that is what the ledger counts.
//!
//! All times are Unix seconds. Strings are cut by the gate to the lengths given here; the ledger refuses longer ones.

/// The gRPC method.
pub const METHOD: &str = "/tokenward.ledger.v1.Ledger/Report";
/// Most entries in each list of a report; what is left over goes into the next.
pub const MAX_ENTRIES: usize = 2_000;
/// Most of anything in one sealed set: more is no count.
pub const MAX_COUNT: u64 = 1_000_000_000;
/// Most callers of one credential in one sealed set.
pub const MAX_CALLERS: usize = 16;
/// Most refused callers of one credential in one sealed set, who proved to hold it.
pub const MAX_REFUSED: usize = 16;
/// Most who did not. Anybody can be one of them, so there are few.
pub const MAX_UNPROVED: usize = 4;
/// Most scopes in one sealed set.
pub const MAX_SCOPES: usize = 32;
/// Most bytes of a gate's name.
pub const MAX_GATE: usize = 128;
/// Most bytes of a principal.
pub const MAX_PRINCIPAL: usize = 200;
/// Most bytes of a user agent.
pub const MAX_USER_AGENT: usize = 128;
/// Most bytes of a scope.
pub const MAX_SCOPE: usize = 128;

/// What one gate has to say. Also sent with nothing in it, as a sign of life.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Report {
    /// The gate's name: its pod, or what `--identity` says.
    #[prost(string, tag = "1")]
    pub gate: String,
    /// When the process started, Unix milliseconds: a restarted gate counts anew.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Grows with each report of this epoch.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// Since when the gate has answered with a complete index.
    #[prost(int64, tag = "4")]
    pub observing_since: i64,
    /// The gate is leaving: its silence is no gap.
    #[prost(bool, tag = "5")]
    pub leaving: bool,
    /// Sealed counts that this ledger has not settled.
    #[prost(message, repeated, tag = "6")]
    pub sealed: Vec<Sealed>,
    /// Open sets as they stand, under the numbers that they will be sealed with. What they count is taken over only if the
    /// gate dies, and not at all under the number 0; when credentials were used is believed at once.
    #[prost(message, repeated, tag = "7")]
    pub open: Vec<Sealed>,
    /// There is more than fits into this report, or than may travel now: the ledger does not know of every use yet.
    #[prost(bool, tag = "8")]
    pub more: bool,
}

/// Counts of one token, never changed once sealed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sealed {
    /// uid of the ApiToken.
    #[prost(string, tag = "1")]
    pub token: String,
    /// Grows with each sealed set of this epoch, over all tokens.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// By credential.
    #[prost(message, repeated, tag = "3")]
    pub credentials: Vec<CredentialUse>,
    /// Scopes that accepted requests needed.
    #[prost(message, repeated, tag = "4")]
    pub scopes: Vec<ScopeUse>,
}

impl Sealed {
    /// Answers of all credentials.
    pub fn answers(&self) -> u64 {
        CredentialUse::answers_of_all(&self.credentials)
    }
}

/// Counts of one credential.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CredentialUse {
    /// The credential id.
    #[prost(string, tag = "1")]
    pub credential: String,
    /// Answers by outcome, each outcome once.
    #[prost(message, repeated, tag = "2")]
    pub outcomes: Vec<OutcomeCount>,
    /// First accepted request in this set; 0 if none was accepted.
    #[prost(int64, tag = "3")]
    pub first_used: i64,
    /// Last accepted request in this set; 0 if none was accepted.
    #[prost(int64, tag = "4")]
    pub last_used: i64,
    /// The callers that sent most (Space-Saving: whoever sent more than a 16th of the requests is among them).
    #[prost(message, repeated, tag = "5")]
    pub callers: Vec<CallerUse>,
    /// Who was refused although they hold the credential, for instance because it has ended.
    #[prost(message, repeated, tag = "6")]
    pub refused: Vec<CallerUse>,
    /// Who was refused and did not prove to hold it.
    #[prost(message, repeated, tag = "7")]
    pub unproved: Vec<CallerUse>,
}

impl CredentialUse {
    /// Answers of all outcomes.
    pub fn answers(&self) -> u64 {
        self.outcomes.iter().fold(0, |sum, counted| sum.saturating_add(counted.count))
    }

    /// The same, of several credentials.
    pub fn answers_of_all(credentials: &[Self]) -> u64 {
        credentials.iter().map(Self::answers).fold(0, u64::saturating_add)
    }
}

/// Answers of one outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutcomeCount {
    /// Position in [`crate::api::Outcome::ALL`].
    #[prost(uint32, tag = "1")]
    pub outcome: u32,
    /// How many.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// Requests of one caller that had one outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CallerUse {
    /// Address, truncated as `--caller-addresses` asks; empty if unknown or unwanted.
    #[prost(string, tag = "1")]
    pub address: String,
    /// mTLS principal, such as `spiffe://cluster.local/ns/shop/sa/web`; empty if unknown.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// User agent; empty if none.
    #[prost(string, tag = "3")]
    pub user_agent: String,
    /// Requests, at most `error` too many.
    #[prost(uint64, tag = "4")]
    pub count: u64,
    /// How much too high `count` may be.
    #[prost(uint64, tag = "5")]
    pub error: u64,
    /// First request in this set.
    #[prost(int64, tag = "6")]
    pub first_seen: i64,
    /// Last request in this set.
    #[prost(int64, tag = "7")]
    pub last_seen: i64,
    /// Position in [`crate::api::Outcome::ALL`]; 0 is `Accepted`.
    #[prost(uint32, tag = "8")]
    pub outcome: u32,
}

/// Accepted requests that needed a scope.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeUse {
    /// The scope.
    #[prost(string, tag = "1")]
    pub scope: String,
    /// How many.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// The ledger's answer to a [`Report`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Receipt {
    /// Sealed sets that the gate may forget.
    #[prost(message, repeated, tag = "1")]
    pub settled: Vec<Settled>,
}

/// A sealed set that is persisted, or refused for good.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Settled {
    /// uid of the ApiToken.
    #[prost(string, tag = "1")]
    pub token: String,
    /// [`Sealed::sequence`].
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// Why it was refused, a word of [`Refused`]; empty if it is persisted.
    #[prost(string, tag = "3")]
    pub refused: String,
}

/// Why something in a report is not counted: [`Settled::refused`], and the `reason` of metrics on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refused {
    /// No ApiToken has this uid.
    UnknownToken,
    /// The ApiToken has no credential of this id, living or ended.
    UnknownCredential,
    /// An outcome that this version does not know; the rest of the set counts.
    UnknownOutcome,
    /// It contradicts itself or the protocol.
    Malformed,
    /// Counts that cannot be.
    AbsurdCount,
    /// It happened later than now. Counted once its time has come, unless that is a day away.
    InTheFuture,
    /// It happened more than 31 days ago.
    TooOld,
    /// A lower sequence than one that the same process sealed before.
    Backwards,
    /// More sealed sets of one token than a sound gate has; it sends the rest again.
    TooMuch,
}

impl Refused {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 9] = [
        Self::UnknownToken,
        Self::UnknownCredential,
        Self::UnknownOutcome,
        Self::Malformed,
        Self::AbsurdCount,
        Self::InTheFuture,
        Self::TooOld,
        Self::Backwards,
        Self::TooMuch,
    ];

    /// A bounded word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownToken => "UnknownToken",
            Self::UnknownCredential => "UnknownCredential",
            Self::UnknownOutcome => "UnknownOutcome",
            Self::Malformed => "Malformed",
            Self::AbsurdCount => "AbsurdCount",
            Self::InTheFuture => "InTheFuture",
            Self::TooOld => "TooOld",
            Self::Backwards => "Backwards",
            Self::TooMuch => "TooMuch",
        }
    }
}
