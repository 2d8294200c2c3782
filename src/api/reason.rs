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
        /// A superseded credential was retired before its deadline because nobody used it any more.
        RetiredUnused,
        /// A superseded credential was retired before its deadline because too many lived at once.
        TooManyCredentials,
        /// `spec.suspend` is false again: gates accept the token.
        Resumed,
        /// A request was honoured whose value is no time: the same value asks for nothing again.
        ValueUsedUp,
        /// An annotation looks like a request and asks for nothing.
        UnknownAnnotation,

        // States of `Ready`, `Delivered`, `Reconciling`, `Stalled`.
        /// The Secret holds a valid credential, and what is declared is in force.
        Delivered,
        /// What is declared of the Secret is on its way into it, around the credential that it holds.
        Delivering,
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
        /// `spec.secret` asks for a type, a name, a label or an annotation by which others would act on the Secret.
        SecretNotAllowed,
        /// The ApiToken is deleted and kept by finalizers: gates refuse it.
        Deleting,
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

        // States of `SecretMutated`.
        /// An admission webhook or policy changed labels or annotations of the Secret as it was written.
        MetadataMutated,
        /// An admission webhook or policy changed data of the Secret as it was written.
        DataMutated,

        // States of `OwnerResolved`.
        /// An owner was found on the ApiToken.
        FoundOnToken,
        /// An owner was found on the Namespace.
        FoundOnNamespace,
        /// The installation's default owner stands in.
        DefaultOwner,
        /// No owner was found anywhere.
        NoOwner,

        // States of `InUse`, `Idle` and `SupersededInUse`.
        /// A gate accepted the token lately.
        InUse,
        /// No gate has ever accepted the token, and one has watched since it was issued.
        NeverUsed,
        /// No gate has accepted the token for `spec.idle.after`.
        Idle,
        /// No gate reports: nothing can be said about use.
        NoGate,
        /// Gates have not watched for long enough, or not without a gap.
        NotObserved,
        /// A superseded credential is still used although its deadline is near.
        SupersededInUse,
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
        /// Valid, and a gate accepted it lately.
        InUse,
        /// Valid, and no gate has ever accepted it.
        NeverUsed,
        /// Valid, and not used for `spec.idle.after`.
        Idle,
        /// Valid; whether it is used cannot be said, because no gate watches or none has for long enough.
        Unknown,
    }
}

words! {
    /// What a gate answers to one request, and why. Also the metric label `outcome` and a key of
    /// `TokenUsage.status.outcomes`.
    Outcome {
        /// It may pass.
        Accepted,

        // Denied before any token is known.
        /// No credential was sent.
        Missing,
        /// Several credentials were sent.
        Conflicting,
        /// What was sent has not the form of a token, or is too long.
        Malformed,
        /// The form fits, the checksum does not.
        BadChecksum,
        /// A proper token of another installation's prefix.
        ForeignPrefix,
        /// A proper token whose credential id nobody knows.
        UnknownCredential,
        /// The route's demand cannot be understood: a mistake in the proxy's configuration.
        Misrouted,
        /// The gate has not loaded its index yet.
        NotReady,
        /// The gate has not heard from the API server for `--deny-when-stale-for`.
        Stale,

        // Denied for a token that is known.
        /// The credential id is known, the rest of the token is wrong.
        WrongSecret,
        /// The credential has ended: retired, revoked, expired or abandoned.
        Ended,
        /// The credential's deadline has passed.
        Overdue,
        /// `spec.suspend` is true.
        Suspended,
        /// Declared compromised, and the controller has not caught up yet.
        Compromised,
        /// `spec.expiry` has passed.
        Expired,
        /// The ApiToken cannot be understood by this gate.
        Unreadable,
        /// The token is not for the audience that the route demands.
        WrongAudience,
        /// The token lacks a scope that the route demands.
        MissingScope,
    }
}

impl Outcome {
    /// The value at this position of [`Outcome::ALL`], as it travels between gate and ledger.
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(index).ok()?).copied()
    }

    /// Refused to somebody who holds the credential. The others are about credentials that nobody proved to hold: an id is
    /// public, and anybody can send one.
    pub const fn is_proved_refusal(self) -> bool {
        matches!(
            self,
            Self::Ended
                | Self::Overdue
                | Self::Suspended
                | Self::Compromised
                | Self::Expired
                | Self::WrongAudience
                | Self::MissingScope
        )
    }

    /// Its position in [`Outcome::ALL`].
    pub const fn index(self) -> u32 {
        self as u32
    }
}
