//! The words that conditions, events, metrics and gates speak with.

use std::fmt::Write as _;

use crate::api::meaning::{FREE_KEYS, KEYS, NAMES, NEVER_TYPES, TYPES};
use crate::api::{ConditionType, Health, Outcome, Reason, keys};

/// Annotations, conditions, reasons, healths, outcomes.
pub(super) fn write(text: &mut String) {
    text.push_str("# Words\n\n");
    annotations(text);
    meanings(text);
    conditions(text);
    reasons(text);
    healths(text);
    outcomes(text);
}

fn annotations(text: &mut String) {
    text.push_str(
        "## Requests\n\n\
         Annotations on an ApiToken ask for something once. Any new value counts, such as the current time; it is compared with\n\
         `status.lastHandled`, so that nothing happens twice. The first 128 bytes of a value count.\n\n\
         | annotation | what it asks for |\n|---|---|\n",
    );
    for (key, meaning) in [
        (
            keys::ROTATE_REQUESTED_AT,
            "A new credential now. The superseded one stays valid for `spec.rotation.overlap`",
        ),
        (
            keys::COMPROMISED_AT,
            "The end of every credential at once, without overlap, and a new one. While the token is suspended or expired, \
             the end alone",
        ),
        (keys::RETIRE_NOW_AT, "The end of the superseded credentials before their deadline"),
        (
            keys::ADOPT,
            "Taking over the Secret of its name, with the credential that it holds: the value is the Secret's uid. See \
             [Restore from a backup](operations.md#restore-from-a-backup)",
        ),
    ] {
        let _ = writeln!(text, "| `{key}` | {meaning} |");
    }
    text.push_str(
        "\n## What the Secret carries\n\n\
         Beside `spec.secret.labels` and `spec.secret.annotations`:\n\n\
         | key | kind | meaning |\n|---|---|---|\n",
    );
    for (key, kind, meaning) in [
        (keys::MANAGED_BY, "label", "Always `tokenward`"),
        (
            keys::TOKEN,
            "label, annotation",
            "Name of the ApiToken; the controller watches the Secrets that have the label",
        ),
        (keys::CREDENTIAL, "annotation", "Id of the credential that the Secret holds; not secret"),
        (keys::ISSUED_AT, "annotation", "When that credential was issued, RFC 3339"),
        (keys::OWNER, "annotation", "The owner's name, if there is an owner"),
        (keys::CONTACT, "annotation", "How to reach them, if that is known"),
    ] {
        let _ = writeln!(text, "| `{key}` | {kind} | {meaning} |");
    }
    text.push('\n');
}

fn meanings(text: &mut String) {
    let listed = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        text,
        "## What a Secret must not mean\n\n\
         The operator writes Secrets with its own rights, so it writes none that Kubernetes or another tool would act on. Types\n\
         are {}; more with `--secret-types`, but never {}. Names, and keys of labels and annotations, are free but for those\n\
         below; `--secret-names` and `--secret-keys` allow single ones. Free under `kubernetes.io` are {}.\n\n\
         | label or annotation | what it does | source |\n|---|---|---|",
        listed(TYPES),
        listed(NEVER_TYPES),
        listed(FREE_KEYS)
    );
    for row in KEYS {
        let _ = writeln!(text, "| `{}` | {} | <{}> |", row.what, row.meaning, row.source);
    }
    text.push_str("\n| name | what it does | source |\n|---|---|---|\n");
    for row in NAMES {
        let _ = writeln!(text, "| `{}` | {} | <{}> |", row.what, row.meaning, row.source);
    }
    text.push('\n');
}

fn conditions(text: &mut String) {
    text.push_str(
        "## Conditions\n\n\
         `Ready`, `Delivered` and `OwnerResolved` are always present once the controller has seen the object, `InUse` while a\n\
         ledger listens, once the first credential was issued.\n\
         The others are present only while they are `True`, as kstatus wants it. Only `InUse` is ever `Unknown`.\n\
         `lastTransitionTime` moves only when the status does. Conditions of other types are left as they are.\n\n\
         | type | meaning while `True` |\n|---|---|\n",
    );
    for kind in ConditionType::ALL {
        let _ = writeln!(text, "| `{}` | {} |", kind.as_str(), condition(kind));
    }
    text.push('\n');
}

