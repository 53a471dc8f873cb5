//! Calls of the runtime: how they are made, how long they may take, what they gave back.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{Process, host, patience, reaper};

/// The binary under test: `ONGGI_BIN`, else the one that cargo built for this package.
pub fn binary() -> PathBuf {
    match (std::env::var_os("ONGGI_BIN"), option_env!("CARGO_BIN_EXE_onggi")) {
        (Some(path), _) => path.into(),
        (None, Some(path)) => path.into(),
        _ => panic!("ONGGI_BIN names no binary"),
    }
}

/// A command with nothing on stdin and without what systemd may have put into our environment,
/// but with a variable by which a helper that it leaves behind is known.
fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env("ONGGI_IT_CALL", dir);
    for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
    command
}

/// The name by which the runtime calls its default state directory: `/run/NAME`.
pub fn name() -> String {
    binary().file_stem().unwrap().to_string_lossy().into_owned()
}

/// One call of the runtime that is still to be made. By default stdin is /dev/null, stdout and
/// stderr are files (so nobody can block on them) and `--root` and `--log` are given.
pub struct Call {
    dir: PathBuf,
    globals: Vec<OsString>,
    args: Vec<OsString>,
    command: Command,
    log: Option<PathBuf>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    timeout: Duration,
    keep_fds: Vec<(OwnedFd, i32)>,
}

impl Call {
    /// `dir` gets the files with the output; `root` is the state directory.
    pub fn new(dir: &Path, root: Option<&Path>, args: &[&str]) -> Call {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = dir.join(format!("{number:04}-{}", args.first().unwrap_or(&"none")));
        fs::create_dir_all(&dir).unwrap();
        let mut globals = Vec::new();
        if let Some(root) = root {
            globals.extend(["--root".into(), root.into()]);
        }
        if host::by_systemd() {
            globals.push("--systemd-cgroup".into());
        }
        Call {
            log: Some(dir.join("log.json")),
            command: command(&binary(), &dir),
            dir,
            globals,
            args: args.iter().map(OsString::from).collect(),
            stdout: None,
            stderr: None,
            timeout: patience(),
            keep_fds: Vec::new(),
        }
    }

    /// Adds an argument at the end.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Call {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Adds arguments at the end.
    pub fn args(mut self, args: &[&str]) -> Call {
        self.args.extend(args.iter().map(OsString::from));
        self
    }

    /// Adds an option before the subcommand.
    pub fn global(mut self, args: &[&str]) -> Call {
        self.globals.extend(args.iter().map(OsString::from));
        self
    }

    /// Leaves `--log` and `--log-format` away.
    pub fn without_log(mut self) -> Call {
        self.log = None;
        self
    }

    /// Runs this file instead of the binary under test: a copy of it.
    pub fn binary(mut self, path: &Path) -> Call {
        self.command = command(path, &self.dir);
        self
    }

    /// Lets another program run the runtime: `through(&["sh", "-c", "\"$0\" \"$@\"; exit $?"])` is
    /// called with the runtime and its arguments at the end.
    pub fn through(mut self, program: &[&str]) -> Call {
        self.command = command(Path::new(program[0]), &self.dir);
        self.command.args(&program[1..]).arg(binary());
        self
    }

