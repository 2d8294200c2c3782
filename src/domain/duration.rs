//! Durations as users write them: `720h`, `1h30m`, `500ms`.
//!
//! A strict subset of Go's syntax, so that every value accepted here is also accepted by `duration()` in CEL and by
//! Go tools that read the same manifest. Left out on purpose: signs (no setting of ours may be negative), fractions
//! (`1.5h` is `90m`), repeated or unordered units (`5m5m` is a typing mistake), and anything below a millisecond.

use std::time::Duration;

/// The longest accepted duration: one hundred years of 365 days. Far beyond any use, far below any overflow.
pub const MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The same syntax as a regular expression, for schemas. It also matches the empty string: pair it with a minimum
/// length of 1. The bound [`MAX`] has to be checked separately.
pub const PATTERN: &str = "^([0-9]{1,6}h)?([0-9]{1,8}m)?([0-9]{1,10}s)?([0-9]{1,13}ms)?$";

/// Units from the largest to the smallest, the digits each may have (as in [`PATTERN`]), and milliseconds in one.
const UNITS: [(&str, usize, u64); 4] =
    [("h", 6, 3_600_000), ("m", 8, 60_000), ("s", 10, 1_000), ("ms", 13, 1)];

/// Why a string is not a duration. Every message names what was found and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing was written.
    #[error("the duration is empty: write for example 720h, 1h30m or 500ms")]
    Empty,
    /// A sign stood in front.
    #[error("{found:?} has a sign: write a positive duration such as 30m")]
    Signed {
        /// The text as given, shortened.
        found: String,
    },
    /// A decimal point was used.
    #[error("{found:?} has a fraction: write whole numbers, 1h30m instead of 1.5h")]
    Fraction {
        /// The text as given, shortened.
        found: String,
    },
    /// A number without a unit.
    #[error("{found:?} has a number without a unit: write h, m, s or ms after it, as in {found}s")]
    NoUnit {
        /// The text as given, shortened.
        found: String,
    },
    /// A unit that is not known here.
    #[error("{found:?} has the unknown unit {unit:?}: write h, m, s or ms (7 days are 168h)")]
    UnknownUnit {
        /// The text as given, shortened.
        found: String,
        /// The unit that was found.
        unit: String,
    },
    /// A unit twice, or a larger one after a smaller one.
    #[error("{found:?} repeats or disorders its units: write each once, largest first, as in 1h30m")]
    Order {
        /// The text as given, shortened.
        found: String,
    },
    /// Something other than digits and units.
    #[error("{found:?} is not a duration: write for example 720h, 1h30m or 500ms")]
    Malformed {
        /// The text as given, shortened.
        found: String,
    },
    /// More than [`MAX`].
    #[error("{found:?} is longer than 876000h (100 years): write a shorter duration")]
    TooLong {
        /// The text as given, shortened.
        found: String,
    },
}

/// Reads a duration such as `720h`, `1h30m` or `500ms`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    // Errors are shown in conditions and logs: they quote at most this much of what a user typed.
    let found = || text.chars().take(32).collect::<String>();
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text.starts_with(['-', '+']) {
        return Err(DurationError::Signed { found: found() });
    }
    let mut rest = text;
    let mut next_unit = 0;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        if number.is_empty() || tail.starts_with(['.', ',']) {
            return Err(match tail.starts_with(['.', ',']) {
                true => DurationError::Fraction { found: found() },
                false => DurationError::Malformed { found: found() },
            });
        }
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        if unit.is_empty() {
            return Err(match tail.is_empty() {
                true => DurationError::NoUnit { found: found() },
                false => DurationError::Malformed { found: found() },
            });
        }
        let Some(position) = UNITS.iter().position(|(name, ..)| *name == unit) else {
            return Err(DurationError::UnknownUnit { found: found(), unit: unit.chars().take(8).collect() });
        };
        if position < next_unit {
            return Err(DurationError::Order { found: found() });
        }
        next_unit = position + 1;
        let (_, max_digits, factor) = UNITS[position];
        if number.len() > max_digits {
            return Err(DurationError::TooLong { found: found() });
        }
        millis = number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(factor))
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| DurationError::TooLong { found: found() })?;
        rest = tail;
    }
    let duration = Duration::from_millis(millis);
    if duration > MAX { Err(DurationError::TooLong { found: found() }) } else { Ok(duration) }
}

/// Writes a duration the way [`parse`] reads it, without empty parts: `720h`, `1h30m`, `0s`. What is finer than a
/// millisecond is cut off.
pub fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, _, factor) in UNITS {
        let count = rest / factor;
        rest %= factor;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_users_write() {
        for (text, millis) in [
            ("720h", 720 * 3_600_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1m", 60_000),
            ("1m500ms", 60_500),
            ("0s", 0),
            ("1h2m3s4ms", 3_723_004),
            ("007s", 7_000),
            ("876000h", MAX.as_millis() as u64),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_with_a_message_that_says_what_to_write() {
        for (text, wanted) in [
            ("", "empty"),
            ("-5m", "sign"),
            ("+5m", "sign"),
            ("1.5h", "1h30m instead of 1.5h"),
            (".5h", "fraction"),
            ("30", "as in 30s"),
            ("1h30", "without a unit"),
            ("7d", "7 days are 168h"),
            ("5M", "unknown unit \"M\""),
            ("5us", "unknown unit"),
            ("5µs", "not a duration"),
            ("30m1h", "largest first"),
            ("5m5m", "repeats"),
            ("1h 30m", "not a duration"),
            (" 1h", "not a duration"),
            ("h", "not a duration"),
            ("soon", "not a duration"),
            ("876001h", "100 years"),
            ("876000h1ms", "100 years"),
            ("99999999999999999999h", "100 years"),
        ] {
            let message = parse(text).expect_err(text).to_string();
            assert!(message.contains(wanted), "{text:?}: {message}");
        }
    }

    #[test]
    fn quotes_only_the_head_of_a_huge_input() {
        let message = parse(&"9".repeat(10_000)).expect_err("no unit").to_string();
        assert!(message.len() < 200, "{message}");
    }

    #[test]
    fn writes_without_empty_parts() {
        for text in ["720h", "1h30m", "500ms", "0s", "1m1ms", "15s"] {
            assert_eq!(format(parse(text).expect(text)), text);
        }
        assert_eq!(format(Duration::from_nanos(1_000_001)), "1ms");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..=MAX.as_millis() as u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn the_pattern_admits_nothing_but_durations(text in proptest::string::string_regex(
            PATTERN.trim_start_matches('^').trim_end_matches('$')).expect("pattern"))
        {
            match parse(&text) {
                Ok(_) | Err(DurationError::Empty | DurationError::TooLong { .. }) => {}
                other => prop_assert!(false, "{:?}: {:?}", text, other),
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
