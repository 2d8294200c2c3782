//! Label and annotation keys, all under the project's own domain.

/// Field manager of every server-side apply, and the value of [`MANAGED_BY`].
pub const FIELD_MANAGER: &str = "tokenward";

/// Label that marks the Secrets this operator writes; the Secret watch selects on it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Request annotation on an ApiToken: a new value rotates, with overlap.
pub const ROTATE_REQUESTED_AT: &str = "tokenward.dev/rotate-requested-at";
/// Request annotation on an ApiToken: a new value ends every credential at once and issues a new one.
pub const COMPROMISED_AT: &str = "tokenward.dev/compromised-at";
/// Request annotation on an ApiToken: a new value ends the superseded credentials before their deadline.
pub const RETIRE_NOW_AT: &str = "tokenward.dev/retire-now-at";

/// Secret annotation: the owner's name; also the first key looked up when the owner is resolved.
pub const OWNER: &str = "tokenward.dev/owner";
/// Secret annotation: how to reach the owner.
pub const CONTACT: &str = "tokenward.dev/contact";
/// Secret label and annotation: the name of the ApiToken that the Secret belongs to.
pub const TOKEN: &str = "tokenward.dev/token";
/// Secret annotation: id of the credential that the Secret holds. Not secret.
pub const CREDENTIAL: &str = "tokenward.dev/credential";
/// Secret annotation: when that credential was issued, RFC 3339.
pub const ISSUED_AT: &str = "tokenward.dev/issued-at";

/// Every key with this prefix on a Secret is ours.
pub const OWN_PREFIX: &str = "tokenward.dev/";
