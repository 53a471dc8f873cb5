//! `org.systemd.property.NAME` annotations: properties that a configuration may set. Pure.
//!
//! Whoever writes the annotations (a pod's author, with some engines) must not get more of systemd
//! than of the container (CVE-2024-3154): only what is in [`ALLOWED`] goes through, each with its one
//! type. These say when and how the scope ends, and after what it is ordered; none starts a program
//! or another unit, lifts a limit or opens a file.

use std::collections::BTreeMap;

use super::{Property, Value};
use crate::error::{Code, Findings, escape};

const PREFIX: &str = "org.systemd.property.";

/// The type systemd wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Bool,
    I32,
    /// Microseconds; without the `U` in its name: seconds.
    Microseconds,
    Text,
    Texts,
}

const ALLOWED: [(&str, Type); 13] = [
    ("After", Type::Texts),
    ("Before", Type::Texts),
    ("CollectMode", Type::Text),
    ("DefaultDependencies", Type::Bool),
    ("Description", Type::Text),
    ("Documentation", Type::Texts),
    ("FinalKillSignal", Type::I32),
    ("KillMode", Type::Text),
    ("KillSignal", Type::I32),
    ("RuntimeMaxUSec", Type::Microseconds),
    ("SendSIGHUP", Type::Bool),
    ("SendSIGKILL", Type::Bool),
    ("TimeoutStopUSec", Type::Microseconds),
];

/// The properties asked for. Others are left out with a warning, a value that does not fit is a problem.
pub fn read(annotations: &BTreeMap<String, String>, findings: &mut Findings) -> Vec<Property> {
    let mut all: Vec<Property> = Vec::new();
    for (key, text) in annotations {
        let Some(asked) = key.strip_prefix(PREFIX) else { continue };
        let at = format!("/annotations/{}", escape(key));
        let Some((name, kind, factor)) = find(asked) else {
            findings.warn(
                Code::W_NOT_APPLIED,
                &at,
                "not set: it is none of the properties that an annotation may set",
            );
            continue;
        };
        match parse(text.trim(), kind, factor) {
            Ok(value) if all.iter().all(|one| one.name != name) => {
                all.push(Property { name: name.to_owned(), value, at });
            }
            Ok(_) => findings.problem(
                Code::E_ANNOTATION,
                &at,
                "the same property is set by another annotation",
            ),
            Err(why) => findings.problem(Code::E_ANNOTATION, &at, format!("{text:?}: {why}")),
        }
    }
    all
}

/// The property of that name, its type, and what its numbers are to be multiplied with. `XSec`, as
/// systemd's documentation names it, is `XUSec` on the bus.
fn find(asked: &str) -> Option<(&'static str, Type, u64)> {
    if let Some((name, kind)) = ALLOWED.iter().find(|(name, _)| *name == asked) {
        return Some((name, *kind, 1));
    }
    let stem = asked.strip_suffix("Sec").filter(|stem| !stem.ends_with('U'))?;
    let (name, kind) = ALLOWED.iter().find(|(name, _)| name.strip_suffix("USec") == Some(stem))?;
    Some((name, *kind, 1_000_000))
}

/// Reads GVariant text, as far as these types need it. A number may lack its type.
fn parse(text: &str, kind: Type, factor: u64) -> Result<Value, String> {
    match kind {
        Type::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("is neither true nor false".to_owned()),
        },
        Type::I32 => {
            let digits = untyped(text, "int32")?;
            digits.parse().map(Value::I32).map_err(|_| "is no int32".to_owned())
        }
        Type::Microseconds => {
            let number: u64 = match untyped(text, "uint64")? {
                "18446744073709551615" => return Ok(Value::U64(u64::MAX)),
                digits => digits.parse().map_err(|_| "is no uint64".to_owned())?,
            };
            number.checked_mul(factor).map(Value::U64).ok_or_else(|| "is too long".to_owned())
        }
        Type::Text => {
            let (text, rest) = quoted(text)?;
            if rest.is_empty() { Ok(Value::Text(text)) } else { Err(unexpected(rest)) }
        }
        Type::Texts => texts(text).map(Value::Texts),
    }
}

/// A number without the name of its type.
fn untyped<'a>(text: &'a str, name: &str) -> Result<&'a str, String> {
    match text.split_once(' ') {
        None => Ok(text),
        Some((word, digits)) if word == name => Ok(digits.trim_start()),
        Some((word, _)) => Err(format!("is of type {word}, not {name}")),
    }
}

fn unexpected(rest: &str) -> String {
    format!("unexpected {rest:?}")
}

/// A text in single or double quotes with backslash escapes, and what comes after it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let quote = text
        .chars()
        .next()
        .filter(|one| matches!(one, '\'' | '"'))
        .ok_or_else(|| "is not in quotes".to_owned())?;
    let mut out = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        let letter = match letter {
            end if end == quote => {
                return Ok((out, text.get(at + 1..).unwrap_or_default().trim_start()));
            }
            '\\' => match letters.next() {
                Some((_, plain @ ('\\' | '\'' | '"'))) => plain,
                _ => return Err("has an unknown escape".to_owned()),
            },
            other => other,
        };
        // systemd writes it into a unit file.
        if letter.is_control() {
            return Err("has a control character".to_owned());
        }
        out.push(letter);
    }
    Err("has no end of its quotes".to_owned())
}

