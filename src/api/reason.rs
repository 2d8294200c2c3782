//! The one source of condition reasons, event reasons and `reason` metric labels.

use std::fmt;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// Every value, for tables and for metrics that start at zero.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word as it stands in conditions, events and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant)),+ }
            }

            /// The value whose word this is; `None` for words that this version does not know.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
    };
}

words! {
    /// Why something happened, or does not happen. CamelCase, as the Kubernetes API conventions ask.
    Reason {
        // Why a credential was minted.
        /// The first credential of an ApiToken.
        Issued,
        /// The rotation interval elapsed or the schedule fired.
        Due,
        /// `tokenward.dev/rotate-requested-at` changed.
        Requested,
        /// `tokenward.dev/compromised-at` changed.
        Compromised,
        /// The Secret was gone; nobody else holds the value, so it cannot be restored.
        SecretLost,
        /// The Secret's value was changed by somebody else.
        SecretAltered,
        /// The expiry was extended after it had ended every credential.
        Revived,

        // What else changed.
        /// A credential proved to be in the Secret was entered in a status that had lost it.
        Adopted,
        /// The Secret's labels, annotations, key or template keys were written anew around the same credential.
        Redelivered,
        /// A superseded credential reached its deadline, or was retired on request.
        Retired,
        /// Credentials were in the status that this operator cannot have put there.
        StatusAltered,

        // States of `Ready`, `Reconciling`, `Stalled`.
        /// The Secret holds a valid credential.
        Delivered,
        /// The first credential is on its way into the Secret.
        Issuing,
        /// A successor is on its way into the Secret.
        Rotating,
        /// `spec.suspend` is true: gates refuse every credential.
        Suspended,
        /// `spec.expiry` has passed.
        Expired,
        /// The expiry is near.
        ExpiresSoon,
        /// A Secret of this name exists that this ApiToken does not control.
        SecretConflict,
        /// The API server refused the Secret as invalid.
        SecretRejected,
        /// RBAC or an admission policy forbids writing the Secret.
        SecretForbidden,
        /// A resource quota of the namespace is used up.
        QuotaExceeded,
        /// The namespace is being deleted: nothing can be created in it.
        NamespaceTerminating,
        /// The API server did not answer, or not in time.
        ApiUnavailable,
        /// `spec.secret.template` does not render.
        TemplateInvalid,
        /// `spec.rotation` cannot be understood.
        RotationInvalid,
        /// `spec.expiry` cannot be understood.
        ExpiryInvalid,

        // States of `OwnerResolved`.
        /// An owner was found on the ApiToken.
        FoundOnToken,
        /// An owner was found on the Namespace.
        FoundOnNamespace,
        /// The installation's default owner stands in.
        DefaultOwner,
        /// No owner was found anywhere.
        NoOwner,
    }
}

words! {
    /// The one word of the HEALTH column.
    Health {
        /// The Secret holds a valid credential and nothing is wrong.
        Healthy,
        /// The first credential is being delivered.
        Issuing,
        /// A successor is being delivered; the current credential works.
        Rotating,
        /// Valid, but the expiry is near.
        Expiring,
        /// Past its expiry: every credential is refused.
        Expired,
        /// Refused by `spec.suspend`.
        Suspended,
        /// Something keeps the declared state from being reached; the conditions say what.
        Blocked,
    }
}
