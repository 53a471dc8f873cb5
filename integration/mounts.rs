//! Mounts: their order, their sources and targets, and what is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::support::attack::Outside;
use crate::support::refusal::{refused, refused_at};
use crate::support::{Bundle, Output, host};

/// A file of the host beside the bundle.
fn host_file(bundle: &Bundle, name: &str, content: &str) -> String {
    let path = bundle.dir().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_string()
}

fn tmpfs(target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
}

/// The pointer of the mount that was added last.
fn last_pointer(bundle: &Bundle) -> String {
    format!("/mounts/{}", bundle.config()["mounts"].as_array().unwrap().len() - 1)
}

/// Runs a shell script in a container with these mounts added.
fn run(bundle: &Bundle, mounts: Vec<Value>, script: &str) -> Output {
    bundle.edit(|config| {
        for mount in mounts {
            config.push("/mounts", mount);
        }
        config.sh(script)
    });
    bundle.container("web").run()
}

#[test]
fn mounts_happen_in_order_later_ones_cover_earlier_ones() {
    require!(root);
    let bundle = Bundle::new();
    let [one, two] = ["one", "two"].map(|name| host_file(&bundle, name, name));
    let bind = |source: &str, target: &str| json!({ "destination": target, "source": source, "options": ["bind"] });
    // The first file is covered by the tmpfs, the second lies in it.
    let mounts = vec![bind(&one, "/mnt/one"), tmpfs("/mnt", &[]), bind(&two, "/mnt/two")];
    let output = run(&bundle, mounts, "ls /mnt; cat /mnt/two").ok();
    assert_eq!(output.stdout, "two\ntwo");
}

#[test]
fn mounts_the_same_place_twice() {
    require!(root);
    let bundle = Bundle::new();
    let mounts = vec![tmpfs("/mnt", &["size=64k"]), tmpfs("/mnt", &["size=128k"])];
    let output = run(&bundle, mounts, "grep -c ' /mnt ' /proc/self/mountinfo; df -k /mnt").ok();
    assert!(output.stdout.starts_with("2\n") && output.stdout.contains(" 128 "), "{output}");
}

/// The spec: `bind` or `rbind` makes a bind mount, whatever the type says.
#[test]
fn bind_mount_by_option_whatever_its_type_is() {
    require!(root);
    for kind in [json!("none"), json!("bind"), json!(""), Value::Null] {
        let bundle = Bundle::new();
        let source = host_file(&bundle, "source", "hello");
        let mut mount =
            json!({ "destination": "/file", "type": kind, "source": source, "options": ["bind"] });
        if kind.is_null() {
            mount.as_object_mut().unwrap().remove("type");
        }
        assert_eq!(run(&bundle, vec![mount], "cat /file").ok().stdout, "hello", "type {kind}");
    }
}

/// The spec: a relative source is relative to the bundle.
#[test]
fn bind_mount_with_a_relative_source_is_below_the_bundle() {
    require!(root);
    let bundle = Bundle::new();
    fs::write(bundle.path().join("hosts"), "127.0.0.1").unwrap();
    let mount = json!({ "destination": "/etc/hosts", "type": "bind", "source": "hosts", "options": ["bind"] });
    assert_eq!(run(&bundle, vec![mount], "cat /etc/hosts").ok().stdout, "127.0.0.1");
}

#[test]
fn bind_mount_is_the_same_file_and_writable() {
    require!(root);
    let bundle = Bundle::new();
    let source = host_file(&bundle, "source", "");
    let mount =
        json!({ "destination": "/file", "type": "bind", "source": source, "options": ["bind"] });
    let output = run(&bundle, vec![mount], "echo written > /file; stat -c %i /file").ok();
    assert_eq!(fs::read_to_string(&source).unwrap(), "written\n");
    assert_eq!(output.stdout.trim(), fs::metadata(&source).unwrap().ino().to_string());
}

/// docker makes 127 and a hint of this phrase.
#[test]
fn bind_mount_of_a_file_on_a_directory_is_not_a_directory() {
    require!(root);
    let bundle = Bundle::new();
    let source = host_file(&bundle, "source", "");
    bundle.edit(|config| config.bind(&source, "/etc", &[]));
    let web = bundle.container("web");
    let output = web.create().fails();
    assert!(output.stderr.to_lowercase().contains("not a directory"), "{output}");
    assert!(output.stderr.contains(&format!("{}:", last_pointer(&bundle))), "{output}");
    bundle.assert_clean();
}

