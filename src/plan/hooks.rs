//! The six kinds of hooks.

use crate::plan::config::Config;

use super::annotations::{self, HookOutput};
use super::check::no_nul;
use super::process::DEFAULT_PATH;
use crate::error::{At, Code, Findings};

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its place in config.json.
    pub at: At,
    /// Absolute path.
    pub path: String,
    /// The whole argument vector.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<u32>,
    /// Files of the host that its output goes to.
    pub output: HookOutput,
}

/// All hooks, by the spec's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// Whether any runs in the runtime's namespaces before the root switch.
    #[must_use]
    pub fn has_runtime(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty()
    }
}

/// Checks all hooks.
pub fn plan(spec: &Config, findings: &mut Findings) -> Hooks {
    let Some(hooks) = &spec.hooks else {
        return Hooks::default();
    };
    #[allow(deprecated, reason = "prestart is deprecated in the spec and still used by engines")]
    let prestart = hooks.prestart();
    let output = annotations::hook_output(spec, findings);
    // What a hook without `env` has. Not the caller's, as with runc and crun, which may hold secrets and
    // LD_PRELOAD; a program that looks for others needs a PATH, though.
    let path = [format!("PATH={DEFAULT_PATH}")];
    let process = spec.process.as_ref().and_then(|process| process.env().as_deref());
    let inside = process.unwrap_or(&path);
    let mut planned = Hooks {
        prestart: list("/hooks/prestart", prestart.as_ref(), &path, findings),
        create_runtime: list(
            "/hooks/createRuntime",
            hooks.create_runtime().as_ref(),
            &path,
            findings,
        ),
        create_container: list(
            "/hooks/createContainer",
            hooks.create_container().as_ref(),
            &path,
            findings,
        ),
        start_container: list(
            "/hooks/startContainer",
            hooks.start_container().as_ref(),
            inside,
            findings,
        ),
        poststart: list("/hooks/poststart", hooks.poststart().as_ref(), &path, findings),
        poststop: list("/hooks/poststop", hooks.poststop().as_ref(), &path, findings),
    };
    // All but startContainer, which run where these files are not.
    for list in [
        &mut planned.prestart,
        &mut planned.create_runtime,
        &mut planned.create_container,
        &mut planned.poststart,
        &mut planned.poststop,
    ] {
        for hook in list {
            hook.output = output.clone();
        }
    }
    planned
}

fn list(
    base: &'static str,
    hooks: Option<&Vec<oci_spec::runtime::Hook>>,
    default_env: &[String],
    findings: &mut Findings,
) -> Vec<Hook> {
    let one = |(index, hook): (usize, &oci_spec::runtime::Hook)| {
        let at = At::item(base, index);
        let path = hook.path().to_string_lossy().into_owned();
        if !path.starts_with('/') {
            findings.problem(Code::E_NOT_ABSOLUTE, at.leaf("/path"), "not an absolute path");
        }
        no_nul(at.leaf("/path"), &path, findings);
        let timeout = hook.timeout().map(|seconds| match u32::try_from(seconds) {
            Ok(seconds) if seconds > 0 => seconds,
            _ => {
                findings.problem(
                    Code::E_HOOK_TIMEOUT_VALUE,
                    at.leaf("/timeout"),
                    "must be greater than zero",
                );
                1
            }
        });
        let args = match hook.args() {
            Some(args) if !args.is_empty() => args.clone(),
            _ => vec![path.clone()],
        };
        let env = hook.env().clone().unwrap_or_else(|| default_env.to_vec());
        for arg in &args {
            no_nul(at.leaf("/args"), arg, findings);
        }
        for entry in &env {
            no_nul(at.leaf("/env"), entry, findings);
        }
        Hook { at, path, args, env, timeout, output: HookOutput::default() }
    };
    hooks.into_iter().flatten().enumerate().map(one).collect()
}
