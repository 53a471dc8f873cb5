//! The table of mount options (config.md, "Linux mount options") and what each means to the mount calls.

/// Attributes of a mount to set and to clear (`mount_setattr`(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
}

impl Attributes {
    /// Whether they would change anything.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Attributes of `mount_setattr`(2).
pub mod attr {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    pub const ATIME: u64 = 0x70;
    pub const RELATIME: u64 = 0x0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// What an option does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Set and clear attributes of this mount.
    Attr(u64, u64),
    /// The same on the whole tree of mounts.
    Recursive(u64, u64),
    /// A propagation type: flag, and whether for the whole tree.
    Propagation(u64, bool),
    /// A flag of the superblock, by `FSCONFIG_SET_FLAG`.
    Super(&'static str),
    /// A bind mount; with all mounts below, or not.
    Bind(bool),
    /// Change an existing mount.
    Remount,
    /// Copy what lies below a tmpfs into it.
    TmpCopyUp,
    /// Idmapped mount; recursive or not.
    Idmap(bool),
    /// Nothing: the new mount calls refuse it (`silent`, `loud`, `iversion`, `noiversion`), or it is
    /// the default.
    Nothing,
}

use Effect::{Attr, Bind, Idmap, Nothing, Propagation, Recursive, Remount, Super, TmpCopyUp};

/// Every option that is no data for the filesystem, sorted by name.
pub const TABLE: &[(&str, Effect)] = &[
    ("async", Super("async")),
    ("atime", Attr(attr::RELATIME, attr::ATIME)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Attr(0, attr::NODEV)),
    ("diratime", Attr(0, attr::NODIRATIME)),
    ("dirsync", Super("dirsync")),
    ("exec", Attr(0, attr::NOEXEC)),
    ("idmap", Idmap(false)),
    ("iversion", Nothing),
    ("lazytime", Super("lazytime")),
    ("loud", Nothing),
    ("mand", Super("mand")),
    ("noatime", Attr(attr::NOATIME, attr::ATIME)),
    ("nodev", Attr(attr::NODEV, 0)),
    ("nodiratime", Attr(attr::NODIRATIME, 0)),
    ("noexec", Attr(attr::NOEXEC, 0)),
    ("noiversion", Nothing),
    ("nolazytime", Super("nolazytime")),
    ("nomand", Super("nomand")),
    ("norelatime", Attr(attr::STRICTATIME, attr::ATIME)),
    ("nostrictatime", Attr(attr::RELATIME, attr::ATIME)),
    ("nosuid", Attr(attr::NOSUID, 0)),
    ("nosymfollow", Attr(attr::NOSYMFOLLOW, 0)),
    ("private", Propagation(libc::MS_PRIVATE, false)),
    ("ratime", Recursive(attr::RELATIME, attr::ATIME)),
    ("rbind", Bind(true)),
    ("rdev", Recursive(0, attr::NODEV)),
    ("rdiratime", Recursive(0, attr::NODIRATIME)),
    ("relatime", Attr(attr::RELATIME, attr::ATIME)),
    ("remount", Remount),
    ("rexec", Recursive(0, attr::NOEXEC)),
    ("ridmap", Idmap(true)),
    ("rnoatime", Recursive(attr::NOATIME, attr::ATIME)),
    ("rnodev", Recursive(attr::NODEV, 0)),
    ("rnodiratime", Recursive(attr::NODIRATIME, 0)),
    ("rnoexec", Recursive(attr::NOEXEC, 0)),
    ("rnorelatime", Recursive(attr::STRICTATIME, attr::ATIME)),
    ("rnostrictatime", Recursive(attr::RELATIME, attr::ATIME)),
    ("rnosuid", Recursive(attr::NOSUID, 0)),
    ("rnosymfollow", Recursive(attr::NOSYMFOLLOW, 0)),
    ("ro", Attr(attr::RDONLY, 0)),
    ("rprivate", Propagation(libc::MS_PRIVATE, true)),
    ("rrelatime", Recursive(attr::RELATIME, attr::ATIME)),
    ("rro", Recursive(attr::RDONLY, 0)),
    ("rrw", Recursive(0, attr::RDONLY)),
    ("rshared", Propagation(libc::MS_SHARED, true)),
    ("rslave", Propagation(libc::MS_SLAVE, true)),
    ("rstrictatime", Recursive(attr::STRICTATIME, attr::ATIME)),
    ("rsuid", Recursive(0, attr::NOSUID)),
    ("rsymfollow", Recursive(0, attr::NOSYMFOLLOW)),
    ("runbindable", Propagation(libc::MS_UNBINDABLE, true)),
    ("rw", Attr(0, attr::RDONLY)),
    ("shared", Propagation(libc::MS_SHARED, false)),
    ("silent", Nothing),
    ("slave", Propagation(libc::MS_SLAVE, false)),
    ("strictatime", Attr(attr::STRICTATIME, attr::ATIME)),
    ("suid", Attr(0, attr::NOSUID)),
    ("symfollow", Attr(0, attr::NOSYMFOLLOW)),
    ("sync", Super("sync")),
    ("tmpcopyup", TmpCopyUp),
    ("unbindable", Propagation(libc::MS_UNBINDABLE, false)),
];

/// What a mount's options add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// For this mount.
    pub attr: Attributes,
    /// For the whole tree.
    pub recursive: Attributes,
    /// Propagation types in order: flag, whole tree.
    pub propagation: Vec<(u64, bool)>,
    /// Superblock flags.
    pub super_flags: Vec<&'static str>,
    /// A bind mount, with all below or not.
    pub bind: Option<bool>,
    /// Change an existing mount.
    pub remount: bool,
    /// Copy what lies below a tmpfs into it.
    pub tmpcopyup: bool,
    /// An idmapped mount was asked for, of the whole tree or not.
    pub idmap: Option<bool>,
    /// crun's `idmap=` and `ridmap=`: the map in the option.
    pub idmap_text: Option<String>,
    /// Everything else, for the filesystem: `key` or `key=value`.
    pub data: Vec<String>,
}

impl Options {
    /// The superblock flags as mount(2) takes them; the last of two that contradict each other counts.
    #[must_use]
    pub fn mount_flags(&self) -> u64 {
        /// Not in the C library's header (mount(2)).
        const MS_LAZYTIME: u64 = 1 << 25;
        self.super_flags.iter().fold(0, |flags, name| match *name {
            "sync" => flags | libc::MS_SYNCHRONOUS,
            "async" => flags & !libc::MS_SYNCHRONOUS,
            "dirsync" => flags | libc::MS_DIRSYNC,
            "lazytime" => flags | MS_LAZYTIME,
            "nolazytime" => flags & !MS_LAZYTIME,
            "mand" => flags | libc::MS_MANDLOCK,
            _ => flags & !libc::MS_MANDLOCK,
        })
    }

