//! The runtime under test as a set of commands, plain or traced, on containers of our bundle.

use super::guard::Place;
use super::verbs::{Stage, Verb};
use super::{bundle, sys, trace};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A command that takes longer than this hangs.
pub const LIMIT: Duration = Duration::from_secs(5);
/// `delete` may wait for ten seconds by design.
pub const DELETE_LIMIT: Duration = Duration::from_secs(15);

/// What a command printed and returned; `code` is `None` when it hung.
pub struct Said {
    pub code: Option<i32>,
    pub stderr: String,
}

pub struct Runtime<'a> {
    pub place: &'a Place,
    pub bundle: bundle::Bundle,
    path: String,
    env: Vec<String>,
    null: File,
    payload: (u64, u64),
}

impl<'a> Runtime<'a> {
    pub fn new(place: &'a Place, path: &str, bundle: bundle::Bundle) -> Result<Self> {
        let path = match path.contains('/') {
            true => fs::canonicalize(path).with_context(|| path.to_string())?,
            false => find_in_path(path)?,
        };
        for dir in ["state", "io", "run"] {
            fs::create_dir_all(place.dir.join(dir))?;
        }
        let env = vec![
            format!("PATH={}", std::env::var("PATH").unwrap_or_default()),
            "HOME=/root".to_string(),
            format!("XDG_RUNTIME_DIR={}", place.dir.join("run").display()),
        ];
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let payload = trace::identity(&bundle.payload)?;
        Ok(Runtime { place, bundle, path: path.display().to_string(), env, null, payload })
    }

    fn io(&self, name: &str) -> PathBuf {
        self.place.dir.join("io").join(name)
    }

    fn argv(&self, args: &[String]) -> Vec<String> {
        let root = self.place.dir.join("state").display().to_string();
        let mut argv = vec![self.path.clone(), "--root".into(), root];
        argv.extend(self.place.options());
        argv.extend_from_slice(args);
        argv
    }

    /// The command line of a verb for container `id`.
    pub fn args(&self, verb: &Verb, id: &str) -> Vec<String> {
        verb.args(&self.bundle.dir.display().to_string(), &self.io("pid").display().to_string(), id)
    }

    /// Creates a container once more. Its pid file is another one, because a temporary file beside
    /// the first may be left by a kill, and `delete` is not told where that was.
    pub fn create_again(&self, id: &str) -> Result<Said> {
        self.bundle.name(id)?;
        let pid_file = self.io("pid-again").display().to_string();
        let said = self.say(
            &Verb::named("create")?.args(&self.bundle.dir.display().to_string(), &pid_file, id),
            LIMIT,
        );
        super::guard::ignore(fs::remove_file(pid_file));
        said
    }

    /// What the last command wrote to its standard output.
    pub fn stdout(&self) -> String {
        fs::read_to_string(self.io("out")).unwrap_or_default()
    }

    /// The pid of the last created container.
    pub fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.io("pid")).ok()?.trim().parse().ok()
    }

    /// Runs a command undisturbed.
    pub fn say(&self, args: &[String], limit: Duration) -> Result<Said> {
        let (out, err) = (File::create(self.io("out"))?, File::create(self.io("err"))?);
        let argv = self.argv(args);
        let program = sys::Program {
            argv: &argv,
            env: &self.env,
            stdin: &self.null,
            stdout: &out,
            stderr: &err,
        };
        let (pid, _) = program.start(false)?;
        let code =
            sys::wait_child(pid, self.place.patience(limit), true).ok().map(|(code, _)| code);
        Ok(Said { code, stderr: fs::read_to_string(self.io("err")).unwrap_or_default() })
    }

    /// The same with words.
    pub fn command(&self, words: &[&str]) -> Result<Said> {
        let limit = if words[0] == "delete" { DELETE_LIMIT } else { LIMIT };
        self.say(&words.iter().map(|w| (*w).to_string()).collect::<Vec<_>>(), limit)
    }

    /// Runs a verb traced, disturbing call `at`.
    pub fn traced(
        &self,
        verb: &Verb,
        id: &str,
        at: u64,
        act: trace::Act,
    ) -> Result<(trace::Outcome, String)> {
        let (out, err) = (File::create(self.io("out"))?, File::create(self.io("err"))?);
        let argv = self.argv(&self.args(verb, id));
        let program = sys::Program {
            argv: &argv,
            env: &self.env,
            stdin: &self.null,
            stdout: &out,
            stderr: &err,
        };
        let attach = if verb.before == Stage::Created { self.pid() } else { None };
        let limit = if verb.name.starts_with("delete") { DELETE_LIMIT } else { LIMIT };
        let limit = self.place.patience(limit);
        let job = trace::Job { program, attach, payload: self.payload, at, act, limit };
        let outcome = trace::run(&job)?;
        Ok((outcome, fs::read_to_string(self.io("err")).unwrap_or_default()))
    }

    /// Brings a new container to the stage a verb starts from.
    pub fn prepare(&self, id: &str, stage: Stage) -> Result<()> {
        super::guard::ignore(fs::remove_file(self.io("pid")));
        self.bundle.name(id)?;
        if stage == Stage::Nothing {
            return Ok(());
        }
        self.must(&self.args(&Verb::named("create")?, id))?;
        if stage == Stage::Created {
            return Ok(());
        }
        self.must(&["start".to_string(), id.to_string()])?;
        if !self.runs_payload(Duration::from_secs(2)) {
            bail!("undisturbed start: the payload does not run");
        }
        match stage {
            Stage::Paused => self.must(&["pause".to_string(), id.to_string()]),
            Stage::Stopped => {
                self.must(&["kill".to_string(), id.to_string(), "KILL".to_string()])?;
                match self.ended(Duration::from_secs(2)) {
                    true => Ok(()),
                    false => bail!("undisturbed kill: the container lives on"),
                }
            }
            _ => Ok(()),
        }
    }

    fn must(&self, args: &[String]) -> Result<()> {
        let said = self.say(args, LIMIT)?;
        match said.code {
            Some(0) => Ok(()),
            code => bail!("undisturbed {}: code {code:?}: {}", args[0], said.stderr.trim()),
        }
    }

    /// Waits until the init is the payload and sleeps: just after its execve it has no cmdline yet.
    pub fn runs_payload(&self, patience: Duration) -> bool {
        let Some(pid) = self.pid() else { return false };
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        self.poll(patience, || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let ours = trace::identity(&exe).is_ok_and(|id| id == self.payload);
            ours && !cmdline.is_empty() && stat.contains(") S ")
        })
    }

    /// Waits until the init is dead and reaped.
    pub fn ended(&self, patience: Duration) -> bool {
        let Some(pid) = self.pid() else { return true };
        let dir = PathBuf::from(format!("/proc/{pid}"));
        self.poll(patience, || {
            super::guard::reap();
            !dir.exists()
        })
    }

    fn poll(&self, patience: Duration, mut done: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + self.place.patience(patience);
        loop {
            if done() {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn find_in_path(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file());
    found.with_context(|| format!("{name}: not in PATH"))
}
