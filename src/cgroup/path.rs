//! `linux.cgroupsPath`: which directory is meant, checked by its letters alone.

/// A container's place in every hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CgroupPath {
    /// Components joined by `/`, without one in front.
    pub path: String,
    /// Whether it starts at the runtime's own cgroup instead of the mount point.
    pub relative: bool,
}

/// Reads `linux.cgroupsPath`.
///
/// Absolute: below the mount point of each hierarchy. Relative: as runc has it, below the runtime's
/// own cgroup on v1 and *beside* it on v2, where a cgroup with processes cannot pass controllers on.
/// Absent: relative `onggi-ID`, a leaf without a parent of its own, so that delete leaves nothing.
/// `slice:prefix:name` has no meaning to the cgroupfs manager and is a relative path as any other.
pub(super) fn read(config: Option<&str>, id: &str) -> Result<CgroupPath, String> {
    let Some(config) = config.filter(|path| !path.is_empty()) else {
        let path = format!("onggi-{id}");
        check(&path)?;
        return Ok(CgroupPath { path, relative: true });
    };
    let (path, relative) = match config.strip_prefix('/') {
        Some(rest) => (rest, false),
        None => (config, true),
    };
    check(path)?;
    Ok(CgroupPath { path: path.to_owned(), relative })
}

/// Refuses everything that could lead elsewhere or spoil a line of a `/proc` file.
pub(super) fn check(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("names no cgroup below the root".to_owned());
    }
    if let Some(control) = path.chars().find(|letter| letter.is_control()) {
        return Err(format!("has the control character {control:?}"));
    }
    for component in path.split('/') {
        match component {
            "" => return Err("has an empty component".to_owned()),
            "." | ".." => return Err(format!("has the component \"{component}\"")),
            long if long.len() > 255 => return Err("has a component of over 255 bytes".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

impl CgroupPath {
    /// The path below a hierarchy's mount point, given the runtime's own cgroup there.
    pub fn below(&self, self_path: &str, v2: bool) -> String {
        if !self.relative {
            return self.path.clone();
        }
        let own = self_path.trim_matches('/');
        let base = if v2 { own.rsplit_once('/').map_or("", |(parent, _)| parent) } else { own };
        if base.is_empty() { self.path.clone() } else { format!("{base}/{}", self.path) }
    }
}