fn condition(kind: ConditionType) -> &'static str {
    match kind {
        ConditionType::Ready => {
            "What this generation declares is in force: it was understood, stands in the Secret, and nothing keeps it from \
             being carried out; and the Secret holds a credential that gates have to accept"
        }
        ConditionType::Delivered => {
            "The Secret holds a credential that gates have to accept, whatever was declared since"
        }
        ConditionType::Reconciling => "Work is under way, or will be tried again without your help",
        ConditionType::Stalled => "Nothing will change without you: the message says what to do",
        ConditionType::OwnerResolved => "Somebody answers for the token. `False` is not an error",
        ConditionType::Expiring => "The expiry is near: a tenth of the lifetime is left, at most 14 days",
        ConditionType::InUse => {
            "Gates accepted the token lately. `Unknown`: nobody has watched for long enough to say"
        }
        ConditionType::Idle => "Gates have watched the token unused for `spec.idle.after`",
        ConditionType::SupersededInUse => {
            "A superseded credential is still used although its deadline is near: the message names its callers"
        }
        ConditionType::SecretMutated => {
            "An admission webhook or policy changes the Secret as it is written: the message names the fields"
        }
        ConditionType::UnknownAnnotation => {
            "An annotation or label looks like a request and asks for nothing: the message names it and says what to write"
        }
    }
}

fn reasons(text: &mut String) {
    text.push_str(
        "## Reasons\n\n\
         The same words stand in conditions, in events, in `status.lastRotationReason` and in metrics. `R` marks why a\n\
         credential was issued: the value of `status.lastRotationReason`, of `status.credentials[].reason`, and of the label\n\
         `reason` of `tokenward_rotations_total`. A problem takes `Ready` away and gives it its reason; `Delivered` it takes away\n\
         only where the Secret holds no accepted credential.\n\n\
         | reason | R | conditions | event | meaning |\n|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let entry = entry(*reason);
        let rotation = if entry.rotation { "R" } else { "" };
        let _ = writeln!(
            text,
            "| `{reason}` | {rotation} | {} | {} | {} |",
            entry.conditions, entry.event, entry.meaning
        );
    }
    text.push('\n');
}

/// Where a reason is found, and what it says.
struct Entry {
    rotation: bool,
    conditions: &'static str,
    event: &'static str,
    meaning: &'static str,
}

