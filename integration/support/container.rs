//! A container by its id, with the commands of the runtime as methods.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Bundle, Call, Output, Process, eventually, reaper};

/// A container of a bundle. When it is dropped, `delete --force` must return 0.
pub struct Container<'b> {
    bundle: &'b Bundle,
    id: String,
    path: PathBuf,
}

impl<'b> Container<'b> {
    /// `path` is its bundle.
    pub fn new(bundle: &'b Bundle, id: &str, path: PathBuf) -> Container<'b> {
        Container { bundle, id: id.into(), path }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn bundle(&self) -> &'b Bundle {
        self.bundle
    }

    /// `onggi COMMAND [OPTIONS] ID`, still to be run; `create` and `run` get `--bundle`. Add what
    /// follows the id by `args`.
    pub fn call(&self, command: &str, options: &[&str]) -> Call {
        let mut call = self.bundle.onggi(&[command]);
        if command == "create" || command == "run" {
            call = call.arg("--bundle").arg(&self.path);
        }
        call.args(options).arg(&self.id)
    }

    pub fn create(&self) -> Output {
        self.call("create", &[]).run()
    }

    pub fn start(&self) -> Output {
        self.call("start", &[]).run()
    }

    /// `run` in the foreground.
    pub fn run(&self) -> Output {
        self.call("run", &[]).run()
    }

    /// create and start; the output is that of create, whose stdout the container writes to.
    #[track_caller]
    pub fn up(&self) -> Output {
        let created = self.create().ok();
        self.start().ok();
        created
    }

    /// `exec` in the foreground.
    pub fn exec(&self, args: &[&str]) -> Output {
        self.call("exec", &[]).args(args).run()
    }

    /// `exec` of a shell script in the foreground.
    pub fn sh(&self, script: &str) -> Output {
        self.exec(&["sh", "-c", script])
    }

    pub fn kill(&self, signal: &str) -> Output {
        self.call("kill", &[]).arg(signal).run()
    }

    pub fn delete(&self) -> Output {
        self.call("delete", &[]).run()
    }

    pub fn delete_force(&self) -> Output {
        self.call("delete", &["--force"]).run()
    }

    /// `state`, whatever it answers.
    pub fn state_call(&self) -> Output {
        self.call("state", &[]).run()
    }

    /// What `state` says.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.state_call().ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or("no status").to_string()
    }

    /// The init process.
    #[track_caller]
    pub fn init(&self) -> Process {
        let pid = self.state()["pid"].as_i64().unwrap() as i32;
        assert!(pid > 1, "no pid in the state of {}", self.id);
        reaper::expect(pid);
        Process(pid)
    }

    /// Waits until `state` says so.
    #[track_caller]
    pub fn becomes(&self, status: &str) {
        eventually(&format!("{} is {status}", self.id), || (self.status() == status).then_some(()));
    }

    /// Kills the init and waits until the container is stopped.
    #[track_caller]
    pub fn stop(&self) {
        self.kill("KILL").ok();
        self.becomes("stopped");
    }

    /// `delete --force`, after which nothing of the bundle may be on the host.
    #[track_caller]
    pub fn remove(&self) {
        self.delete_force().ok();
        self.bundle.assert_clean();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let delete = || {
            self.call("delete", &["--force"]).timeout(Duration::from_secs(20)).run().ok();
        };
        if !std::thread::panicking() {
            delete();
        } else if catch_unwind(AssertUnwindSafe(delete)).is_err() {
            eprintln!("delete --force {} has failed, too", self.id);
        }
    }
}
