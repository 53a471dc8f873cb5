//! What a container's `cgroup` mount shows.

use super::record::Record;

/// One hierarchy as it shall appear in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMount {
    /// The name of its directory below the mount's destination: `cpu,cpuacct`, `systemd`, `unified`.
    /// Empty on a pure v2 host: cgroup2 is the mount itself, not a directory in a tmpfs.
    pub name: String,
    /// Links beside it to `name`, one for each controller of several: `cpu`, `cpuacct`.
    pub links: Vec<String>,
    /// Filesystem type: `cgroup` or `cgroup2`.
    pub fstype: &'static str,
    /// Data of a new mount, which shows the container's own part in a cgroup namespace:
    /// `cpu,cpuacct`, `none,name=systemd`; empty for cgroup2.
    pub options: String,
    /// The container's directory on the host, to be bound where there is no cgroup namespace.
    pub dir: String,
}

/// The hierarchies of a container, in the host's order.
#[must_use]
pub fn mounts(record: &Record) -> Vec<CgroupMount> {
    let pure_v2 = record.places.iter().all(super::Place::is_v2);
    let mut all = Vec::with_capacity(record.places.len());
    for place in &record.places {
        let name = match place.mount.rsplit_once('/') {
            Some((_, last)) if !pure_v2 => last.to_owned(),
            _ => String::new(),
        };
        let (fstype, options) = match place.controllers.as_str() {
            "" => ("cgroup2", String::new()),
            named if named.starts_with("name=") => ("cgroup", format!("none,{named}")),
            controllers => ("cgroup", controllers.to_owned()),
        };
        // A mount point without its controllers' names (/sys/fs/cgroup/cpu for both of cpu,cpuacct)
        // gets links for those it does not name.
        let links = place
            .controllers
            .split(',')
            .filter(|one| !one.is_empty() && !one.starts_with("name=") && *one != name)
            .map(str::to_owned)
            .collect();
        all.push(CgroupMount { name, links, fstype, options, dir: place.dir() });
    }
    all
}
