//! Times on the command line.

use std::ffi::OsStr;
use std::time::Duration;

use clap::ArgMatches;

use super::args;
use crate::error::{Code, Error, Result};

/// A time as Go writes it: `5s`, `1m30s`, `250ms`, `1.5h`.
pub fn option(matches: &ArgMatches, name: &str) -> Result<Option<Duration>> {
    let Some(text) = args::last(matches, name).map(OsStr::to_string_lossy) else { return Ok(None) };
    let wrong = || {
        let text = format!("--{name}: {text:?} is no time such as 5s or 1m30s");
        Error::text(Code::E_OPTION, text)
    };
    parse(&text).map(Some).ok_or_else(wrong)
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanos = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|letter: char| !letter.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit {
            "ns" => 1u64,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let mut place = factor;
        for digit in fraction.bytes() {
            place /= 10;
            nanos = nanos.checked_add(place * u64::from(digit.checked_sub(b'0')?))?;
        }
        nanos = nanos.checked_add(whole.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [
            ("5s", Some(5000)),
            ("1m30s", Some(90_000)),
            ("250ms", Some(250)),
            ("1.5h", Some(5_400_000)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("5x", None),
            ("1..5s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(parse(text).map(|time| time.as_millis()), millis, "{text}");
        }
    }
}
