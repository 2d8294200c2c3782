//! When a credential is due for rotation and when a token ends. Every answer depends on (uid, credential, spec) only:
//! a restart, a leader change or an upgrade moves none (invariant I7).

use std::str::FromStr as _;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, Utc};
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, CronComponent};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::duration::{self, DurationError};
use crate::api::{ExpirySpec, RetireWhen, RotationSpec};

/// How long a superseded credential stays valid when `rotation.overlap` is not given.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// How long a superseded credential stays unused to count as no longer in use, when `rotation.settle` is not given.
pub const DEFAULT_SETTLE: Duration = Duration::from_secs(3600);
/// Shortest interval between rotations, and shortest age of expiry.
pub const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// An interval is shortened by at most a tenth and at most this.
const MAX_EARLY: Duration = Duration::from_secs(3600);
/// A cron schedule is followed late by at most a tenth of the gap to its next firing and at most this.
const MAX_LATE: Duration = Duration::from_secs(300);
/// A schedule that does not fire for so long counts as one that never does: the most that a calendar asks for is 40 years, for
/// 29 February on one day of the week. It bounds the search for a firing, which each look makes.
const MAX_YEARS: i32 = 41;
/// `Expiring` is said a tenth of the lifetime ahead, and at most this.
const MAX_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// What cannot be understood in `spec.rotation` or `spec.expiry`.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// A duration that does not parse.
    #[error("{field}: {source}")]
    Duration {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with it.
        source: DurationError,
    },
    /// A duration below the least that makes sense.
    #[error("{field}: {found} is too short: write at least 1m")]
    TooShort {
        /// Path of the field.
        field: &'static str,
        /// What was found.
        found: String,
    },
    /// Two durations that contradict each other.
    #[error("spec.rotation.overlap: {overlap} must be shorter than spec.rotation.every: {every}")]
    OverlapTooLong {
        /// The overlap found.
        overlap: String,
        /// The interval found.
        every: String,
    },
    /// A cron expression that does not parse or never fires.
    #[error(
        "spec.rotation.schedule: {found:?} {why}: write five cron fields such as \"0 3 * * SUN\" (minute 0-59, hour 0-23, day \
         1-31, month 1-12, weekday 0-7 or SUN-SAT)"
    )]
    Cron {
        /// What was found.
        found: String,
        /// What is wrong with it.
        why: String,
    },
    /// A time zone that is not in the IANA database.
    #[error(
        "spec.rotation.timeZone: {found:?} is not an IANA time zone: write a name such as Europe/Berlin or UTC"
    )]
    TimeZone {
        /// What was found.
        found: String,
    },
    /// None or two of a choice of fields.
    #[error("{found}: write exactly one of {choice}")]
    Choice {
        /// The parent field.
        found: &'static str,
        /// The fields to choose from.
        choice: &'static str,
    },
    /// A time beyond the range of timestamps.
    #[error("{field}: the time it names is out of range")]
    OutOfRange {
        /// Path of the field.
        field: &'static str,
    },
}

/// `spec.rotation`, understood.
#[derive(Debug)]
pub struct Rotation {
    rhythm: Option<Rhythm>,
    /// How long a superseded credential stays valid.
    pub overlap: Duration,
    /// When it ends before that.
    pub retire: RetireWhen,
    /// How long it stays unused to count as no longer in use.
    pub settle: Duration,
}

#[derive(Debug)]
enum Rhythm {
    Every(Duration),
    Cron { cron: Box<Cron>, zone: chrono_tz::Tz },
}

impl Rotation {
    /// Understands `spec.rotation`; without it there is no rhythm, and the default overlap.
    pub fn parse(spec: Option<&RotationSpec>) -> Result<Self, ScheduleError> {
        let Some(spec) = spec else { return Ok(Self::none()) };
        let rhythm = match (&spec.every, &spec.schedule) {
            (Some(every), None) => Rhythm::Every(at_least_a_minute("spec.rotation.every", every)?),
            (None, Some(schedule)) => Rhythm::Cron {
                cron: Box::new(parse_cron(schedule)?),
                zone: parse_zone(spec.time_zone.as_deref().unwrap_or("UTC"))?,
            },
            _ => {
                return Err(ScheduleError::Choice {
                    found: "spec.rotation",
                    choice: "spec.rotation.every and spec.rotation.schedule",
                });
            }
        };
        let overlap = match (&spec.overlap, &rhythm) {
            (Some(text), _) => parse_duration("spec.rotation.overlap", text)?,
            (None, Rhythm::Every(every)) => DEFAULT_OVERLAP.min(*every / 2),
            (None, Rhythm::Cron { .. }) => DEFAULT_OVERLAP,
        };
        let settle = match &spec.settle {
            Some(text) => at_least_a_minute("spec.rotation.settle", text)?,
            None => DEFAULT_SETTLE.min(overlap / 2),
        };
        match &rhythm {
            Rhythm::Every(every) if overlap >= *every => Err(ScheduleError::OverlapTooLong {
                overlap: duration::format(overlap),
                every: duration::format(*every),
            }),
            _ => Ok(Self { rhythm: Some(rhythm), overlap, retire: spec.retire.unwrap_or_default(), settle }),
        }
    }