#[test]
fn bind_mount_of_a_directory_on_a_file_is_not_a_directory() {
    require!(root);
    let bundle = Bundle::new();
    let source = bundle.dir().join("directory");
    fs::create_dir(&source).unwrap();
    bundle.edit(|config| config.bind(source.to_str().unwrap(), "/etc/passwd", &[]));
    let web = bundle.container("web");
    let output = web.create().fails();
    assert!(output.stderr.to_lowercase().contains("not a directory"), "{output}");
    assert!(output.stderr.contains(&format!("{}:", last_pointer(&bundle))), "{output}");
    bundle.assert_clean();
}

/// docker and podman make 127 of this phrase.
#[test]
fn bind_mount_with_a_missing_source_is_no_such_file_or_directory() {
    require!(root);
    let bundle = Bundle::with(|config| config.bind("/no/such/source", "/mnt", &["rbind"]));
    let pointer = last_pointer(&bundle);
    let output = refused_at(&bundle, &[&pointer]).fails_with("no such file or directory");
    assert!(output.stderr.contains("/no/such/source"), "{output}");
}

/// Sources are opened before any target is touched (CVE-2021-30465): a source that is missing at
/// the end of the list means that nothing at all has been made in the rootfs.
#[test]
fn missing_source_of_the_last_mount_leaves_the_rootfs_untouched() {
    require!(root);
    let bundle = Bundle::new();
    let good = host_file(&bundle, "good", "");
    bundle.edit(|config| {
        config.bind(&good, "/made/by/bind", &[]);
        config.push("/mounts", tmpfs("/made-by-tmpfs", &[]));
        config.bind("/no/such/source", "/mnt", &["rbind"])
    });
    refused(&bundle);
    for name in ["made", "made-by-tmpfs", "mnt"] {
        assert!(!bundle.rootfs().join(name).exists(), "{name} has been made");
    }
}

/// What a mount makes is not the source of another one: all sources are the host's.
#[test]
fn source_is_never_taken_from_what_an_earlier_mount_brings() {
    require!(root);
    let bundle = Bundle::new();
    let source = bundle.dir().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "the host's").unwrap();
    // An attacker's volume is mounted over the very place where the next source lies.
    let place = bundle.rootfs().join("place");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("file"), "before").unwrap();
    bundle.edit(|config| {
        config.bind(source.to_str().unwrap(), "/place", &[]);
        config.bind(place.to_str().unwrap(), "/mnt", &[]);
        config.sh("cat /place/file; echo; cat /mnt/file")
    });
    assert_eq!(bundle.container("web").run().ok().stdout, "the host's\nbefore");
}

#[test]
fn missing_targets_are_created_directories_and_files() {
    require!(root);
    let bundle = Bundle::new();
    let file = host_file(&bundle, "source", "hello");
    bundle.share("/new/dir/deep");
    bundle.edit(|config| config.bind(&file, "/other/new/file", &[]).sh("cat /other/new/file"));
    assert_eq!(bundle.container("web").run().ok().stdout, "hello");
    let rootfs = bundle.rootfs();
    assert!(rootfs.join("new/dir/deep").is_dir());
    let facts = fs::symlink_metadata(rootfs.join("other/new/file")).unwrap();
    assert!(facts.is_file() && facts.len() == 0);
    assert_eq!(facts.mode() & 0o022, 0, "writable by others");
}

/// A symlink in the image leads somewhere in the container, never to the host.
#[test]
fn symlinks_in_targets_stay_inside_the_rootfs() {
    require!(root);
    let bundle = Bundle::new();
    let outside = Outside::new(bundle.dir().join("outside"));
    for (name, to) in [
        ("absolute", outside.text().to_string()),
        ("relative", "../../../../../../../..".to_string() + outside.text()),
        ("chain", "absolute".to_string()),
    ] {
        symlink(to, bundle.rootfs().join(name)).unwrap();
    }
    let source = host_file(&bundle, "source", "hello");
    bundle.edit(|config| {
        for name in ["absolute", "relative", "chain"] {
            config.bind(&source, &format!("/{name}/made-{name}"), &[]);
            config.push("/mounts", tmpfs(&format!("/{name}/tmpfs-{name}"), &[]));
        }
        config.sh("cat /absolute/made-absolute /relative/made-relative /chain/made-chain")
    });
    let output = bundle.container("web").run().ok();
    assert_eq!(output.stdout, "hellohellohello");
    outside.assert_untouched();
    let inside = bundle.rootfs().join(outside.text().trim_start_matches('/'));
    assert!(inside.join("made-chain").is_file() && inside.join("tmpfs-relative").is_dir());
}

