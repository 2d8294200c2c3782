//! Label and annotation keys, all under the project's own domain.

/// Field manager of every server-side apply, and the value of [`MANAGED_BY`].
pub const FIELD_MANAGER: &str = "tokenward";

/// Label that marks the Secrets this operator writes, for people and their tools. Others may claim it for themselves.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Request annotation on an ApiToken: a new value rotates, with overlap.
pub const ROTATE_REQUESTED_AT: &str = "tokenward.dev/rotate-requested-at";
/// Request annotation on an ApiToken: a new value ends every credential at once and issues a new one.
pub const COMPROMISED_AT: &str = "tokenward.dev/compromised-at";
/// Request annotation on an ApiToken: a new value ends the superseded credentials before their deadline.
pub const RETIRE_NOW_AT: &str = "tokenward.dev/retire-now-at";

/// The request annotations.
pub const REQUESTS: [&str; 3] = [ROTATE_REQUESTED_AT, RETIRE_NOW_AT, COMPROMISED_AT];

/// Request annotation on an ApiToken: the uid of the Secret of its name, which nobody controls, to be taken over with the
/// credential that it holds. Counts once.
pub const ADOPT: &str = "tokenward.dev/adopt";

/// Secret annotation: the owner's name; also the first key looked up when the owner is resolved.
pub const OWNER: &str = "tokenward.dev/owner";
/// Secret annotation: how to reach the owner.
pub const CONTACT: &str = "tokenward.dev/contact";
/// Secret label and annotation: the name of the ApiToken that the Secret belongs to. The Secret watch selects whatever has
/// the label.
pub const TOKEN: &str = "tokenward.dev/token";
/// Secret annotation: id of the credential that the Secret holds. Not secret.
pub const CREDENTIAL: &str = "tokenward.dev/credential";
/// Secret annotation: when that credential was issued, RFC 3339.
pub const ISSUED_AT: &str = "tokenward.dev/issued-at";

/// Annotation of the CustomResourceDefinition, and of an ApiToken that was put together with this crate: the schema's version.
pub const SCHEMA: &str = "tokenward.dev/schema";

/// Lease annotation: where the leader's ledger listens, `host:port`.
pub const LEDGER_ADDRESS: &str = "tokenward.dev/ledger-address";
/// Lease annotation: SHA-256 of the ledger's certificate (DER) in hex. Gates pin it.
pub const LEDGER_SHA256: &str = "tokenward.dev/ledger-sha256";
/// Lease annotation: since when gates have watched, as JSON (`domain::coverage`).
pub const COVERAGE: &str = "tokenward.dev/coverage";

/// The one entry of `spec.audiences` or `spec.scopes` that stands for every other. Beside others it is a word like them.
pub const EVERY: &str = "*";
/// Every scope with this prefix gives a right on the gate itself, and has to be named to be had.
pub const OWN_SCOPES: &str = "tokenward:";
/// Scope that lets a token ask about other tokens at `/introspect`.
pub const INTROSPECT_SCOPE: &str = "tokenward:introspect";

/// Every key with this prefix on a Secret is ours. On an ApiToken, nobody else's.
pub const OWN_PREFIX: &str = "tokenward.dev/";
