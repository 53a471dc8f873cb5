//! What an attacker does: exchanges a directory and a symlink in a tree that a runtime works on,
//! or runs a small C program in a container.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::host;

/// A thread that exchanges two names for each other as fast as it can, until it is dropped.
pub struct Swapper {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    pub fn new(one: &Path, other: &Path) -> Swapper {
        let [one, other] = [one, other].map(|path| CString::new(path.as_os_str().as_bytes()));
        let (one, other) = (one.unwrap(), other.unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (stopped, counter) = (stop.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if exchange(&one, &other) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Swapper { stop, count, thread: Some(thread) }
    }

    /// How often it has exchanged them.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn exchange(one: &CString, other: &CString) -> bool {
    let (at, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    unsafe { libc::renameat2(at, one.as_ptr(), at, other.as_ptr(), flags) == 0 }
}

/// A directory of the host that no container may change, with files that must stay as they are.
pub struct Outside {
    dir: PathBuf,
    before: Vec<String>,
}

impl Outside {
    pub fn new(dir: PathBuf) -> Outside {
        fs::create_dir_all(dir.join("dir")).unwrap();
        fs::write(dir.join("file"), "secret\n").unwrap();
        fs::write(dir.join("dir/file"), "inner secret\n").unwrap();
        let before = listing(&dir);
        Outside { dir, before }
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn text(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    /// Nothing has been made, written, chmoded or mounted there.
    #[track_caller]
    pub fn assert_untouched(&self) {
        assert_eq!(listing(&self.dir), self.before, "the host's directory has changed");
    }
}

/// Every file below a directory with its inode, mode, owner and content.
fn listing(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, facts) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
        let content = match facts.is_file() {
            true => fs::read(&path).unwrap_or_default(),
            false => Vec::new(),
        };
        lines.push(format!(
            "{path:?} {} {:o} {} {} {content:?}",
            facts.ino(),
            facts.mode(),
            facts.uid(),
            facts.gid()
        ));
        if facts.is_dir() {
            lines.extend(listing(&path));
        }
    }
    lines.sort();
    lines
}

/// Compiles a static C program. `require!(program("cc"))` comes before.
#[track_caller]
pub fn compile(source: &str, to: &Path) {
    let file = to.with_extension("c");
    fs::write(&file, source).unwrap();
    let (file, to) = (file.to_str().unwrap().to_string(), to.to_str().unwrap());
    let (status, text) = host::tool(&["cc", "-static", "-O1", "-w", "-o", to, &file]);
    assert!(status.success(), "{text}");
    fs::remove_file(file).unwrap();
}
