//! The seccomp agent: who answers the system calls that the profile wants to have notified.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};

use crate::error::{At, Code, Findings};
use crate::host::Host;

/// `CAP_SYS_PTRACE`
const CAP_SYS_PTRACE: u32 = 19;

/// Where the listener of the filter goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The agent's socket, absolute.
    pub path: PathBuf,
    /// `listenerMetadata`, passed on as it is.
    pub metadata: String,
    /// The parent takes the listener out of the child (`pidfd_getfd`(2)), so that the child needs no
    /// system call that could itself wait for the agent. Otherwise the child sends it.
    pub taken: bool,
}

/// The agent of a profile that needs one. `seccomp::compile` has checked that it has a path.
pub fn plan(
    profile: &LinuxSeccomp,
    bundle: &Path,
    host: &Host,
    findings: &mut Findings,
) -> Option<Listener> {
    let path = profile.listener_path().as_ref()?;
    super::check::no_nul("/linux/seccomp/listenerPath", &path.to_string_lossy(), findings);
    let taken = host.capabilities & 1 << CAP_SYS_PTRACE != 0;
    if !taken {
        sendable(profile, findings);
    }
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    Some(Listener { path: bundle.join(path), metadata, taken })
}

/// A child that has to send the listener itself would wait for ever if sending were notified.
fn sendable(profile: &LinuxSeccomp, findings: &mut Findings) {
    let why = "would be notified before the agent has the listener, which only a runtime with \
               CAP_SYS_PTRACE can prevent";
    if profile.default_action() == Action::ScmpActNotify {
        findings.problem(
            Code::E_SECCOMP_NOTIFY,
            "/linux/seccomp/defaultAction",
            format!("sendmsg {why}"),
        );
    }
    for (index, call) in profile.syscalls().iter().flatten().enumerate() {
        let notified = call.action() == Action::ScmpActNotify;
        if notified && call.names().iter().any(|name| name == "sendmsg") {
            let at = At::item("/linux/seccomp/syscalls", index).leaf("/names");
            findings.problem(Code::E_SECCOMP_NOTIFY, at, format!("sendmsg {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn planned(profile: serde_json::Value, capabilities: u64) -> (Option<Listener>, Vec<String>) {
        let host = Host { capabilities, ..crate::plan::tests::host_v2() };
        let mut findings = Findings::default();
        let profile = serde_json::from_value(profile).unwrap_or_default();
        let listener = plan(&profile, Path::new("/bundle"), &host, &mut findings);
        (listener, findings.problems.into_iter().map(|problem| problem.pointer).collect())
    }

    #[test]
    fn a_notified_sendmsg_needs_a_runtime_that_can_take_the_listener() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "agent", "listenerMetadata": "m",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" },
                         { "names": ["write", "sendmsg"], "action": "SCMP_ACT_NOTIFY" }]
        });
        let (listener, problems) = planned(profile.clone(), u64::MAX);
        let path = PathBuf::from("/bundle/agent");
        assert_eq!(listener, Some(Listener { path, metadata: "m".into(), taken: true }));
        assert!(problems.is_empty());
        let (listener, problems) = planned(profile, 0);
        assert_eq!(listener.map(|listener| listener.taken), Some(false));
        assert_eq!(problems, ["/linux/seccomp/syscalls/1/names"]);
    }
}
