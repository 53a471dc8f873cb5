use super::super::layout::{Side, parse};

const OWN_HYBRID: &str = "\
9:name=systemd:/
4:memory:/jobs/7
2:cpu,cpuacct:/
0::/jobs/7
";

const HYBRID: &str = "\
23 1 0:20 / /sys rw - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
1 0 8:1 / / rw - ext4 /dev/root rw
";

fn shown(own: &str, mountinfo: &str) -> Vec<String> {
    let layout = parse(own, mountinfo);
    let v1 = layout.v1.iter().map(|one| (one.controllers.join("+"), &one.mount, &one.self_path));
    let v2 = layout.v2.iter().map(|one| ("v2".to_owned(), &one.mount, &one.self_path));
    v1.chain(v2).map(|(name, mount, own)| format!("{name} {mount} {own}")).collect()
}

#[test]
fn hybrid_host() {
    assert_eq!(
        shown(OWN_HYBRID, HYBRID),
        [
            "name=systemd /sys/fs/cgroup/systemd /",
            "memory /sys/fs/cgroup/memory /jobs/7",
            "cpu+cpuacct /sys/fs/cgroup/cpu,cpuacct /",
            "v2 /sys/fs/cgroup/unified /jobs/7",
        ]
    );
    assert_eq!(parse(OWN_HYBRID, HYBRID).side("cpuacct"), Some(Side::V1));
    assert_eq!(parse(OWN_HYBRID, HYBRID).side("pids"), None);
}

/// A cgroup2 mounted over the tmpfs hides the v1 mounts, which mountinfo still lists.
#[test]
fn overmounted_hierarchies_do_not_count() {
    let over = format!("{HYBRID}50 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n");
    assert_eq!(shown(OWN_HYBRID, &over), ["v2 /sys/fs/cgroup /jobs/7"]);
}

/// A mount point above that is itself hidden hides nothing.
#[test]
fn mounts_hidden_by_a_later_one_do_not_hide_what_is_in_that() {
    let info = "\
1 0 8:1 / / rw - ext4 r rw
2 1 0:5 / /a/b rw - tmpfs t rw
3 1 0:6 / /a rw - tmpfs t rw
4 3 0:7 / /a/b/c rw - cgroup2 none rw
";
    assert_eq!(shown("0::/x\n", info), ["v2 /a/b/c /x"]);
}

#[test]
fn copies_of_a_mount_elsewhere_are_not_taken() {
    let copy = "90 1 0:32 / /var/lib/x/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let info = format!("{copy}{HYBRID}");
    assert!(shown(OWN_HYBRID, &info).contains(&"memory /sys/fs/cgroup/memory /jobs/7".to_owned()));
}

/// In a container without a cgroup namespace the mount shows only our own part.
#[test]
fn own_path_is_relative_to_the_root_of_the_mount() {
    let info = "\
1 0 8:1 / / rw - overlay o rw
2 1 0:32 /docker/abc /sys/fs/cgroup/memory ro master:3 - cgroup cgroup rw,memory
3 1 0:33 /docker/abc /mnt/with\\040space rw - cgroup cgroup rw,pids
";
    let own = "4:memory:/docker/abc/sub\n3:pids:/docker/abc\n0::/docker/abc\n";
    assert_eq!(shown(own, info), ["memory /sys/fs/cgroup/memory /sub", "pids /mnt/with space /"]);
}

#[test]
fn no_cgroups_at_all() {
    assert!(shown("0::/\n", "1 0 8:1 / / rw - ext4 r rw\n").is_empty());
    assert!(shown("", "").is_empty());
    assert!(shown("garbage\n::::\n", " - cgroup\n1 - cgroup2\n").is_empty());
}