    /// Runs the call to its end under a subreaper that then waits for nobody, as an engine that is
    /// busy with something else: what dies below it stays a zombie until it is killed itself.
    #[track_caller]
    pub fn under_lazy_parent(self) -> Running {
        let script = r#""$0" "$@"; echo "returned $?"; exec sleep 1000"#;
        let call = self.through(&["sh", "-c", script]).before_exec(|| {
            unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        });
        let running = call.spawn();
        super::eventually(&format!("`{}` returns 0", running.label), || {
            running.stdout_now().contains("returned 0").then_some(())
        });
        running
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Call {
        self.command.env(name, value);
        self
    }

    /// Gives the runtime this environment and nothing else.
    pub fn env_only(mut self, variables: &[(&str, &str)]) -> Call {
        self.command.env_clear().envs(variables.iter().copied());
        self
    }

    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Call {
        self.command.current_dir(dir);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Call {
        self.command.stdin(stdin);
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Call {
        self.stdout = Some(stdout.into());
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Call {
        self.stderr = Some(stderr.into());
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Call {
        self.timeout = timeout;
        self
    }

    /// Lets the runtime inherit a descriptor under a number of our choice.
    pub fn fd(mut self, fd: impl Into<OwnedFd>, number: i32) -> Call {
        self.keep_fds.push((fd.into(), number));
        self
    }

    /// Runs code in the runtime's process just before its execve. It must not allocate.
    pub fn before_exec(mut self, act: impl FnMut() + Send + Sync + 'static) -> Call {
        let mut act = act;
        unsafe {
            self.command.pre_exec(move || {
                act();
                Ok(())
            })
        };
        self
    }

    /// Starts the runtime and returns at once.
    pub fn spawn(mut self) -> Running {
        let label = self.label();
        if let Some(log) = &self.log {
            self.globals.extend(["--log".into(), log.into()]);
            self.globals.extend(["--log-format".into(), "json".into()]);
        }
        let (stdout, stderr) = (self.dir.join("stdout"), self.dir.join("stderr"));
        let file = |path: &Path| Stdio::from(File::create(path).unwrap());
        self.command.stdout(self.stdout.take().unwrap_or_else(|| file(&stdout)));
        self.command.stderr(self.stderr.take().unwrap_or_else(|| file(&stderr)));
        self.command.args(&self.globals).args(&self.args);
        self.place_fds();
        let child = reaper::spawn(&mut self.command)
            .unwrap_or_else(|error| panic!("cannot run {:?}: {error}", binary()));
        Running {
            pid: child.pid,
            stdin: child.stdin,
            label,
            log: self.log,
            stdout,
            stderr,
            timeout: self.timeout,
            ended: false,
        }
    }

    /// Runs the runtime to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        self.spawn().wait()
    }

    fn label(&self) -> String {
        let words = self.args.iter().map(|arg| arg.to_string_lossy().into_owned());
        words.collect::<Vec<_>>().join(" ")
    }

    /// Puts the descriptors at their numbers in the child. They are first moved high, so that
    /// none is overwritten before its turn.
    fn place_fds(&mut self) {
        let fds = std::mem::take(&mut self.keep_fds);
        if fds.is_empty() {
            return;
        }
        let act = move || {
            let mut high = [0; 64];
            for (slot, (fd, _)) in high.iter_mut().zip(&fds) {
                *slot = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 200) };
            }
            for (from, (_, to)) in high.iter().zip(&fds) {
                if unsafe { libc::dup2(*from, *to) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        unsafe { self.command.pre_exec(act) };
    }
}

/// A runtime that is running. Dropped without `wait`, it is killed.
pub struct Running {
    pid: i32,
    /// The write end of its stdin, if the call asked for `Stdio::piped()`.
    pub stdin: Option<ChildStdin>,
    label: String,
    log: Option<PathBuf>,
    stdout: PathBuf,
    stderr: PathBuf,
    timeout: Duration,
    ended: bool,
}

impl Running {
    pub fn process(&self) -> Process {
        Process(self.pid)
    }

    pub fn signal(&self, signal: i32) {
        self.process().kill(signal).unwrap();
    }

    /// The output so far.
    pub fn stdout_now(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// Whether it has ended, without waiting.
    pub fn has_ended(&self) -> bool {
        reaper::wait(self.pid, Duration::ZERO).is_some()
    }

    /// Waits for its end; a runtime that takes too long is killed and fails the test.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        drop(self.stdin.take());
        let Some(status) = reaper::wait(self.pid, self.timeout) else {
            let process = self.process();
            let place = ["wchan", "syscall", "stack"].map(|file| process.try_read(file));
            let stderr = read_lossy(&self.stderr);
            panic!("`{}` still runs after {:?}: {place:?} {stderr}", self.label, self.timeout);
        };
        self.ended = true;
        Output {
            status,
            stdout: read_lossy(&self.stdout),
            stderr: read_lossy(&self.stderr),
            raw_log: self.log.as_deref().map(read_lossy).unwrap_or_default(),
            stdout_path: self.stdout.clone(),
            stderr_path: self.stderr.clone(),
            label: self.label.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended && reaper::wait(self.pid, Duration::ZERO).is_none() {
            let _ = self.process().kill(libc::SIGKILL);
            reaper::wait(self.pid, Duration::from_secs(5));
        }
    }
}

/// What a call gave back. stdout and stderr are as they were when the runtime ended; a detached
/// container may write more, see `stdout_now`.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// The bytes of the `--log` file.
    pub raw_log: String,
    stdout_path: PathBuf,
    stderr_path: PathBuf,
    label: String,
}

impl Output {
    /// The exit code; a runtime that was killed fails the test.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("killed by {:?}: {self}", self.signal()))
    }

    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// The call must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert_eq!(self.code(), 0, "{self}");
        self
    }

    /// The call must have failed.
    #[track_caller]
    pub fn fails(self) -> Output {
        assert_ne!(self.code(), 0, "{self}");
        self
    }

    /// The call must have failed with a message that contains `text`.
    #[track_caller]
    pub fn fails_with(self, text: &str) -> Output {
        let output = self.fails();
        assert!(output.stderr.contains(text), "no {text:?} in the error of {output}");
        output
    }

    /// The call must have ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert_eq!(self.code(), code, "{self}");
        self
    }

    /// The lines of the `--log` file; a line that is not JSON fails the test.
    #[track_caller]
    pub fn log(&self) -> Vec<Value> {
        let parse = |line| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("not a JSON log line: {line:?}: {error}"),
        };
        self.raw_log.lines().map(parse).collect()
    }

    /// The messages of level error in the log.
    #[track_caller]
    pub fn errors(&self) -> Vec<String> {
        let errors = self.log().into_iter().filter(|line| line["level"] == "error");
        errors.map(|line| line["msg"].as_str().unwrap_or_default().to_string()).collect()
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// What has been written to stdout by now, by a container that runs on.
    pub fn stdout_now(&self) -> String {
        read_lossy(&self.stdout_path)
    }

    pub fn stderr_now(&self) -> String {
        read_lossy(&self.stderr_path)
    }

    pub fn stdout_path(&self) -> &Path {
        &self.stdout_path
    }

    pub fn stderr_path(&self) -> &Path {
        &self.stderr_path
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "`{}`: {}", self.label, self.status)?;
        writeln!(f, "stdout: {}", self.stdout)?;
        writeln!(f, "stderr: {}", self.stderr)?;
        write!(f, "log: {}", self.raw_log)
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
