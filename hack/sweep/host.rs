//! What the host looks like without any container of ours, and what a run has added to it.

use super::guard::{self, Place};
use anyhow::Result;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Things that are there and should not be, by kind.
#[derive(Default, Clone)]
pub struct Left {
    pub state: Vec<String>,
    pub cgroups: Vec<String>,
    pub units: Vec<String>,
    pub mounts: Vec<String>,
    pub processes: Vec<String>,
    pub files: Vec<String>,
}

impl Left {
    pub fn is_empty(&self) -> bool {
        self.kinds().is_empty()
    }

    fn all(&self) -> [(&'static str, &Vec<String>); 6] {
        [
            ("state", &self.state),
            ("cgroup", &self.cgroups),
            ("unit", &self.units),
            ("mount", &self.mounts),
            ("process", &self.processes),
            ("file", &self.files),
        ]
    }

    /// The kinds that have something left.
    pub fn kinds(&self) -> Vec<&'static str> {
        self.all().into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, _)| k).collect()
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let text: Vec<_> = (self.all().into_iter().filter(|(_, v)| !v.is_empty()))
            .map(|(kind, v)| format!("{} {kind} ({})", v.len(), v[0]))
            .collect();
        f.write_str(&text.join(", "))
    }
}

/// The undisturbed state.
pub struct Host<'a> {
    place: &'a Place,
    state: BTreeSet<String>,
    mounts: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl<'a> Host<'a> {
    /// Remembers how it is now, when no container exists.
    pub fn baseline(place: &'a Place) -> Result<Self> {
        Ok(Host {
            place,
            state: entries(&place.dir.join("state")),
            mounts: mounts()?,
            files: files(place),
        })
    }

    /// What has been added since.
    pub fn left(&self, id: &str) -> Result<Left> {
        guard::reap();
        let new = |now: BTreeSet<String>, then: &BTreeSet<String>| {
            now.difference(then).cloned().collect()
        };
        let name = |d: &std::path::PathBuf| {
            d.to_string_lossy().replace(&self.place.prefix, "*").replace(id, "ID")
        };
        let ours = self.place.cgroups();
        let ours =
            ours.iter().filter(|d| d.file_name().is_some_and(|n| n != self.place.prefix.as_str()));
        Ok(Left {
            state: new(entries(&self.place.dir.join("state")), &self.state),
            cgroups: ours.map(name).collect(),
            units: self.place.units(),
            mounts: new(mounts()?, &self.mounts),
            processes: guard::descendants()
                .iter()
                .map(|(pid, name)| format!("{name} {pid}"))
                .collect(),
            files: new(files(self.place), &self.files),
        })
    }

    /// Like `left`, but gives processes a moment to end and their cgroups to become free, and systemd one
    /// to notice.
    pub fn settled(&self, id: &str, patience: Duration) -> Result<Left> {
        let end = Instant::now() + self.place.patience(patience);
        loop {
            let left = self.left(id)?;
            let quiet = left.processes.is_empty() && left.units.is_empty();
            if quiet || Instant::now() > end {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes what a run left, so that the next one starts from the baseline.
    pub fn scrub(&self, left: &Left, id: &str) -> Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        self.place.thaw();
        guard::kill_descendants();
        self.place.remove_cgroups(id);
        for line in &left.mounts {
            let point = line.split(' ').nth(2).unwrap_or_default();
            guard::ignore(nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH));
        }
        for (dir, names) in [("state", &left.state), ("", &left.files)] {
            for name in names {
                let path = self.place.dir.join(dir).join(name);
                guard::ignore(fs::remove_file(&path));
                if path.is_dir() {
                    guard::ignore(fs::remove_dir_all(&path));
                }
            }
        }
        Ok(())
    }
}

fn entries(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Without the mount id, which changes when something is mounted anew.
fn mounts() -> Result<BTreeSet<String>> {
    let text = guard::mountinfo()?;
    Ok(text.lines().map(|l| l.split(' ').skip(2).collect::<Vec<_>>().join(" ")).collect())
}

/// The bundle and its rootfs, the directory of the pid file, and our directory itself.
fn files(place: &Place) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![place.dir.join("bundle"), place.dir.clone()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let ours = path.strip_prefix(&place.dir).unwrap_or(&path).display().to_string();
            let walked = ["state", "bundle", "io/out", "io/err"].contains(&ours.as_str());
            if !walked && found.insert(ours) && entry.file_type().is_ok_and(|t| t.is_dir()) {
                next.push(path);
            }
        }
    }
    found
}
