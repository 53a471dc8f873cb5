//! The calls of an engine, one line each in `argv.txt`, made again in the same order.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::substitute::{self, Adapted};
use super::{Fixture, peer};
use crate::support::pty::{FdSocket, Received};
use crate::support::{Bundle, Call, Container, Process, onggi, patience, reaper};

/// What the calls of one fixture have in common.
struct Replay<'b> {
    bundle: &'b Bundle,
    /// Options whose value is a path of the captured machine, and the path that replaces it.
    paths: BTreeMap<&'static str, PathBuf>,
    environment: Vec<(String, String)>,
    init: Option<Process>,
    /// The masters of terminals; closing one would hang up its container.
    terminals: Vec<Received>,
}

/// Makes every call of the fixture. Each must succeed, and afterwards nothing may be left.
pub fn replay(fixture: &Fixture) {
    let captured = fixture.config();
    let bundle = Bundle::new();
    substitute::mapped_owner(&captured, &bundle);
    let peer = peer(&captured, &bundle);
    let mut adapted = substitute::adapt(captured, &bundle, peer.as_ref().map(Container::init));
    let program = adapted.config["process"]["args"][0].as_str().unwrap();
    let ends_by_itself = !program.ends_with("sleep");
    let config = adapted.config.clone();
    bundle.edit(|place| {
        *place = config;
        place
    });
    if let Some(process) = fixture.exec_process() {
        adapted = Adapted::of_process(process, &bundle);
        substitute::process(&mut adapted, "");
        fs::write(bundle.dir().join("process.json"), adapted.config.0.to_string()).unwrap();
    }
    let mut replay = Replay::new(fixture, &bundle);
    for line in fixture.text("argv.txt").lines() {
        let words = words(line);
        replay.call(&words[1..], ends_by_itself);
    }
    drop(peer);
    assert_eq!(bundle.state_entries(), [""; 0]);
    bundle.assert_clean();
}

impl Replay<'_> {
    fn new<'b>(fixture: &Fixture, bundle: &'b Bundle) -> Replay<'b> {
        let file = |name: &str| bundle.dir().join(name);
        let paths = BTreeMap::from([
            ("--root", bundle.root()),
            ("--bundle", bundle.path()),
            ("--log", file("engine.log")),
            ("--pid-file", file("pid")),
            ("--process", file("process.json")),
            ("--console-socket", file("fd.sock")),
        ]);
        let text = fixture.text("env.txt");
        let variables = text.lines().filter_map(|line| line.split_once('='));
        let environment = variables.map(|(name, value)| (name.into(), value.into())).collect();
        Replay { bundle, paths, environment, init: None, terminals: Vec::new() }
    }

    fn call(&mut self, words: &[String], ends_by_itself: bool) {
        let command = command(words);
        if command == "delete" || command == "kill" && ends_by_itself {
            self.wait_for_init(ends_by_itself);
        }
        let console = self.console(words);
        let output = self.with_own_paths(words).run().ok();
        assert_eq!(output.stdout, if command == "state" { &output.stdout } else { "" });
        self.terminals.extend(console.map(|socket| socket.receive()));
        if command == "start" {
            self.init = Some(Process::of_pid_file(&self.paths["--pid-file"]));
        }
    }

    /// The call with our paths in place of the engine's.
    fn with_own_paths(&self, words: &[String]) -> Call {
        let mut args: Vec<String> = Vec::new();
        let mut is_path_of = None;
        for word in &without_cgroup_driver(words) {
            let (name, value) =
                word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
            let own = self.paths.get(name).map(|path| path.to_str().unwrap());
            match (is_path_of.take(), own, value) {
                (Some(path), ..) => args.push(path),
                (None, Some(own), Some(_)) => args.push(format!("{name}={own}")),
                (None, Some(own), None) => {
                    args.push(name.to_string());
                    is_path_of = Some(own.to_string());
                }
                (None, None, _) => args.push(word.clone()),
            }
        }
        // podman leaves the state directory to the runtime; its default is shared with the host.
        if !args.iter().any(|arg| arg == "--root" || arg.starts_with("--root=")) {
            args.splice(
                0..0,
                ["--root".to_string(), self.paths["--root"].to_str().unwrap().into()],
            );
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let call = self.bundle.onggi_without_root(&args).without_log().env_only(&environment);
        call.cwd(self.bundle.path())
    }

    /// An engine deletes, and kills the rest, when its shim has seen init end. A container that goes on by itself was
    /// killed through the shim or by a call that came before.
    fn wait_for_init(&mut self, ends_by_itself: bool) {
        let Some(init) = self.init.take() else { return };
        let long = if ends_by_itself { patience() } else { Duration::from_millis(500) };
        let status = reaper::wait(init.0, long);
        match (status, ends_by_itself) {
            (Some(status), true) => assert!(status.success(), "the container: {status}"),
            (None, true) => panic!("the container does not end"),
            (Some(_), false) => {}
            (None, false) => {
                init.kill(libc::SIGKILL).unwrap();
                reaper::wait(init.0, patience()).expect("init does not die");
            }
        }
    }

    fn console(&self, words: &[String]) -> Option<FdSocket> {
        let wanted = words.iter().any(|word| word.starts_with("--console-socket"));
        let path = &self.paths["--console-socket"];
        if wanted && path.exists() {
            fs::remove_file(path).unwrap();
        }
        wanted.then(|| FdSocket::bind(self.bundle.dir()))
    }
}

/// `--systemd-cgroup` is left out: there is no systemd here, and decision 22 lets the option be an
/// error for now. podman gives `--cgroup-manager disabled`, which is crun's, to every runtime.
fn without_cgroup_driver(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.retain(|word| word != "--systemd-cgroup");
    let is_ours = onggi::name() == "onggi";
    if let Some(at) = words.iter().position(|word| word == "--cgroup-manager" && !is_ours) {
        words.drain(at..at + 2);
    }
    words
}

fn command(words: &[String]) -> &str {
    let commands = ["create", "start", "run", "exec", "kill", "delete", "state", "ps", "update"];
    let found = words.iter().find(|word| commands.contains(&word.as_str()));
    found.unwrap_or_else(|| panic!("no command in {words:?}"))
}

/// The words of a line that is quoted for a POSIX shell, by backslashes or single quotes.
fn words(line: &str) -> Vec<String> {
    assert!(!line.contains(['"', '$']), "a quoting that is not known: {line}");
    let mut words = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let word = words.last_mut().unwrap();
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            '\\' if !quoted => word.extend(letters.next()),
            other => word.push(other),
        }
    }
    words
}
