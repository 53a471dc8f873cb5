//! The Debian root filesystem that hack/debian-rootfs makes, once for all tests and runs.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::engines::fixture::repository;
use crate::support::{host, reaper};

/// Made from packages in about a minute; a slow mirror may need several.
const PATIENCE: Duration = Duration::from_secs(900);

/// A root filesystem with real servers. Containers get it read-only.
pub struct Debian {
    pub dir: PathBuf,
}

/// The root filesystem, made now if it is not there yet, or the reason why it cannot be made.
pub fn rootfs() -> Result<&'static Debian, &'static str> {
    static ROOTFS: OnceLock<Result<Debian, String>> = OnceLock::new();
    ROOTFS.get_or_init(make).as_ref().map_err(String::as_str)
}

fn make() -> Result<Debian, String> {
    let cache = std::env::var_os("ONGGI_CACHE").unwrap_or_else(|| "/var/cache/onggi".into());
    let dir = PathBuf::from(cache).join("debian");
    let script = repository("../hack/debian-rootfs");
    let messages = std::env::temp_dir().join(format!("debian-rootfs-{}", std::process::id()));
    let mut command = Command::new(script);
    command.arg(&dir).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(&messages).unwrap());
    let child = reaper::spawn(&mut command).map_err(|error| error.to_string())?;
    let status = reaper::wait(child.pid, PATIENCE);
    let text = fs::read_to_string(&messages).unwrap_or_default();
    fs::remove_file(&messages).unwrap();
    match status {
        Some(status) if status.success() => Ok(Debian { dir }),
        Some(_) => Err(text.lines().last().unwrap_or("hack/debian-rootfs fails").to_string()),
        None => Err(format!("hack/debian-rootfs still runs after {PATIENCE:?}")),
    }
}

impl Debian {
    /// Uid and gid of a user of its passwd.
    pub fn user(&self, name: &str) -> (u32, u32) {
        let passwd = fs::read_to_string(self.dir.join("etc/passwd")).unwrap();
        let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = users.find(|fields| fields[0] == name).expect(name);
        (fields[2].parse().unwrap(), fields[3].parse().unwrap())
    }

    /// The directory with postgresql's programs, as the container sees it.
    pub fn postgresql(&self) -> String {
        let mut versions = fs::read_dir(self.dir.join("usr/lib/postgresql")).unwrap().flatten();
        let version = versions.next().expect("a version of postgresql").file_name();
        format!("/usr/lib/postgresql/{}/bin", version.to_str().unwrap())
    }

    /// No container may have changed it: nothing in it is newer than the stamp, the last file
    /// that hack/debian-rootfs writes.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let (dir, stamp) = (self.dir.to_str().unwrap(), self.dir.join("etc/onggi-rootfs"));
        let stamp = stamp.to_str().unwrap();
        // The directory itself was renamed after that, and the stamp's own is as old as the stamp.
        let (status, text) = host::tool(&["find", dir, "-mindepth", "1", "-cnewer", stamp]);
        assert!(status.success() && text.is_empty(), "changed by a container: {text}");
    }
}