    /// No rhythm, and the default overlap.
    pub fn none() -> Self {
        Self {
            rhythm: None,
            overlap: DEFAULT_OVERLAP,
            retire: RetireWhen::AtDeadline,
            settle: DEFAULT_SETTLE,
        }
    }

    /// When the credential `id`, issued at `issued_at`, is due for rotation; `None` if never by the clock.
    pub fn due(&self, uid: &str, id: &str, issued_at: Timestamp) -> Result<Option<Timestamp>, ScheduleError> {
        match &self.rhythm {
            None => Ok(None),
            Some(Rhythm::Every(every)) => {
                let early = spread(uid, id, (*every / 10).min(MAX_EARLY));
                later(issued_at, *every - early, "spec.rotation.every").map(Some)
            }
            Some(Rhythm::Cron { cron, zone }) => {
                // Late, never early: a schedule opens a maintenance window, and a rotation ahead of the firing would
                // find the same firing still ahead of it and rotate twice.
                let fires = next_firing(cron, *zone, issued_at)?;
                let gap = next_firing(cron, *zone, fires)?.duration_since(fires).unsigned_abs();
                let late = spread(uid, id, (gap / 10).min(MAX_LATE));
                later(fires, late, "spec.rotation.schedule").map(Some)
            }
        }
    }
}

/// `spec.expiry`, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// When the token ends.
    pub at: Timestamp,
    /// From when on `Expiring` is said.
    pub warn_from: Timestamp,
}

impl Expiry {
    /// Understands `spec.expiry` of an ApiToken created at `created`.
    pub fn parse(spec: Option<&ExpirySpec>, created: Timestamp) -> Result<Option<Self>, ScheduleError> {
        let Some(spec) = spec else { return Ok(None) };
        let at = match (&spec.after, &spec.at) {
            (Some(after), None) => {
                later(created, at_least_a_minute("spec.expiry.after", after)?, "spec.expiry.after")?
            }
            // Times in the API are written in whole seconds: a finer one would differ from the status that it was
            // written to, after every write anew.
            // The status repeats it, and the API server refuses years before 0 there, which offsets lead to.
            (None, Some(at)) if at.0 < Timestamp::UNIX_EPOCH => {
                return Err(ScheduleError::OutOfRange { field: "spec.expiry.at" });
            }
            (None, Some(at)) => Timestamp::from_second(at.0.as_second()).unwrap_or(at.0),
            _ => {
                return Err(ScheduleError::Choice {
                    found: "spec.expiry",
                    choice: "spec.expiry.after and spec.expiry.at",
                });
            }
        };
        let lifetime = at.duration_since(created).max(SignedDuration::ZERO).unsigned_abs();
        let warning =
            SignedDuration::try_from((lifetime / 10).min(MAX_WARNING)).unwrap_or(SignedDuration::ZERO);
        Ok(Some(Self { at, warn_from: at.checked_sub(warning).unwrap_or(at) }))
    }
}

/// `time + duration`, or an error that names the field.
pub fn later(time: Timestamp, by: Duration, field: &'static str) -> Result<Timestamp, ScheduleError> {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_add(by).ok())
        .ok_or(ScheduleError::OutOfRange { field })
}

/// A whole number of seconds in `0..=most`, always the same for the same token and credential.
fn spread(uid: &str, id: &str, most: Duration) -> Duration {
    let hash = Sha256::new().chain_update(uid).chain_update([0]).chain_update(id).finalize();
    let mut word = [0_u8; 8];
    word.copy_from_slice(&hash[..8]);
    Duration::from_secs(u64::from_be_bytes(word) % (most.as_secs() + 1))
}

fn parse_duration(field: &'static str, text: &str) -> Result<Duration, ScheduleError> {
    duration::parse(text).map_err(|source| ScheduleError::Duration { field, source })
}

fn at_least_a_minute(field: &'static str, text: &str) -> Result<Duration, ScheduleError> {
    let found = parse_duration(field, text)?;
    if found < MIN_INTERVAL {
        Err(ScheduleError::TooShort { field, found: text.to_owned() })
    } else {
        Ok(found)
    }
}