fn entry(reason: Reason) -> Entry {
    const fn issue(conditions: &'static str, event: &'static str, meaning: &'static str) -> Entry {
        Entry { rotation: true, conditions, event, meaning }
    }
    const fn state(conditions: &'static str, event: &'static str, meaning: &'static str) -> Entry {
        Entry { rotation: false, conditions, event, meaning }
    }
    const LOST: &str = "`Ready=False`, `Delivered=False` until the successor is delivered";
    const NONE: &str = "`Reconciling`, `Ready=False`, `Delivered=False`";
    const OVER: &str = "`Stalled`, `Ready=False`, `Delivered=False`";
    const PASSING: &str = "`Reconciling`, `Ready=False`";
    const TERMINAL: &str = "`Stalled`, `Ready=False`";
    const OWNED: &str = "`OwnerResolved=True`";
    match reason {
        Reason::Issued => issue("", "Normal", "The first credential"),
        Reason::Due => issue("", "Normal", "The interval elapsed or the schedule fired"),
        Reason::Requested => issue("", "Normal", "`tokenward.dev/rotate-requested-at` changed"),
        Reason::Compromised => issue(LOST, "Warning", "`tokenward.dev/compromised-at` changed: no overlap"),
        Reason::SecretLost => issue(LOST, "Warning", "The Secret was gone; nobody else holds its value"),
        Reason::SecretAltered => issue(LOST, "Warning", "The Secret no longer holds the active credential"),
        Reason::Revived => issue("", "Normal", "The expiry was extended after it had ended every credential"),
        Reason::Adopted => issue(
            "",
            "Normal",
            "None was minted: the one in the Secret was entered, because the status had lost it, or because \
             `tokenward.dev/adopt` asks for it",
        ),
        Reason::Redelivered => state(
            "",
            "Normal",
            "What is declared of the Secret changed: it was written anew around the same credential",
        ),
        Reason::Retired => state("", "Normal", "Superseded credentials ended, by deadline or on request"),
        Reason::StatusAltered => issue(
            "",
            "Warning",
            "The status held credentials that did not come from here: they were removed or revoked",
        ),
        Reason::Delivered => {
            let conditions = "`Ready=True`, `Delivered=True`";
            let event = "Normal, at the end of a problem, or of what a Warning told the beginning of";
            state(conditions, event, "The Secret holds an accepted credential")
        }
        Reason::Delivering => state(
            PASSING,
            "",
            "What is declared of the Secret is on its way into it; the credential that it holds works",
        ),
        Reason::Issuing => state(NONE, "", "A credential is on its way into the Secret, which holds none"),
        Reason::Rotating => {
            state("`Reconciling`", "", "A successor is on its way; the present credential works")
        }
        Reason::Suspended => state(OVER, "Normal", "`spec.suspend` is true"),
        Reason::Expired => state(OVER, "Warning", "`spec.expiry` has passed: every credential has ended"),
        Reason::ExpiresSoon => state("`Expiring`", "Warning", "The expiry is near"),
        Reason::SecretConflict => state(
            OVER,
            "Warning",
            "A Secret of this name is not controlled by this ApiToken and is left alone; looked at again every 15 seconds",
        ),
        Reason::SecretRejected => state(
            TERMINAL,
            "Warning",
            "The API server refuses the Secret as invalid or too large; tried again",
        ),
        Reason::MetadataMutated => state(
            "`SecretMutated`",
            "Warning",
            "An admission webhook or policy changes labels or annotations of the Secret as it is written; the token works",
        ),
        Reason::DataMutated => state(
            "`SecretMutated`, `Ready=False`; `Stalled`, or `Reconciling` and `Delivered=False` if the token itself does not stand there",
            "Warning",
            "An admission webhook or policy changes data of the Secret as it is written",
        ),
        Reason::SecretForbidden => state(
            PASSING,
            "Warning",
            "RBAC or an admission policy forbids reading or writing the Secret; tried again",
        ),
        Reason::SecretNotAllowed => state(
            TERMINAL,
            "Warning",
            "`spec.secret` asks for a Secret that others would act on: nothing is written or minted",
        ),
        Reason::Deleting => state(
            OVER,
            "Normal",
            "The ApiToken is deleted, and finalizers keep it: gates refuse every credential",
        ),
        Reason::QuotaExceeded => {
            state(PASSING, "Warning", "A quota leaves no room for the Secret; tried again")
        }
        Reason::NamespaceTerminating => state(PASSING, "Warning", "The namespace is being deleted, or gone"),
        Reason::ApiUnavailable => state(
            "`Reconciling`; `Ready` as it was said of this generation",
            "Warning",
            "More than three calls about the Secret failed in a row; tried again",
        ),
        Reason::TemplateInvalid => state(TERMINAL, "Warning", "`spec.secret.template` does not render"),
        Reason::RotationInvalid => {
            state(TERMINAL, "Warning", "`spec.rotation` is not understood: nothing rotates by the clock")
        }
        Reason::ExpiryInvalid => state(
            TERMINAL,
            "Warning",
            "`spec.expiry` is not understood: nothing is issued, what was promised holds",
        ),
        Reason::FoundOnToken => state(OWNED, "", "The owner stands on the ApiToken"),
        Reason::FoundOnNamespace => state(OWNED, "", "The owner stands on the Namespace"),
        Reason::DefaultOwner => state(OWNED, "", "The installation's default owner stands in"),
        Reason::NoOwner => state("`OwnerResolved=False`", "", "No owner was found anywhere"),
        Reason::RetiredUnused => state(
            "",
            "Normal",
            "Superseded credentials ended before their deadline: `rotation.retire` is `WhenUnused` and nobody used them",
        ),
        Reason::TooManyCredentials => state(
            "",
            "Warning",
            "A superseded credential ended before its deadline, used or not: at most 12 live at once",
        ),
        Reason::Resumed => state("", "Normal", "`spec.suspend` is false again"),
        Reason::ValueUsedUp => state(
            "",
            "Normal",
            "A request was honoured whose value is likely to be written again, such as `now`: it would ask for nothing",
        ),
        Reason::UnknownAnnotation => state(
            "`UnknownAnnotation`",
            "Warning",
            "An annotation or label looks like a request and asks for nothing; the message says what to write",
        ),
        Reason::InUse => state("`InUse=True`", "Normal, after `Idle`", "Gates accepted the token lately"),
        Reason::NeverUsed => state(
            "`InUse=False`, `Idle` after `spec.idle.after`",
            "Normal, once idle",
            "No gate has ever accepted the token, and one has watched since it was issued",
        ),
        Reason::Idle => {
            state("`InUse=False`, `Idle`", "Normal", "Gates have watched it unused for `spec.idle.after`")
        }
        Reason::NoGate => state("`InUse=Unknown`", "", "No gate reports"),
        Reason::NotObserved => {
            state("`InUse=Unknown`", "", "Gates have not watched for long enough, or not without a gap")
        }
        Reason::SupersededInUse => state(
            "`SupersededInUse`",
            "Warning",
            "A superseded credential is still used although its deadline is near; the message names its callers",
        ),
    }
}

