//! A cgroup of its own for one exec'd process and all that it starts: a leaf below the container's, so
//! that limits and accounting stay with the container and one kill reaches everything.
//!
//! On v2, hybrid hosts included, it is in that tree, and no controller is enabled for its sake: a cgroup
//! without controllers may stand beside processes. On v1 it is in the freezer's hierarchy, where killing
//! means stopping first; the other hierarchies are the container's own.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::dir::{self, Dir};
use super::group::Group;
use super::remove::Leaf;
use super::walk;
use crate::error::{Code, Error, NOT_RUNNING, Result};
use crate::sys::{self, fs, xattr};

/// What such names begin with; then comes who made it.
const PREFIX: &str = "onggi-exec-";
/// The attribute that names its first process.
const FIRST: &CStr = c"user.onggi.first";
/// Most leaves looked at for what others have left.
const COLLECT_MAX: usize = 64;
/// How long what others have left may take to end; it is tried again by the next.
const COLLECT: Duration = Duration::from_millis(200);

/// The leaf of one exec.
#[derive(Debug)]
pub struct ExecLeaf {
    leaf: Leaf,
    group: Group,
}

impl Group {
    /// Makes a leaf that is entered in place of the cgroup it is in. `owner` names the runtime.
    ///
    /// # Errors
    /// When there is no hierarchy for it, or the kernel refuses.
    pub fn contain(&mut self, owner: &str) -> Result<ExecLeaf> {
        let place = self.contains().ok_or_else(|| {
            let why = "needs a cgroup v2 or a freezer hierarchy, and the container is in neither";
            Error::text(Code::E_EXEC_CONTAIN, format!("a contained process {why}"))
        })?;
        let name = format!("{PREFIX}{owner}");
        let c_name = sys::cstr("mkdir", &name)?;
        let named =
            |error: sys::Error| Error::at(Code::E_EXEC_CONTAIN, "a cgroup of its own")(error);
        match fs::mkdirat(place.as_fd(), &c_name, 0o755) {
            Err(error) if dir::is_gone(&error) => {
                return Err(Error::text(Code::E_NOT_RUNNING, NOT_RUNNING));
            }
            made => made.map_err(named)?,
        }
        let opened = open(place, c_name.clone());
        let entered = dir::open_below(place.as_fd(), &name, libc::O_RDONLY).map_err(named);
        match (opened, entered) {
            (Ok(leaf), Ok(fd)) => {
                place.place = leaf.leaf.dir.place.clone();
                place.fd = fd;
                Ok(leaf)
            }
            (Err(error), _) | (_, Err(error)) => {
                match fs::unlinkat(place.as_fd(), &c_name, libc::AT_REMOVEDIR) {
                    Ok(()) => Err(error),
                    Err(left) => Err(error.and(left)),
                }
            }
        }
    }

    /// The directory that leaves are made in.
    fn contains(&mut self) -> Option<&mut Dir> {
        let at = self
            .dirs
            .iter()
            .position(|dir| dir.place.is_v2())
            .or_else(|| self.dirs.iter().position(|dir| dir.place.has("freezer")))?;
        self.dirs.get_mut(at)
    }

    /// Ends what contained processes have left that are over themselves, and removes their leaves: those
    /// of runtimes that were killed, and of detached processes. `lives` knows runtimes and processes by
    /// name. What does not go is left to the next call, or to delete.
    ///
    /// # Errors
    /// When the leaves cannot be listed.
    pub fn collect(&mut self, lives: impl Fn(&str) -> Result<bool>) -> Result<()> {
        let Some(dir) = self.contains() else { return Ok(()) };
        let names = walk::children(dir.as_fd())?;
        let leaves =
            names.into_iter().filter(|name| name.to_bytes().starts_with(PREFIX.as_bytes()));
        for name in leaves.take(COLLECT_MAX) {
            let owner = name.to_string_lossy().into_owned();
            if lives(owner.trim_start_matches(PREFIX))? {
                continue;
            }
            let Ok(leaf) = open(dir, name) else { continue };
            match leaf.first() {
                Some(first) if lives(&first)? => {}
                // Whether it has gone or not is the next one's to see.
                _ => drop(leaf.end(COLLECT)),
            }
        }
        Ok(())
    }
}

fn open(above: &Dir, name: CString) -> Result<ExecLeaf> {
    let text = name.to_string_lossy().into_owned();
    let mut place = above.place.clone();
    place.path = format!("{}/{text}", place.path);
    let fd = || dir::open_below(above.as_fd(), &text, libc::O_RDONLY);
    let parent = fs::duplicate(above.as_fd())?;
    let group = Group::of(Dir::new(&place, fd()?, false));
    Ok(ExecLeaf { leaf: Leaf { parent, name, dir: Dir::new(&place, fd()?, false) }, group })
}

impl ExecLeaf {
    /// Notes the first process, by which a later runtime knows whether the leaf is still needed.
    ///
    /// # Errors
    /// When the attribute cannot be written.
    pub fn set_first(&self, first: &str) -> Result<()> {
        xattr::set(self.leaf.dir.as_fd(), FIRST, first.as_bytes())
            .map_err(Error::at(Code::E_EXEC_CONTAIN, "a cgroup of its own"))
    }

    /// None for one whose runtime died before there was a process.
    fn first(&self) -> Option<String> {
        let bytes = xattr::get(self.leaf.dir.as_fd(), FIRST).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// Kills everything in it and removes it.
    ///
    /// # Errors
    /// When something is left at `deadline`; names the processes.
    pub fn end(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        match fs::unlinkat(self.leaf.parent.as_fd(), &self.leaf.name, libc::AT_REMOVEDIR) {
            Ok(()) => return Ok(()),
            Err(error) if dir::is_gone(&error) => return Ok(()),
            Err(error) if error.errno != libc::EBUSY => return Err(error.into()),
            Err(_) => {}
        }
        self.group.kill(libc::SIGKILL, deadline)?;
        self.leaf.remove(true, end).map_err(|error| {
            let why = self.leaf.failure(&error);
            let text = format!("left {}: {why}", self.leaf.dir.place.dir());
            Error::text(Code::E_CGROUP, text)
        })
    }

    /// Its descriptors, for a process that keeps nothing else.
    #[must_use]
    pub fn descriptors(&self) -> Vec<u32> {
        let own = [&self.leaf.parent, &self.leaf.dir.fd].into_iter();
        let all = own.chain(self.group.dirs.iter().map(|dir| &dir.fd));
        all.map(|fd: &OwnedFd| fd.as_raw_fd().cast_unsigned()).collect()
    }
}