fn parse_cron(text: &str) -> Result<Cron, ScheduleError> {
    // A field for seconds would rotate each second.
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| bad_cron(text, error))
}

fn bad_cron(text: &str, why: impl ToString) -> ScheduleError {
    let why = why.to_string();
    ScheduleError::Cron { found: text.to_owned(), why: why.trim_end_matches('.').to_owned() }
}

/// The schedule with firings in the [`MAX_YEARS`] from `year` on only, and in the year before, which it may still be in its zone.
fn soon(cron: &Cron, year: i32) -> Result<Cron, ScheduleError> {
    let failed = |error: CronError| bad_cron(cron.pattern.as_str(), error);
    let bound = |year: i32| u16::try_from(year).unwrap_or(0);
    let mut cron = cron.clone();
    cron.pattern.years =
        CronComponent::new(bound(year.saturating_sub(1)), bound(year.saturating_add(MAX_YEARS)), 0, 0);
    cron.pattern.years.parse("*").map_err(failed)?;
    Ok(cron)
}

fn parse_zone(text: &str) -> Result<chrono_tz::Tz, ScheduleError> {
    chrono_tz::Tz::from_str(text).map_err(|_| ScheduleError::TimeZone { found: text.to_owned() })
}

fn next_firing(cron: &Cron, zone: chrono_tz::Tz, after: Timestamp) -> Result<Timestamp, ScheduleError> {
    let out_of_range = || ScheduleError::OutOfRange { field: "spec.rotation.schedule" };
    let after = DateTime::<Utc>::from_timestamp(after.as_second(), 0).ok_or_else(out_of_range)?;
    let firing = soon(cron, after.year())?
        .find_next_occurrence(&after.with_timezone(&zone), false)
        .map_err(|_| bad_cron(cron.pattern.as_str(), "never fires"))?;
    Timestamp::from_second(firing.timestamp()).map_err(|_| out_of_range())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn every(every: &str, overlap: Option<&str>) -> RotationSpec {
        RotationSpec { every: Some(every.into()), overlap: overlap.map(Into::into), ..Default::default() }
    }

    fn cron(schedule: &str, zone: Option<&str>) -> RotationSpec {
        RotationSpec {
            schedule: Some(schedule.into()),
            time_zone: zone.map(Into::into),
            ..Default::default()
        }
    }

    fn due(spec: &RotationSpec, issued: &str) -> Timestamp {
        Rotation::parse(Some(spec)).unwrap().due("uid", "id", time(issued)).unwrap().unwrap()
    }

    #[test]
    fn no_rotation_is_never_due() {
        assert_eq!(Rotation::parse(None).unwrap().due("u", "c", time("2026-01-01T00:00:00Z")), Ok(None));
    }

    #[test]
    fn default_overlap_fits_the_interval() {
        let overlap = |spec: &RotationSpec| Rotation::parse(Some(spec)).unwrap().overlap;
        assert_eq!(overlap(&every("720h", None)), DEFAULT_OVERLAP);
        assert_eq!(overlap(&every("10m", None)), Duration::from_secs(300));
        assert_eq!(overlap(&every("10m", Some("0s"))), Duration::ZERO);
        assert_eq!(overlap(&cron("@daily", None)), DEFAULT_OVERLAP);
    }

    #[test]
    fn cron_follows_its_zone_through_daylight_saving() {
        let spec = cron("0 3 * * *", Some("Europe/Berlin"));
        // 03:00 in Berlin is 02:00 UTC in winter and 01:00 UTC in summer; the clocks change on 2026-03-29.
        for (issued, fires) in [
            ("2026-03-27T12:00:00Z", "2026-03-28T02:00:00Z"),
            ("2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
            ("2026-10-24T12:00:00Z", "2026-10-25T02:00:00Z"),
        ] {
            let late = due(&spec, issued).duration_since(time(fires));
            assert!((0..=300).contains(&late.as_secs()), "{issued}: {late:?} after {fires}");
        }
    }

    #[test]
    fn a_year_begins_later_elsewhere() {
        let fires = due(&cron("0 22 31 12 *", Some("America/New_York")), "2027-01-01T01:00:00Z");
        assert_eq!(fires.to_string()[..10], *"2027-01-01");
    }

    #[test]
    fn a_time_that_the_clocks_skip_still_fires() {
        let fires = due(&cron("30 2 29 3 *", Some("Europe/Berlin")), "2026-03-28T12:00:00Z");
        assert_eq!(fires.to_string()[..10], *"2026-03-29");
    }

    #[test]
    fn the_rarest_schedule_fires_and_none_fires_within_a_minute() {
        // 29 February 2096 and 2104 frame a century without a leap year.
        for (schedule, issued, fires) in [
            ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29"),
            ("0 0 29 2 +MON", "2072-03-01T00:00:00Z", "2112-02-29"),
            ("0 0 29 2 +WED", "2026-01-01T00:00:00Z", "2040-02-29"),
        ] {
            let due = Rotation::parse(Some(&cron(schedule, None))).unwrap().due("u", "c", time(issued));
            assert_eq!(due.map(|due| due.unwrap().to_string()[..10].to_owned()), Ok(fires.to_owned()));
        }
        for seconds in ["* * * * * *", "*/5 0 3 * * SUN", "0 0 3 * * SUN 2030"] {
            let refused = Rotation::parse(Some(&cron(seconds, None))).unwrap_err().to_string();
            assert!(refused.contains("five cron fields"), "{refused}");
        }
    }

    #[test]
    fn bad_rotations_say_what_to_write() {
        let message = |spec: RotationSpec| {
            Rotation::parse(Some(&spec))
                .and_then(|rotation| rotation.due("u", "c", time("2026-01-01T00:00:00Z")))
                .unwrap_err()
                .to_string()
        };
        assert!(message(every("30s", None)).contains("at least 1m"));
        assert!(message(every("1x", None)).starts_with("spec.rotation.every:"));
        assert!(message(every("1h", Some("1h"))).contains("must be shorter"));
        assert!(message(cron("61 * * * *", None)).starts_with("spec.rotation.schedule:"));
        assert!(message(cron("0 0 30 2 *", None)).contains("never fires"));
        assert!(message(cron("@daily", Some("Mars/Olympus"))).contains("Europe/Berlin"));
        assert!(message(RotationSpec::default()).contains("exactly one"));
    }

    #[test]
    fn expiry_warns_ahead() {
        let created = time("2026-01-01T00:00:00Z");
        let parse = |spec: ExpirySpec| Expiry::parse(Some(&spec), created).unwrap().unwrap();
        let short = parse(ExpirySpec { after: Some("10h".into()), at: None });
        assert_eq!((short.at, short.warn_from), (time("2026-01-01T10:00:00Z"), time("2026-01-01T09:00:00Z")));
        let long = parse(ExpirySpec { after: Some("8760h".into()), at: None });
        assert_eq!(long.at.duration_since(long.warn_from).as_hours(), 14 * 24);
        let past = time("2020-01-01T00:00:00Z");
        let over = parse(ExpirySpec {
            after: None,
            at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(past)),
        });
        assert_eq!((over.at, over.warn_from), (past, past));
    }

    proptest! {
        #[test]
        fn intervals_are_kept_within_a_tenth(minutes in 1_u64..100_000, id in "[a-z0-9]{10}", issued in 0_i64..4_000_000_000) {
            let spec = every(&format!("{minutes}m"), None);
            let rotation = Rotation::parse(Some(&spec)).unwrap();
            let issued = Timestamp::from_second(issued).unwrap();
            let due = rotation.due("uid", &id, issued).unwrap().unwrap();
            let waited = due.duration_since(issued).unsigned_abs();
            let whole = Duration::from_secs(minutes * 60);
            prop_assert!(waited <= whole && whole - waited <= (whole / 10).min(MAX_EARLY));
            prop_assert_eq!(rotation.due("uid", &id, issued).unwrap().unwrap(), due);
        }

        #[test]
        fn cron_never_fires_before_or_at_its_issue(issued in 0_i64..4_000_000_000, minute in 0_u8..60, hour in 0_u8..24) {
            let rotation = Rotation::parse(Some(&cron(&format!("{minute} {hour} * * *"), Some("America/New_York")))).unwrap();
            let issued = Timestamp::from_second(issued).unwrap();
            let due = rotation.due("uid", "id", issued).unwrap().unwrap();
            prop_assert!(due > issued);
            // The successor, issued when its predecessor was due, is not due for the same firing.
            let next = rotation.due("uid", "other", due).unwrap().unwrap();
            prop_assert!(next.duration_since(due).as_hours() >= 20);
        }
    }

    #[test]
    fn a_fleet_is_spread() {
        let seconds: std::collections::BTreeSet<u64> =
            (0..1000).map(|n| spread(&format!("uid-{n}"), "id", MAX_EARLY).as_secs()).collect();
        assert!(seconds.len() > 700, "{} different seconds", seconds.len());
    }
}