fn healths(text: &mut String) {
    text.push_str("## Health\n\n| word | meaning |\n|---|---|\n");
    for health in Health::ALL {
        let meaning = match health {
            Health::Healthy => "The Secret holds an accepted credential and nothing is wrong",
            Health::Issuing => "A credential is being delivered, and the Secret holds none",
            Health::Rotating => "A successor is being delivered; the present credential works",
            Health::Expiring => "Valid, but the expiry is near",
            Health::Expired => "Past its expiry",
            Health::Suspended => "Refused by `spec.suspend`",
            Health::Blocked => {
                "Something keeps the declared state from being reached; the conditions say what"
            }
            Health::InUse => "Valid, and gates accepted it lately",
            Health::NeverUsed => "Valid, watched since it was issued, and never used",
            Health::Idle => "Valid, and watched unused for `spec.idle.after`",
            Health::Unknown => "Valid; nobody has watched for long enough to say whether it is used",
        };
        let _ = writeln!(text, "| `{health}` | {meaning} |");
    }
    text.push('\n');
}

fn outcomes(text: &mut String) {
    text.push_str(
        "## Outcomes\n\n\
         What a gate answers to a request: the keys of `TokenUsage.status.outcomes` and the label `outcome` of\n\
         `tokenward_gate_requests_total`. The client is told no more than the answer.\n\n\
         | outcome | answer | counted per token | meaning |\n|---|---|---|---|\n",
    );
    for outcome in Outcome::ALL {
        let (answer, known, meaning) = outcome_entry(*outcome);
        let _ = writeln!(text, "| `{outcome}` | {answer} | {} | {meaning} |", if known { "yes" } else { "" });
    }
    text.push('\n');
}

/// What the client is told, whether a token is known, what it means.
fn outcome_entry(outcome: Outcome) -> (&'static str, bool, &'static str) {
    const INVALID: &str = "401 `invalid_token`";
    match outcome {
        Outcome::Accepted => ("200", true, "It may pass"),
        Outcome::Missing => ("401", false, "No credential was sent"),
        Outcome::Conflicting => (INVALID, false, "Several credentials were sent"),
        Outcome::Malformed => (INVALID, false, "What was sent has not the form of a token, or is too long"),
        Outcome::BadChecksum => (INVALID, false, "The form fits, the checksum does not: a typo, or a guess"),
        Outcome::ForeignPrefix => (INVALID, false, "A proper token of another installation's prefix"),
        Outcome::UnknownCredential => {
            (INVALID, false, "A proper token whose id nobody knows: deleted, or long ended")
        }
        Outcome::Misrouted => ("403", false, "The route's demand cannot be understood: see the gate's log"),
        Outcome::NotReady => ("403", false, "The gate has not loaded its index yet"),
        Outcome::Stale => {
            ("403", false, "The gate has not heard from the API server for `--deny-when-stale-for`")
        }
        Outcome::WrongSecret => (INVALID, true, "The id is known, the rest of the token is wrong"),
        Outcome::Ended => (INVALID, true, "The credential has ended: retired, revoked, expired or abandoned"),
        Outcome::Overdue => (INVALID, true, "The credential's deadline has passed"),
        Outcome::Suspended => (INVALID, true, "`spec.suspend` is true"),
        Outcome::Compromised => {
            (INVALID, true, "Declared compromised, and the controller has not caught up yet")
        }
        Outcome::Expired => (INVALID, true, "`spec.expiry` has passed"),
        Outcome::Unreadable => (INVALID, true, "This gate cannot understand the ApiToken: see its log"),
        Outcome::WrongAudience => (INVALID, true, "The token is not for the audience that the route demands"),
        Outcome::MissingScope => {
            ("403 `insufficient_scope`", true, "The token lacks a scope that the route demands")
        }
    }
}
