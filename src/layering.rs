//! The layering rule of the crate docs, checked on the sources.

use std::path::{Path, PathBuf};

/// Which modules each one may name with `crate::`. Missing modules may name all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("code", &[]),
    ("error", &["code", "sys"]),
    ("log", &["error", "state", "sys"]),
    ("seccomp", &["code"]),
    ("cgroup", &["error", "sys"]),
    ("host", &["cgroup", "error", "sys"]),
    ("bundle", &["error", "plan", "sys"]),
    ("plan", &["cgroup", "error", "host", "seccomp"]),
    ("hooks", &["error", "plan", "sys"]),
    ("state", &["cgroup", "error", "sys"]),
    ("mountinfo", &["error", "sys"]),
    ("rdt", &["error", "mountinfo", "plan", "state", "sys"]),
    ("init", &["cgroup", "error", "hooks", "mountinfo", "plan", "seccomp", "spawn", "sys"]),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a file before its unit tests, without comments.
fn code(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn layering_imports_point_downwards_and_unsafe_is_in_sys_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "{}", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&root).unwrap_or(file).display().to_string();
        if relative.contains("tests") || relative == "layering.rs" {
            continue;
        }
        let module = relative.split(['/', '.']).next().unwrap_or_default();
        let allowed = ALLOWED.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
        for line in code(file) {
            for edge in line.split("crate::").skip(1) {
                let to =
                    edge.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
                let fine = to == module || allowed.is_none_or(|allowed| allowed.contains(&to));
                if !fine && !to.is_empty() {
                    wrong.push(format!("{relative}: {}", line.trim()));
                }
            }
            if module != "sys" && line.contains("unsafe {") {
                wrong.push(format!("{relative}: unsafe: {}", line.trim()));
            }
            if matches!(module, "plan" | "init" | "seccomp") && line.contains("std::fs") {
                wrong.push(format!("{relative}: std::fs: {}", line.trim()));
            }
            if module == "init" && line.contains("serde") {
                wrong.push(format!("{relative}: serde: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