/// `['a', 'b']`, `[]`, `@as []`
fn texts(text: &str) -> Result<Vec<String>, String> {
    let text = text.strip_prefix("@as").unwrap_or(text).trim_start();
    let mut rest = text.strip_prefix('[').ok_or_else(|| "is no list".to_owned())?.trim_start();
    let mut all = Vec::new();
    if rest == "]" {
        return Ok(all);
    }
    loop {
        let (one, after) = quoted(rest)?;
        all.push(one);
        match after.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if after == "]" => return Ok(all),
            None => return Err(unexpected(after)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::expect_used, clippy::let_underscore_must_use, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> Result<Value, String> {
        let mut findings = Findings::default();
        let map = BTreeMap::from([(format!("{PREFIX}{name}"), text.to_owned())]);
        let found = read(&map, &mut findings);
        match (found.first(), findings.problems.first(), findings.warnings.first()) {
            (Some(property), None, None) => Ok(property.value.clone()),
            (None, Some(problem), None) => Err(problem.to_string()),
            (None, None, Some(warning)) => Err(format!("warning: {warning}")),
            other => panic!("{other:?}"),
        }
    }

    /// What podman, CRI-O and kubelet's users write.
    #[test]
    fn row93_systemd_annotations_of_engines_have_systemds_types() {
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(one("KillSignal", "15"), Ok(Value::I32(15)));
        assert_eq!(one("KillSignal", "int32 37"), Ok(Value::I32(37)));
        assert_eq!(one("TimeoutStopUSec", "uint64 10000000"), Ok(Value::U64(10_000_000)));
        assert_eq!(one("TimeoutStopSec", "uint64 10"), Ok(Value::U64(10_000_000)));
        assert_eq!(one("TimeoutStopSec", "10"), Ok(Value::U64(10_000_000)));
        assert_eq!(one("DefaultDependencies", "true"), Ok(Value::Bool(true)));
        assert_eq!(one("CollectMode", "'inactive-or-failed'"), Ok(text("inactive-or-failed")));
        assert_eq!(one("Description", r#""it\'s \"mine\"""#), Ok(text("it's \"mine\"")));
        let after = Value::Texts(vec!["crio.service".into(), "a.service".into()]);
        assert_eq!(one("After", "['crio.service', 'a.service']"), Ok(after));
        assert_eq!(one("After", "@as []"), Ok(Value::Texts(Vec::new())));
    }

    /// CVE-2024-3154: a pod's annotation set any property of a unit of the host.
    #[test]
    fn t18_systemd_annotations_outside_the_list_are_left_out() {
        for name in [
            "ExecStartPre",
            "ExecStart",
            "MemoryMax",
            "DeviceAllow",
            "DevicePolicy",
            "Delegate",
            "Slice",
            "PIDs",
            "Wants",
            "Requires",
            "OnFailure",
            "SuccessAction",
            "BPFProgram",
            "User",
            "killsignal",
            "Sec",
            "TimeoutStopUUSec",
            "",
        ] {
            let said = one(name, "'x'").expect_err(name);
            assert!(said.starts_with("warning: /annotations/org.systemd.property."), "{said}");
        }
    }

    #[test]
    fn systemd_annotations_that_do_not_fit_are_problems() {
        for (name, text, why) in [
            ("KillSignal", "'15'", "is no int32"),
            ("KillSignal", "uint64 15", "is of type uint64, not int32"),
            ("KillSignal", "99999999999", "is no int32"),
            ("TimeoutStopUSec", "int32 5", "is of type int32, not uint64"),
            ("TimeoutStopUSec", "-1", "is no uint64"),
            ("TimeoutStopSec", "uint64 18446744073709551614", "is too long"),
            ("DefaultDependencies", "yes", "neither true nor false"),
            ("CollectMode", "inactive", "is not in quotes"),
            ("CollectMode", "'inactive", "no end"),
            ("CollectMode", "'a' 'b'", "unexpected"),
            ("Description", "'a\nExecStart=/x'", "control character"),
            ("Description", r"'\n'", "unknown escape"),
            ("After", "'a'", "is no list"),
            ("After", "['a' 'b']", "unexpected"),
            ("After", "['a'", "unexpected"),
        ] {
            let said = one(name, text).expect_err(text);
            assert!(said.contains(why) && said.starts_with("/annotations/"), "{text}: {said}");
        }
        let mut findings = Findings::default();
        let pair = ["TimeoutStopUSec", "TimeoutStopSec"]
            .map(|name| (format!("{PREFIX}{name}"), "1".into()));
        assert_eq!(read(&BTreeMap::from(pair), &mut findings).len(), 1);
        assert_eq!(findings.problems.len(), 1);
    }
}