/// As on a system with merged /usr; `..` is of the directory that a link leads to, not of the link's own.
#[test]
fn target_by_a_dangling_relative_link_in_a_linked_directory_is_made_where_it_leads() {
    require!(root);
    let bundle = Bundle::new();
    fs::create_dir_all(bundle.rootfs().join("usr/lib")).unwrap();
    symlink("usr/lib", bundle.rootfs().join("lib64")).unwrap();
    symlink("../share/modules", bundle.rootfs().join("usr/lib/modules")).unwrap();
    symlink("../share/cfg", bundle.rootfs().join("usr/lib/cfg")).unwrap();
    let source = host_file(&bundle, "source", "hello");
    bundle.edit(|config| {
        config.push("/mounts", tmpfs("/lib64/modules", &[])).bind(&source, "/lib64/cfg", &[]);
        config.sh("touch /lib64/modules/x && cat /usr/lib/cfg && ls /usr/share/modules")
    });
    assert_eq!(bundle.container("web").run().ok().stdout, "hellox\n");
    assert!(!bundle.rootfs().join("share").exists());
}

#[test]
fn target_that_is_a_symlink_itself_is_followed_inside() {
    require!(root);
    let bundle = Bundle::new();
    let outside = Outside::new(bundle.dir().join("outside"));
    symlink(outside.text(), bundle.rootfs().join("link")).unwrap();
    let source = bundle.dir().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "hello").unwrap();
    bundle.edit(|config| config.bind(source.to_str().unwrap(), "/link", &[]).sh("cat /link/file"));
    assert_eq!(bundle.container("web").run().ok().stdout, "hello");
    outside.assert_untouched();
}

/// Deprecated, but engines of old wrote it: a relative target is below `/`.
#[test]
fn relative_target_is_below_the_root() {
    require!(root);
    let bundle = Bundle::new();
    let output =
        run(&bundle, vec![tmpfs("mnt/here", &[])], "grep -c ' /mnt/here ' /proc/self/mountinfo");
    assert_eq!(output.ok().stdout, "1\n");
}

/// `..` in a target cannot leave the container.
#[test]
fn target_with_dots_stays_inside() {
    require!(root);
    let bundle = Bundle::new();
    let mounts = vec![tmpfs("/etc/../../../../mnt/./x", &[])];
    let output = run(&bundle, mounts, "grep -c ' /mnt/x ' /proc/self/mountinfo").ok();
    assert_eq!(output.stdout, "1\n");
    assert!(!std::path::Path::new("/mnt/x").exists());
}

/// `invalid argument` alone helps nobody: the kernel says what it did not like.
#[test]
fn bad_filesystem_option_shows_the_kernels_own_message() {
    require!(root);
    let bundle = Bundle::with(|config| config.push("/mounts", tmpfs("/mnt", &["size=bogus"])));
    let output = refused_at(&bundle, &[&last_pointer(&bundle)]);
    output.fails_with("tmpfs: Bad value for 'size'");
}

#[test]
fn unknown_filesystem_option_shows_the_kernels_own_message() {
    require!(root);
    let bundle = Bundle::with(|config| config.push("/mounts", tmpfs("/mnt", &["no-such=1"])));
    let output = refused_at(&bundle, &[&last_pointer(&bundle)]);
    output.fails_with("tmpfs: Unknown parameter 'no-such'");
}

#[test]
fn unknown_filesystem_type_is_no_such_device() {
    require!(root);
    let mount = json!({ "destination": "/mnt", "type": "nosuchfs", "source": "x" });
    let bundle = Bundle::with(|config| config.push("/mounts", mount));
    refused_at(&bundle, &[&last_pointer(&bundle)]).fails_with("no such device");
}

