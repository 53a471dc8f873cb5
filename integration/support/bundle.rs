//! A bundle in a temporary directory, and the guard that nothing of it stays on the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, OnceLock};
use std::time::Duration;

use super::{Call, Config, Container, host, reaper};

/// A temporary directory with a bundle (`bundle/config.json`, `bundle/rootfs` with busybox), a
/// state directory (`state`) and the output of every call (`calls`).
///
/// When it is dropped, every container in the state directory is deleted by `delete --force`;
/// then the test fails if the host still shows a process, cgroup or mount with the bundle's name,
/// or if the state directory is not empty. What was left is taken away by hand.
pub struct Bundle {
    name: String,
    dir: PathBuf,
    config: Mutex<Config>,
}

impl Bundle {
    /// A bundle whose container sleeps.
    pub fn new() -> Bundle {
        Bundle::with(|config| config)
    }

    /// A bundle whose config.json has been edited.
    pub fn with(edit: impl FnOnce(&mut Config) -> &mut Config) -> Bundle {
        reaper::start();
        let name = unique_name();
        let dir = std::env::temp_dir().canonicalize().unwrap().join(&name);
        for part in ["bundle", "calls"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        make_rootfs(&dir.join("bundle/rootfs"));
        let config = Mutex::new(Config::new(&host::cgroups_path(&name)));
        let bundle = Bundle { name, dir, config };
        bundle.edit(edit);
        bundle
    }

    /// A bundle that runs a shell script.
    pub fn sh(script: &str) -> Bundle {
        Bundle::with(|config| config.sh(script))
    }

    /// Edits config.json and writes it.
    pub fn edit(&self, edit: impl FnOnce(&mut Config) -> &mut Config) {
        let mut config = self.config.lock().unwrap();
        edit(&mut config);
        self.write(serde_json::to_string_pretty(&config.0).unwrap());
    }

    /// Writes config.json as given, valid or not.
    pub fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(self.path().join("config.json"), text).unwrap();
    }

    /// config.json as it is now.
    pub fn config(&self) -> Config {
        self.config.lock().unwrap().clone()
    }

    /// The prefix that everything of this bundle carries on the host: `onggi-it-PID-RANDOM`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The temporary directory; tests may put files there.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bundle itself.
    pub fn path(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("bundle/rootfs")
    }

    /// The state directory that the calls pass as `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The container's cgroup, in the hierarchy with this controller on v1.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        let config = self.config();
        host::cgroup_dir(controller, config["linux"]["cgroupsPath"].as_str().unwrap())
    }

    /// A directory of the host that the container sees at `target`.
    pub fn share(&self, target: &str) -> PathBuf {
        let source = self.dir.join(format!("share{}", target.replace('/', "-")));
        fs::create_dir_all(&source).unwrap();
        let text = source.to_str().unwrap().to_string();
        self.edit(|config| config.bind(&text, target, &["rbind", "rw"]));
        source
    }

    /// A call of the runtime with `--root` and `--log`: `bundle.onggi(&["state", "web"])`.
    pub fn onggi(&self, args: &[&str]) -> Call {
        Call::new(&self.dir.join("calls"), Some(&self.root()), args)
    }

    /// A call without `--root`.
    pub fn onggi_without_root(&self, args: &[&str]) -> Call {
        Call::new(&self.dir.join("calls"), None, args)
    }

    /// A container of this bundle. Nothing is made yet.
    pub fn container(&self, id: &str) -> Container<'_> {
        Container::new(self, id, self.path())
    }

    /// Another container on the same root file system and in the same state directory, with a
    /// config.json and a cgroup (`/NAME-ID`) of its own.
    pub fn another(
        &self,
        id: &str,
        edit: impl FnOnce(&mut Config) -> &mut Config,
    ) -> Container<'_> {
        let mut config = self.config();
        let path = host::cgroups_path(&format!("{}-{id}", self.name));
        config.set("/linux/cgroupsPath", path);
        config.set("/root/path", self.rootfs().to_str().unwrap());
        edit(&mut config);
        let path = self.dir.join(format!("bundle-{id}"));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.json"), config.0.to_string()).unwrap();
        Container::new(self, id, path)
    }

    /// What the runtime has left on the host, one line each.
    pub fn leftovers(&self) -> Vec<String> {
        let mut lines = host::leftovers(&self.name);
        for id in self.state_entries() {
            lines.push(format!("state directory of {id}"));
        }
        lines
    }

    /// Nothing of this bundle may be on the host at this moment.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// The names in the state directory.
    pub fn state_entries(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root()) else {
            return Vec::new();
        };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn take_down(&self) -> Vec<String> {
        let mut trouble = Vec::new();
        for id in self.state_entries() {
            let call = self.onggi(&["delete", "--force", &id]).timeout(Duration::from_secs(20));
            let running = call.spawn();
            match reaper::wait(running.process().0, Duration::from_secs(20)) {
                Some(status) if status.success() => {}
                Some(status) => trouble.push(format!("delete --force {id}: {status}")),
                None => trouble.push(format!("delete --force {id} does not return")),
            }
        }
        trouble.extend(self.leftovers());
        trouble
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let trouble = match catch_unwind(AssertUnwindSafe(|| self.take_down())) {
            Ok(trouble) => trouble,
            Err(_) => vec!["taking it down has failed".to_string()],
        };
        if !trouble.is_empty() {
            host::clean(&self.name);
        }
        if std::env::var_os("ONGGI_IT_KEEP").is_none() && host::mounts_of(&self.name).is_empty() {
            let _ = fs::remove_dir_all(&self.dir);
        }
        if trouble.is_empty() {
            return;
        }
        match std::thread::panicking() {
            true => eprintln!("left behind: {trouble:#?}"),
            false => panic!("left behind: {trouble:#?}"),
        }
    }
}

/// At the end of the whole run: nothing that any of its tests has made, whatever its guard has seen.
extern "C" fn nothing_is_left() {
    let left = host::leftovers(&run_name());
    if !left.is_empty() {
        eprintln!("left behind by this run: {left:#?}");
        unsafe { libc::_exit(101) }
    }
}

/// What the names of all bundles of this run begin with.
fn run_name() -> String {
    format!("onggi-it-{}-", std::process::id())
}

fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    static CHECK: Once = Once::new();
    CHECK.call_once(|| assert_eq!(unsafe { libc::atexit(nothing_is_left) }, 0));
    let mut random = [0u8; 4];
    let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    assert_eq!(got, 4);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = u32::from_ne_bytes(random);
    // Ends in a letter: no name is the beginning of another one.
    format!("{}{count}-{random:08x}x", run_name())
}

/// A root file system with busybox under all its names.
fn make_rootfs(rootfs: &Path) {
    for dir in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\n").unwrap();
    // A copy, not a hard link: a container must not reach the host's own busybox.
    // Without one, only tests that run no container get here.
    let Some(busybox) = host::find_program("busybox") else { return };
    fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
    for applet in applets() {
        symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
}

fn applets() -> &'static [String] {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let (_, list) = host::tool(&["busybox", "--list"]);
        let names = list.lines().filter(|name| !name.contains('/') && *name != "busybox");
        names.map(str::to_string).collect()
    })
}
