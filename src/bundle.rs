//! config.json and process.json: read once, bounded, and turned into the spec's types with a JSON
//! pointer for everything that does not fit.

mod locate;
mod scan;

pub use scan::scan;

use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Code, Error, Finding, Findings, Result};
use crate::plan::config::Config;
use crate::sys;

/// Largest config.json in bytes: the biggest real ones are below 1 MiB.
pub const MAX_BYTES: usize = 16 << 20;
/// Most problems told of types alone.
const MAX_PARSE_PROBLEMS: usize = 50;

/// Reads a regular file of at most [`MAX_BYTES`] through one descriptor: what is checked is what is used.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |error: sys::Error| Error::from(error).or_code(Code::E_CONFIG_READ);
    let name = sys::cstr("open", path.as_os_str().as_bytes()).map_err(unreadable)?;
    // O_NONBLOCK: opening a FIFO must not hang.
    let file = sys::fs::open(&name, libc::O_RDONLY | libc::O_NONBLOCK).map_err(unreadable)?;
    let stat = sys::fs::fstat(file.as_fd())?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Error::text(
            Code::E_CONFIG_READ,
            format!("{}: not a regular file", path.display()),
        ));
    }
    let size = usize::try_from(stat.st_size).unwrap_or(MAX_BYTES);
    sys::fs::read_sized(file.as_fd(), size, MAX_BYTES)
        .map_err(|error| unreadable(error.about(path.display())))
}

/// The absolute path of an existing bundle directory.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let cwd = if path.is_absolute() {
        PathBuf::new()
    } else {
        PathBuf::from(std::ffi::OsString::from_vec(sys::fs::getcwd()?))
    };
    let mut out = PathBuf::new();
    for part in cwd.join(path).components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    Ok(out)
}

/// Parses a document of type `T`, with warnings of what was let pass. Every member that does not fit is
/// a [`Problem`], up to a limit.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<Finding>)> {
    match (scan(bytes)?, serde_json::from_slice(bytes)) {
        (true, Ok(config)) => Ok((config, Vec::new())),
        _ => parse_slowly(bytes),
    }
}

/// Parses a config.json as [`parse`] does, and takes back what the types make of an absent member: without
/// `limit` the object `pids` reads as a limit of 0, which is one.
pub fn config(bytes: &[u8]) -> Result<(Config, Vec<Finding>)> {
    let (mut config, warnings) = parse::<Config>(bytes)?;
    let resources = config.linux.as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(resources) = resources.filter(|all| all.pids().is_some_and(|p| p.limit() == 0)) {
        let given = serde_json::from_slice::<Value>(bytes)
            .is_ok_and(|value| value.pointer("/linux/resources/pids/limit").is_some());
        if !given {
            resources.set_pids(None);
        }
    }
    Ok((config, warnings))
}

fn not_json(error: serde_json::Error) -> Error {
    Error::text(Code::E_JSON, error.to_string())
}

/// The way taken only when the fast one failed: repairs what the spec tolerates and the types do not,
/// then collects every member that still does not fit.
fn parse_slowly<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<Finding>)> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(not_json)?;
    let mut findings = Findings { warnings: repair(&mut value), ..Findings::default() };
    scan::no_lists_for_objects(&mut value, &mut findings);
    let mut gone: Vec<(String, usize)> = Vec::new();
    loop {
        let document = value.to_string();
        // Not from_str: that would be a second copy of all types' code, a tenth of the program.
        let error = match serde_json::from_slice::<T>(document.as_bytes()) {
            Ok(spec) => return findings.finish().map(|warnings| (spec, warnings)),
            Err(error) => error,
        };
        let text = error.to_string();
        let missing = text.starts_with("missing field");
        let here = locate::pointer_at(document.as_bytes(), error.line(), error.column(), missing);
        let pointer = as_given(&here, &gone);
        let below = format!("{pointer}/");
        // What is wrong only because an offender was taken out is not worth telling.
        let told = findings
            .problems
            .iter()
            .any(|problem| problem.pointer == pointer || problem.pointer.starts_with(&below));
        if !told {
            findings.problem(Code::E_TYPE, pointer, without_position(&text));
        }
        // Take the offender out and look for the next.
        let enough = findings.problems.len() >= MAX_PARSE_PROBLEMS;
        if enough || !remove(&mut value, &here, &mut gone) {
            return Err(Error::Config(Box::new(findings)));
        }
    }
}