/// What the container sees of its cgroup: its own part only, and not to be written.
#[test]
fn cgroup_mount_shows_the_own_cgroup_read_only() {
    require!(root);
    let dir = if host::is_v2() { "" } else { "/pids" };
    let script = format!(
        "cat /sys/fs/cgroup{dir}/cgroup.procs; mkdir /sys/fs/cgroup{dir}/sub; \
         echo 1 > /sys/fs/cgroup{dir}/cgroup.procs; ls /sys/fs/cgroup"
    );
    let bundle = Bundle::sh(&script);
    let web = bundle.container("web");
    let output = web.run();
    assert!(output.stdout.starts_with("1\n"), "{output}");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output}");
    if !host::is_v2() {
        assert!(output.stdout.contains("memory\n") && output.stdout.contains("freezer\n"));
    }
}

/// Not the whole hierarchy of the host, with or without a cgroup namespace.
#[test]
fn cgroup_mount_never_shows_other_cgroups() {
    require!(root);
    for namespace in [true, false] {
        let bundle = Bundle::with(|config| config.share_namespace("cgroup"));
        if namespace {
            bundle.edit(|config| config.push("/linux/namespaces", json!({ "type": "cgroup" })));
        }
        let other = bundle.another("other", |config| config);
        other.up();
        let web = bundle.container("web");
        web.up();
        let found =
            web.sh("find /sys/fs/cgroup -type d | sed 's,/[^/]*$,,' | grep -c other").fails();
        assert_eq!(found.stdout, "0\n");
        web.stop();
        web.delete().ok();
    }
}

/// Engines write lower directories of overlays into one option: fsconfig takes 255 bytes.
#[test]
fn overlay_with_data_options_longer_than_255_bytes() {
    require!(root);
    if !fs::read_to_string("/proc/filesystems").unwrap().contains("\toverlay\n") {
        let fact = "the overlay filesystem".to_string();
        crate::support::need::Need { fact, met: false }.skip("::mounts::overlay_with_data_options");
        return;
    }
    let bundle = Bundle::new();
    let mut lowers = Vec::new();
    for layer in 0..16 {
        let dir = bundle.dir().join(format!("layer-{layer}-{}", "x".repeat(40)));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(format!("file-{layer}")), "").unwrap();
        fs::write(dir.join("common"), layer.to_string()).unwrap();
        lowers.push(dir.to_str().unwrap().to_string());
    }
    let option = format!("lowerdir={}", lowers.join(":"));
    assert!(option.len() > 1000);
    let mount = json!({ "destination": "/mnt", "type": "overlay", "source": "overlay", "options": [option] });
    let output = run(&bundle, vec![mount], "ls /mnt | wc -l; cat /mnt/common").ok();
    assert_eq!(output.stdout, "17\n0");
}

/// podman run --read-only --read-only-tmpfs=false: devices, links, the console and mount points are made in /dev all
/// the same.
#[test]
fn tmpfs_that_is_read_only_has_what_belongs_into_it() {
    require!(root);
    let bundle = Bundle::with(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().unwrap().push("ro".into());
            }
        }
        config.push("/mounts", tmpfs("/mnt", &["ro", "mode=755"]));
        config.push("/mounts", tmpfs("/mnt/below", &["mode=755"]));
        config.set("/process/cwd", "/mnt/cwd");
        config.sh("pwd; echo x > /dev/null && ls -d /dev/pts/ptmx /dev/fd && touch /mnt/below/x; \
            touch /dev/x; touch /mnt/x")
    });
    let output = bundle.container("web").run();
    assert_eq!(output.stdout, "/mnt/cwd\n/dev/fd\n/dev/pts/ptmx\n", "{output}");
    for path in ["/dev/x", "/mnt/x"] {
        assert!(
            output.stderr.contains(&format!("touch: {path}: Read-only file system")),
            "{output}"
        );
    }
}

/// Not the mount alone: nothing may be written to a device that is given read-only, not even its journal. A tmpfs
/// takes any name for a device.
#[test]
fn ro_of_a_filesystem_with_a_device_is_that_of_the_filesystem_too() {
    require!(root);
    for (source, super_option) in [("/dev/sdb1", "ro"), ("none", "rw")] {
        let mount =
            json!({ "destination": "/mnt", "type": "tmpfs", "source": source, "options": ["ro"] });
        let output = run(&Bundle::new(), vec![mount], "grep ' /mnt ' /proc/self/mountinfo").ok();
        let after = output.stdout.split(" - tmpfs ").nth(1).unwrap().to_string();
        let options = after.split(' ').nth(1).unwrap();
        assert_eq!(options.split(',').next().unwrap().trim(), super_option, "{output}");
    }
}

