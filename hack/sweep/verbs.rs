//! The commands that can be swept: what must exist before, and what "it worked" means.

use anyhow::{Result, bail};

/// How far a container has got before the swept command runs.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub enum Stage {
    Nothing,
    Created,
    Running,
    Paused,
    Stopped,
}

/// How the result of a command that returned 0 is checked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Check {
    /// The container starts and is identical to the undisturbed one.
    Startable,
    /// The container runs and is identical.
    Running,
    /// What the command printed is the same as undisturbed.
    Output,
    /// The container's init ends.
    Ended,
    /// Nothing is left.
    Gone,
    /// The container's init still lives.
    Alive,
}

/// A command under test.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    pub name: &'static str,
    pub before: Stage,
    pub check: Check,
    args: &'static [&'static str],
}

#[rustfmt::skip]
const VERBS: &[Verb] = &[
    Verb { name: "create", before: Stage::Nothing, check: Check::Startable, args: &["create", "--bundle", "@BUNDLE@", "--pid-file", "@PIDFILE@", "@ID@"] },
    Verb { name: "run", before: Stage::Nothing, check: Check::Running, args: &["run", "--detach", "--bundle", "@BUNDLE@", "--pid-file", "@PIDFILE@", "@ID@"] },
    Verb { name: "start", before: Stage::Created, check: Check::Running, args: &["start", "@ID@"] },
    Verb { name: "state", before: Stage::Running, check: Check::Alive, args: &["state", "@ID@"] },
    Verb { name: "exec", before: Stage::Running, check: Check::Output, args: &["exec", "@ID@"] },
    Verb { name: "exec-contained", before: Stage::Running, check: Check::Output, args: &["exec", "--timeout", "1h", "--die-with-parent", "@ID@"] },
    Verb { name: "update", before: Stage::Running, check: Check::Alive, args: &["update", "--pids-limit", "64", "@ID@"] },
    Verb { name: "pause", before: Stage::Running, check: Check::Alive, args: &["pause", "@ID@"] },
    Verb { name: "resume", before: Stage::Paused, check: Check::Running, args: &["resume", "@ID@"] },
    Verb { name: "kill", before: Stage::Running, check: Check::Ended, args: &["kill", "@ID@", "KILL"] },
    Verb { name: "delete", before: Stage::Stopped, check: Check::Gone, args: &["delete", "@ID@"] },
    Verb { name: "delete-force", before: Stage::Running, check: Check::Gone, args: &["delete", "--force", "@ID@"] },
];

impl Verb {
    pub fn named(name: &str) -> Result<Verb> {
        let names: Vec<_> = VERBS.iter().map(|v| v.name).collect();
        match VERBS.iter().find(|v| v.name == name) {
            Some(verb) => Ok(*verb),
            None => bail!("--verb {name}: one of {}", names.join(", ")),
        }
    }

    /// The command line after the global options.
    pub fn args(&self, bundle: &str, pid_file: &str, id: &str) -> Vec<String> {
        let fill = |a: &&str| {
            a.replace("@BUNDLE@", bundle).replace("@PIDFILE@", pid_file).replace("@ID@", id)
        };
        let mut args: Vec<String> = self.args.iter().map(fill).collect();
        if self.check == Check::Output {
            args.extend(super::compare::exec_command());
        }
        args
    }
}