    /// The one propagation type that a bind mount's whole tree has from the start. A shared one must never be
    /// slave in between, for it would stay one and nothing would get out of the container any more; nor one
    /// that shall be slave be private, for it would have no master. Below the top of `shared` and `slave` the
    /// tree then is the same, as with runc, where engines say the same of the root.
    #[must_use]
    pub fn whole_propagation(&self) -> Option<u64> {
        match self.propagation.as_slice() {
            [(flag, true)] if *flag != libc::MS_UNBINDABLE => Some(*flag),
            [(flag @ (libc::MS_SHARED | libc::MS_SLAVE), false)] => Some(*flag),
            _ => None,
        }
    }
}

/// A later option wins over an earlier one, as in mount(8).
fn merge(into: &mut Attributes, set: u64, clear: u64) {
    into.set = into.set & !clear & !set | set;
    into.clear = into.clear & !set & !clear | clear;
    if (set | clear) & attr::ATIME != 0 {
        // The kernel wants the whole field cleared when any of it is set.
        into.clear |= attr::ATIME;
    }
}

/// Adds the options up.
#[must_use]
pub fn parse(options: &[String]) -> Options {
    let mut sum = Options::default();
    for option in options {
        let effect = TABLE.binary_search_by(|(name, _)| name.cmp(&option.as_str()));
        match effect.ok().and_then(|index| TABLE.get(index)).map(|(_, effect)| *effect) {
            Some(Attr(set, clear)) => merge(&mut sum.attr, set, clear),
            Some(Recursive(set, clear)) => merge(&mut sum.recursive, set, clear),
            Some(Propagation(flag, all)) => sum.propagation.push((flag, all)),
            Some(Super(name)) => sum.super_flags.push(name),
            Some(Bind(all)) => sum.bind = Some(all || sum.bind == Some(true)),
            Some(Remount) => sum.remount = true,
            Some(TmpCopyUp) => sum.tmpcopyup = true,
            Some(Idmap(all)) => sum.idmap = Some(all || sum.idmap == Some(true)),
            Some(Nothing) => {}
            None if option.is_empty() => {}
            None if option.starts_with("idmap=") || option.starts_with("ridmap=") => {
                let (name, map) = option.split_once('=').unwrap_or_default();
                sum.idmap = Some(name == "ridmap" || sum.idmap == Some(true));
                sum.idmap_text = Some(map.to_owned());
            }
            None => sum.data.push(option.clone()),
        }
    }
    sum
}

/// The flag of `linux.rootfsPropagation`, and whether it is for the whole tree (r-prefixed).
#[must_use]
pub fn rootfs_propagation(name: &str) -> Option<(u64, bool)> {
    match TABLE.iter().find(|(known, _)| *known == name) {
        Some((_, Propagation(flag, all))) => Some((*flag, *all)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Options {
        parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted_and_has_the_37_mandatory_options() {
        assert!(TABLE.is_sorted_by(|(a, _), (b, _)| a < b));
        let mandatory = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud \
            noatime nodev nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid \
            private rbind relatime remount ro rprivate rshared rslave runbindable rw shared silent \
            slave strictatime suid sync unbindable";
        assert_eq!(mandatory.split_whitespace().count(), 37);
        for option in mandatory.split_whitespace() {
            assert!(TABLE.iter().any(|(name, _)| *name == option), "{option}");
        }
    }

    #[test]
    fn later_options_win() {
        assert_eq!(parsed(&["ro", "rw"]).attr.set, 0);
        assert_eq!(parsed(&["rw", "ro"]).attr.set, attr::RDONLY);
        assert_eq!(parsed(&["noatime", "strictatime"]).attr.set, attr::STRICTATIME);
        assert_eq!(parsed(&["nosuid", "suid"]).attr.clear, attr::NOSUID);
    }

    #[test]
    fn unknown_options_are_data_for_the_filesystem() {
        assert_eq!(parsed(&["size=64k", "nosuid", "huge=never"]).data, ["size=64k", "huge=never"]);
    }
}