/// Too long for fsconfig, so by mount(2): the flags of the superblock go along.
#[test]
fn superblock_flags_of_a_mount_with_a_long_data_option() {
    require!(root);
    let bundle = Bundle::new();
    let long = format!("{}/{}", "u".repeat(200), "w".repeat(100));
    for dir in ["upper", "work"] {
        fs::create_dir_all(bundle.dir().join(dir).join(&long)).unwrap();
    }
    let dir = |name: &str| bundle.dir().join(name).join(&long).to_str().unwrap().to_string();
    let lower = bundle.rootfs();
    let options = [
        format!("lowerdir={}", lower.to_str().unwrap()),
        format!("upperdir={}", dir("upper")),
        format!("workdir={}", dir("work")),
        "sync".to_string(),
    ];
    let mount = json!({ "destination": "/mnt", "type": "overlay", "source": "overlay", "options": options });
    let output = run(&bundle, vec![mount], "grep ' /mnt ' /proc/self/mountinfo").ok();
    assert!(output.stdout.contains(" - overlay overlay rw,sync,"), "{output}");
}

/// T1, CVE-2015-3630: labels and sysctls go through /proc; nothing may stand in for it.
#[test]
fn t1_mount_over_proc_or_below_is_refused() {
    require!(root);
    for target in
        ["/proc", "/proc/self/attr", "/proc/sys/kernel", "/proc/sys", "/proc/1", "//proc/./sys/"]
    {
        let bundle = Bundle::with(|config| config.push("/mounts", tmpfs(target, &[])));
        refused(&bundle);
        let source = bundle.dir().join("fake");
        fs::create_dir_all(&source).unwrap();
        bundle.edit(|config| {
            let last = config["mounts"].as_array().unwrap().len() - 1;
            config.remove(&format!("/mounts/{last}"));
            config.bind(source.to_str().unwrap(), target, &["rbind"])
        });
        refused_at(&bundle, &[&last_pointer(&bundle)]);
    }
}

/// T1: the same through a symlink of the image.
#[test]
fn t1_mount_below_proc_by_a_symlink_is_refused() {
    require!(root);
    for to in ["/proc/sys", "proc/self", "/tmp/../proc/sys/kernel"] {
        let bundle = Bundle::with(|config| config.push("/mounts", tmpfs("/link", &[])));
        symlink(to, bundle.rootfs().join("link")).unwrap();
        refused(&bundle);
    }
}

/// What lxcfs and engines do put there.
#[test]
fn t1_lxcfs_files_below_proc_are_allowed() {
    require!(root);
    let bundle = Bundle::new();
    let file = host_file(&bundle, "meminfo", "MemTotal: 1 kB\n");
    bundle.edit(|config| config.bind(&file, "/proc/meminfo", &[]).args(&["cat", "/proc/meminfo"]));
    assert_eq!(bundle.container("web").run().ok().stdout, "MemTotal: 1 kB\n");
}

/// T6, CVE-2019-19921: /proc or /sys of the image leads elsewhere.
#[test]
fn t6_proc_or_sys_that_is_a_symlink_is_refused() {
    require!(root);
    for name in ["proc", "sys"] {
        for to in ["/tmp", "tmp", "/etc"] {
            let bundle = Bundle::new();
            fs::remove_dir(bundle.rootfs().join(name)).unwrap();
            symlink(to, bundle.rootfs().join(name)).unwrap();
            let output = refused(&bundle);
            assert!(output.stderr.contains(&format!("/{name}")), "{output}");
        }
    }
}

/// runc and crun do it, and `docker run --tmpfs /run` of an image where /run is 0755 counts on it: the kernel's
/// own default would be 1777.
#[test]
fn tmpfs_without_a_mode_has_that_of_its_target() {
    require!(root);
    let mount = |target: &str, options: &[&str]| json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options });
    let bundle = Bundle::with(|config| {
        config.push("/mounts", mount("/there", &[])).push("/mounts", mount("/there/new", &[]));
        config.push("/mounts", mount("/other", &["mode=0711"]))
    });
    for dir in ["there", "other"] {
        fs::create_dir(bundle.rootfs().join(dir)).unwrap();
        fs::set_permissions(bundle.rootfs().join(dir), fs::Permissions::from_mode(0o2750)).unwrap();
    }
    let web = bundle.container("web");
    web.up();
    let modes = web.sh("stat -c %a /there /there/new /other").ok().stdout;
    assert_eq!(modes, "2750\n1777\n711\n");
}
