//! The annotations that change what is done: crun's, which engines write. Each is declared in `features`
//! as potentially unsafe.

use std::path::PathBuf;

use super::config::Config;
use crate::error::{Code, Findings};

/// Every one of them, sorted, for `features`.
pub const KNOWN: &[&str] = &[
    super::exec::CONTAIN,
    SYSTEMD,
    crate::cgroup::DELEGATE,
    HOOKS_STDERR,
    HOOKS_STDOUT,
    KEEP_GROUPS,
    MOUNT_CONTEXT_TYPE,
    crate::cgroup::SUBGROUP,
];

/// All that begin with it; see `cgroup/systemd/annotations.rs`.
const SYSTEMD: &str = "org.systemd.property.";
const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
const MOUNT_CONTEXT_TYPE: &str = "run.oci.mount_context_type";
/// The mount options of SELinux (mount(8)).
const CONTEXT_TYPES: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Files of the host that hooks write to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookOutput {
    /// Appended to.
    pub stdout: Option<PathBuf>,
    /// Appended to.
    pub stderr: Option<PathBuf>,
}

fn get<'a>(spec: &'a Config, name: &str) -> Option<&'a str> {
    spec.annotations.as_ref()?.get(name).map(String::as_str)
}

fn at(name: &str) -> String {
    format!("/annotations/{name}")
}

/// `run.oci.hooks.stdout` and `run.oci.hooks.stderr`.
pub fn hook_output(spec: &Config, findings: &mut Findings) -> HookOutput {
    let mut file = |name: &str| {
        let path = get(spec, name)?;
        super::check::no_nul(at(name), path, findings);
        if !path.starts_with('/') {
            findings.problem(Code::E_NOT_ABSOLUTE, at(name), "not an absolute path");
        }
        Some(PathBuf::from(path))
    };
    HookOutput { stdout: file(HOOKS_STDOUT), stderr: file(HOOKS_STDERR) }
}

/// `run.oci.keep_original_groups`: the process keeps the supplementary groups of the runtime's caller.
pub fn keep_groups(spec: &Config, findings: &mut Findings) -> bool {
    match get(spec, KEEP_GROUPS) {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(_) => {
            findings.problem(Code::E_ANNOTATION, at(KEEP_GROUPS), "is neither 0 nor 1");
            false
        }
    }
}

/// `run.oci.mount_context_type`: the mount option that carries `linux.mountLabel`.
pub fn mount_context_type(spec: &Config, findings: &mut Findings) -> &'static str {
    let wanted = get(spec, MOUNT_CONTEXT_TYPE).unwrap_or("context");
    CONTEXT_TYPES.into_iter().find(|known| *known == wanted).unwrap_or_else(|| {
        let text = format!("is none of {}", CONTEXT_TYPES.join(", "));
        findings.problem(Code::E_ANNOTATION, at(MOUNT_CONTEXT_TYPE), text);
        "context"
    })
}

#[cfg(test)]
#[allow(clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::tests::host_v2;
    use super::{CONTEXT_TYPES, MOUNT_CONTEXT_TYPE};
    use crate::host::Host;
    use crate::plan::{Options, create};

    /// The labels in the data of the mounts of the default configuration, with `context` as the annotation: the
    /// destinations that have one, and all options about it.
    fn labelled(context: Option<&str>) -> (Vec<String>, Vec<String>) {
        let mut config = crate::cli::default_config();
        config["process"]["terminal"] = json!(false);
        config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
        if let Some(context) = context {
            config["annotations"] = json!({ MOUNT_CONTEXT_TYPE: context });
        }
        let parsed = crate::bundle::config(config.to_string().as_bytes());
        let host = Host { selinux: true, ..host_v2() };
        let (config, _) = parsed.unwrap_or_else(|error| panic!("{error}"));
        let planned = create("web", &config, Path::new("/b"), &host, &Options::default());
        let (plan, _) = planned.unwrap_or_else(|error| panic!("{error}"));
        let about = |entry: &&String| entry.contains("context") || entry.contains("object_r");
        let found = plan.mounts.iter().flat_map(|mount| {
            let entries = mount.options.data.iter().filter(about);
            entries.map(|entry| (mount.destination.clone(), entry.clone()))
        });
        found.unzip()
    }

    /// podman asks for `rootcontext`: the label goes with the option that is named, and with no other.
    #[test]
    fn row97_mount_context_type_is_the_mount_option_of_the_label() {
        for named in CONTEXT_TYPES.map(Some).into_iter().chain([None]) {
            let (at, options) = labelled(named);
            assert_eq!(at, ["/dev", "/dev/pts", "/dev/shm"], "{named:?}");
            let option = named.unwrap_or("context");
            let expected = format!("{option}=system_u:object_r:container_file_t:s0:c1,c2");
            assert!(options.iter().all(|entry| *entry == expected), "{named:?}: {options:?}");
        }
    }
}
