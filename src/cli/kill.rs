//! `kill` and `delete`.

use clap::ArgMatches;

use super::{Globals, args};
use crate::container::Container;
use crate::error::{Code, Error, Result};

/// `onggi kill`
pub fn kill(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let all = args::is_on(matches, "all");
    let words: Vec<&String> = matches.get_many::<String>("signal").into_iter().flatten().collect();
    let signal = match words.as_slice() {
        [] => libc::SIGTERM,
        [word, ..] => signal(word)?,
    };
    let container = Container::open(&globals.root, &id)?;
    crate::delete::kill(&container, signal, all)?;
    Ok(0)
}

/// `onggi delete`
pub fn delete(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let force = args::is_on(matches, "force");
    globals.log.warn(crate::delete::delete(&globals.root, &id, force)?);
    Ok(0)
}

/// A signal as a number (1 to 64; 0 only asks whether there is somebody, as kill(2)) or a name, with or without `SIG`, in any case.
fn signal(text: &str) -> Result<i32> {
    let unknown = || Error::text(Code::E_SIGNAL_UNKNOWN, format!("unknown signal {text:?}"));
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<i32>() {
            Ok(number) if (0..=64).contains(&number) => Ok(number),
            _ => Err(unknown()),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // How far from the one end towards the other, and not beyond it.
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        None => rest.is_empty().then_some(0),
        Some(digits) => {
            let offset = digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)?;
            offset.parse::<i32>().ok().filter(|offset| *offset <= 30)
        }
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest, '+').map(|offset| 34 + offset).ok_or_else(unknown);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest, '-').map(|offset| 64 - offset).ok_or_else(unknown);
    }
    // Names the C library knows beside the ones of nix.
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        "UNUSED" => "SYS",
        name => name,
    };
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn row75_signals_by_number_and_name() {
        for (text, number) in [
            ("0", 0),
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("term", 15),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMAX", 64),
            ("RTMAX-30", 34),
            ("RTMIN+30", 64),
        ] {
            assert_eq!(signal(text).ok(), Some(number), "{text}");
        }
        for bad in [
            "00x", "65", "-9", "", "NOPE", "SIG", "9x", "RTMIN+99", "RTMIN+31", "RTMAX-31",
            "RTMIN-3", "RTMAX+1", "RTMIN3", "RTMINx3", "RTMIN+", "RTMIN++3", "RTMAX--1", "RTMIN-",
            "RTMAXé1",
        ] {
            assert!(signal(bad).is_err(), "{bad:?}");
        }
    }
}