/// A pointer into a document from whose arrays items were taken, as one into the document as given.
fn as_given(pointer: &str, gone: &[(String, usize)]) -> String {
    let mut out = String::new();
    for part in pointer.split('/').skip(1) {
        let mut removed: Vec<usize> =
            gone.iter().filter(|(array, _)| *array == out).map(|(_, index)| *index).collect();
        removed.sort_unstable();
        out.push('/');
        match part.parse::<usize>() {
            Ok(index) if !removed.is_empty() => {
                let shift = |index, gone: &usize| if *gone <= index { index + 1 } else { index };
                out.push_str(&removed.iter().fold(index, shift).to_string());
            }
            _ => out.push_str(part),
        }
    }
    out
}

/// serde_json's message without its line and column, which are those of a repaired copy.
fn without_position(text: &str) -> String {
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Takes a member or an item out; of an item its place in the document as given is kept in `gone`.
fn remove(value: &mut Value, pointer: &str, gone: &mut Vec<(String, usize)>) -> bool {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return false };
    let name = last.replace("~1", "/").replace("~0", "~");
    let original = as_given(pointer, gone);
    match value.pointer_mut(parent) {
        Some(Value::Object(members)) => members.remove(&name).is_some(),
        Some(Value::Array(items)) => match last.parse::<usize>() {
            Ok(index) if index < items.len() => {
                items.remove(index);
                if let Some((array, index)) = original.rsplit_once('/') {
                    gone.extend(index.parse().ok().map(|index| (array.to_owned(), index)));
                }
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// What the spec allows and the types of oci-spec 0.10 refuse.
fn repair(config: &mut Value) -> Vec<Finding> {
    let mut warnings = Vec::new();
    // exec's document is the process object itself.
    let whole = config.get("process").is_none();
    let process = if whole { Some(&mut *config) } else { config.get_mut("process") };
    if let Some(Value::Object(process)) = process {
        if process.contains_key("cwd") && !process.contains_key("user") {
            process.insert("user".into(), serde_json::json!({"uid": 0, "gid": 0}));
        }
        if let Some(Value::Object(sets)) = process.get_mut("capabilities") {
            for names in sets.values_mut().filter_map(Value::as_array_mut) {
                names.retain(|name| {
                    name.as_str().is_none_or(|name| keep_capability(name, &mut warnings))
                });
            }
        }
        // The spec: "omitted or empty".
        if let Some(Value::Object(lists)) = process.get_mut("execCPUAffinity") {
            lists.retain(|_, list| list != "");
        }
        for flag in process
            .get_mut("scheduler")
            .and_then(|scheduler| scheduler.get_mut("flags"))
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
                Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
                _ => {}
            }
        }
    }
    for rule in config
        .pointer_mut("/linux/resources/devices")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        if rule.get("type").and_then(Value::as_str) == Some("") {
            rule.remove("type");
        }
    }
    warnings
}

/// Whether a capability name is known; the spec wants a warning for others, no failure.
fn keep_capability(name: &str, warnings: &mut Vec<Finding>) -> bool {
    let known = crate::plan::caps::number(name).is_some();
    let text = format!("unknown capability {} is dropped", name.escape_debug());
    let warning = Finding::new(Code::W_CAPABILITY_UNKNOWN, "/process/capabilities", text);
    if !known && !warnings.contains(&warning) {
        warnings.push(warning);
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> String {
        parse::<Config>(json.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_wrong_type_is_told_with_its_pointer() {
        let text =
            problems(r#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":-1,"gid":0}}}"#);
        assert!(text.starts_with("/process/user/uid: "), "{text}");
    }

    #[test]
    fn all_wrong_types_are_told_at_once() {
        let text = problems(r#"{"ociVersion":"1.0.0","hostname":3,"domainname":4,"mounts":{}}"#);
        for pointer in ["/hostname: ", "/domainname: ", "/mounts: "] {
            assert!(text.contains(pointer), "{text}");
        }
    }

    #[test]
    fn numbers_of_items_stay_those_of_the_document_as_given() {
        let text = problems(
            r#"{"ociVersion":"1.0.0","linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW",
            "architectures":["X","SCMP_ARCH_X86","Y"],"syscalls":[
            {"names":["a"],"action":"NO"},{"names":["b"],"action":"SCMP_ACT_ALLOW","args":[1]},
            {"names":[3],"action":"SCMP_ACT_ALLOW"}]}}}"#,
        );
        for pointer in [
            "architectures/0: ",
            "architectures/2: ",
            "syscalls/0/action: ",
            "syscalls/1/args/0: ",
            "syscalls/2/names/0: ",
        ] {
            assert!(text.contains(&format!("/linux/seccomp/{pointer}")), "{pointer} in {text}");
        }
    }

    /// Serde reads a list as a struct; the spec knows no such thing.
    #[test]
    fn a_list_is_no_object() {
        let text = problems(
            r#"{"ociVersion":"1.0.0","linux":[],"mounts":[["/x"]],"process":{"cwd":"/","user":[0,0]}}"#,
        );
        for pointer in ["/linux: ", "/mounts/0: ", "/process/user: "] {
            assert!(text.contains(&format!("{pointer}invalid type: sequence")), "{text}");
        }
        assert!(problems("[]").contains("expected an object"));
        let unknown = r#"{"ociVersion":"1.0.0","x":{"linux":[1],"mounts":[[2]]}}"#;
        assert_eq!(problems(unknown), "");
    }

    #[test]
    fn duplicate_members_and_trailing_text_are_refused() {
        assert!(
            problems(r#"{"ociVersion":"1.0.0","x":{"a":1,"a":2}}"#)
                .contains("duplicate member `a`")
        );
        assert!(problems(r#"{"ociVersion":"1.0.0"} x"#).contains("trailing characters"));
    }

    #[test]
    fn depth_and_number_of_entries_are_bounded() {
        let deep = format!(
            "{{\"ociVersion\":\"1.0.0\",\"x\":{}{}}}",
            "[".repeat(1_000_000),
            "]".repeat(1_000_000)
        );
        assert!(problems(&deep).contains("recursion limit"));
        let wide = format!("{{\"ociVersion\":\"1.0.0\",\"x\":[{}0]}}", "0,".repeat(200_000));
        assert!(problems(&wide).contains("more than 100000 entries"));
    }

    #[test]
    fn pids_without_a_limit_is_no_limit_of_0() {
        let limit = |pids: &str| {
            let json =
                format!(r#"{{"ociVersion":"1.0.0","linux":{{"resources":{{"pids":{pids}}}}}}}"#);
            let linux = config(json.as_bytes()).ok().and_then(|(config, _)| config.linux);
            linux.and_then(|l| {
                l.resources().as_ref()?.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit)
            })
        };
        assert_eq!(limit("{}"), None);
        assert_eq!(limit(r#"{"limit":0}"#), Some(0));
        assert_eq!(limit(r#"{"limit":-1}"#), Some(-1));
        assert_eq!(limit(r#"{"limit":7}"#), Some(7));
    }

    #[test]
    fn what_the_spec_tolerates_is_accepted() {
        let json = r#"{"ociVersion":"1.0.0","process":{"cwd":"/","capabilities":{"bounding":["CAP_NO_SUCH","CAP_KILL"]}},
            "linux":{"resources":{"devices":[{"allow":false,"type":"","access":"rwm"}]}}}"#;
        assert_eq!(problems(json), "");
    }
}
