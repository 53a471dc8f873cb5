//! Rules that are not about one subject: strings, ids, versions, names.

use std::fmt::Display;

use crate::plan::config::Config;

use super::namespaces::{Kind, Namespaces};
use crate::error::{Code, Findings};

/// The newest spec version whose every word is known here.
pub const OCI_VERSION_MAX: &str = "1.3.0";
/// The oldest accepted one.
pub const OCI_VERSION_MIN: &str = "1.0.0";

/// Longest container id in bytes: it names files and keyrings.
const ID_MAX: usize = 255;

/// Whether a container id is of the form `[A-Za-z0-9_+.-]+`, not `.` or `..`, and no option.
pub fn container_id(id: &str) -> Result<(), String> {
    let good = |letter: u8| letter.is_ascii_alphanumeric() || b"_+.-".contains(&letter);
    let odd = id.is_empty() || id.starts_with('-') || id == "." || id == "..";
    if odd || !id.bytes().all(good) {
        return Err(format!("invalid container ID format: {:?}", id.escape_debug().to_string()));
    }
    if id.len() > ID_MAX {
        return Err(format!("invalid container ID format: longer than {ID_MAX} bytes"));
    }
    Ok(())
}

/// The kernel would see only the part before a NUL.
pub fn no_nul(at: impl Display, text: &str, findings: &mut Findings) {
    if text.contains('\0') {
        findings.problem(Code::E_NUL_BYTE, at, "contains a NUL byte");
    }
}

/// 2^32-1 means "leave alone" to the kernel, so it would quietly mean root (CVE-2024-40635).
pub fn id(at: impl Display, id: u32, findings: &mut Findings) {
    if id == u32::MAX {
        findings.problem(Code::E_ID_RANGE, at, format!("{id} is no user or group id"));
    }
}

/// `1.x.y`, possibly with a pre-release. Other majors are refused; 1.x above ours is told.
pub fn version(version: &str, findings: &mut Findings) {
    let at = "/ociVersion";
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u64>> = core
        .split('.')
        .map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten())
        .collect();
    match numbers.as_slice() {
        [Some(1), Some(minor), Some(_)] => {
            if *minor > 3 {
                let text =
                    format!("{version} is newer than {OCI_VERSION_MAX}: unknown parts are ignored");
                findings.warn(Code::W_OCI_VERSION, at, text);
            }
        }
        [Some(_), Some(_), Some(_)] => findings.problem(
            Code::E_OCI_VERSION,
            at,
            format!(
                "{} is not supported: {OCI_VERSION_MIN} to {OCI_VERSION_MAX} is",
                version.escape_debug()
            ),
        ),
        _ => {
            findings.problem(
                Code::E_OCI_VERSION,
                at,
                format!("{:?} is no SemVer version", version),
            );
        }
    }
}

/// Host and domain name, annotations.
pub fn names(spec: &Config, namespaces: &Namespaces, findings: &mut Findings) {
    for (at, name) in [("/hostname", &spec.hostname), ("/domainname", &spec.domainname)] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        no_nul(at, name, findings);
        // The kernel's limit (__NEW_UTS_LEN).
        if name.len() > 64 {
            findings.problem(Code::E_NAME_TOO_LONG, at, "longer than 64 bytes");
        }
        if !namespaces.is_own(Kind::Uts) {
            findings.problem(
                Code::E_NEEDS_NAMESPACE,
                at,
                "needs an own uts namespace: it would change the host",
            );
        }
    }
    for key in spec.annotations.iter().flatten().map(|(key, _)| key) {
        if key.is_empty() {
            findings.problem(Code::E_ANNOTATION, "/annotations", "has an empty key");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t22_container_ids() {
        for id in ["a", "A-b_c+d.e", "0", "..a", &"x".repeat(255)] {
            assert_eq!(container_id(id), Ok(()), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            "-v",
            "--all",
            "a/b",
            "../x",
            "a\nb",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(256),
        ] {
            assert!(container_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn other_major_versions_are_refused_and_newer_minors_told() {
        let check = |text: &str| {
            let mut findings = Findings::default();
            version(text, &mut findings);
            (findings.problems.len(), findings.warnings.len())
        };
        assert_eq!(check("1.0.0"), (0, 0));
        assert_eq!(check("1.2.1+dev"), (0, 0));
        assert_eq!(check("1.0.2-dev"), (0, 0));
        assert_eq!(check("1.4.0"), (0, 1));
        for bad in ["2.0.0", "0.9.0", "1.0", "", "1.x.0", "v1.0.0"] {
            assert_eq!(check(bad).0, 1, "{bad}");
        }
    }
}
