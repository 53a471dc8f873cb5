//! Mount options: the 37 that the spec makes mandatory, the recursive ones, and data options.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::support::process::Mount;
use crate::support::{Bundle, Call, Container};

/// What mountinfo must show of an option.
enum Shows {
    /// Among the options of the mount.
    Option(&'static str),
    /// Not among the options of the mount.
    NoOption(&'static str),
    /// Among the options of the filesystem.
    Super(&'static str),
    /// Not among the options of the filesystem.
    NoSuper(&'static str),
    /// In the propagation tags.
    Tag(&'static str),
    /// No propagation tags at all.
    NoTag,
    /// Just the mount.
    Mounted,
}

use Shows::{Mounted, NoOption, NoSuper, NoTag, Option, Super, Tag};

/// Options of a tmpfs: the one under test is the last; one before it must be undone by it.
/// config.md, "Linux mount options", the rows with MUST.
const TABLE: &[(&[&str], Shows)] = &[
    (&["sync", "async"], NoSuper("sync")),
    (&["noatime", "atime"], NoOption("noatime")),
    (&["ro", "defaults"], Mounted),
    (&["nodev", "dev"], NoOption("nodev")),
    (&["nodiratime", "diratime"], NoOption("nodiratime")),
    (&["dirsync"], Super("dirsync")),
    (&["noexec", "exec"], NoOption("noexec")),
    (&["iversion"], Mounted),
    (&["lazytime"], Super("lazytime")),
    (&["loud"], Mounted),
    (&["noatime"], Option("noatime")),
    (&["nodev"], Option("nodev")),
    (&["nodiratime"], Option("nodiratime")),
    (&["noexec"], Option("noexec")),
    (&["noiversion"], Mounted),
    (&["lazytime", "nolazytime"], NoSuper("lazytime")),
    (&["strictatime", "norelatime"], NoOption("relatime")),
    (&["strictatime", "nostrictatime"], Option("relatime")),
    (&["nosuid"], Option("nosuid")),
    (&["shared", "private"], NoTag),
    (&["noatime", "relatime"], Option("relatime")),
    (&["ro"], Option("ro")),
    (&["rshared", "rprivate"], NoTag),
    (&["rshared"], Tag("shared:")),
    (&["runbindable"], Tag("unbindable")),
    (&["ro", "rw"], Option("rw")),
    (&["shared"], Tag("shared:")),
    (&["silent"], Mounted),
    (&["strictatime"], NoOption("relatime")),
    (&["nosuid", "suid"], NoOption("nosuid")),
    (&["sync"], Super("sync")),
    (&["unbindable"], Tag("unbindable")),
];

/// The five that need a tree to show what they do; each has its test below.
const OTHERS: [&str; 5] = ["bind", "rbind", "remount", "rslave", "slave"];

fn agrees(mount: &Mount, shows: &Shows) -> bool {
    let has = |list: &str, word: &str| list.split(',').any(|option| option == word);
    match shows {
        Option(word) => has(&mount.options, word),
        NoOption(word) => !has(&mount.options, word),
        Super(word) => has(&mount.super_options, word),
        NoSuper(word) => !has(&mount.super_options, word),
        Tag(word) => mount.tags.contains(word),
        NoTag => mount.tags.is_empty(),
        Mounted => true,
    }
}

fn tmpfs(target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn target(options: &[&str]) -> String {
    format!("/mnt/{}", options.join("-"))
}

#[test]
fn all_37_mandatory_mount_options_are_in_the_tables() {
    let mut names: Vec<&str> = TABLE.iter().map(|(options, _)| *options.last().unwrap()).collect();
    names.extend(OTHERS);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 37);
}

#[test]
fn mandatory_mount_options_show_in_mountinfo() {
    require!(root);
    let bundle = Bundle::new();
    bundle.edit(|config| {
        for (options, _) in TABLE {
            config.push("/mounts", tmpfs(&target(options), options));
        }
        config
    });
    let web = bundle.container("web");
    web.create().ok();
    let mut wrong = Vec::new();
    for (options, shows) in TABLE {
        match web.init().mount_at(&target(options)) {
            Some(mount) if agrees(&mount, shows) => {}
            other => wrong.push(format!("{options:?}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Options without a meaning for the new mount calls are no reason to refuse a container.
#[test]
fn silent_loud_iversion_and_noiversion_are_accepted_alone_and_together() {
    require!(root);
    let names = ["silent", "loud", "iversion", "noiversion"];
    let bundle = Bundle::with(|config| config.push("/mounts", tmpfs("/mnt", &names)));
    bundle.edit(|config| config.bind("/etc", "/mnt2", &names).sh("touch /mnt/x && ls /mnt"));
    assert_eq!(bundle.container("web").run().ok().stdout, "x\n");
}

/// What the attributes do, not only what they show.
#[test]
fn noexec_nosuid_nodev_and_ro_take_effect_inside() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.push("/mounts", tmpfs("/noexec", &["noexec"]));
        config.push("/mounts", tmpfs("/ro", &["ro"]));
        config.push("/mounts", tmpfs("/exec", &["exec"]));
        config.sh(
            "for d in noexec exec; do cp /bin/busybox /$d/echo; /$d/echo $d; done; touch /ro/file",
        )
    });
    let web = bundle.container("web");
    let output = web.run();
    assert_eq!(output.stdout, "exec\n", "{output}");
    assert!(output.stderr.contains("Permission denied"), "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
}

/// Lets the runtime run where `tree` is a tmpfs with another one at `tree/sub`, seen by nobody
/// else.
fn with_tree(bundle: &Bundle, call: Call, propagation: &str) -> Call {
    let tree = bundle.dir().join("tree");
    fs::create_dir_all(&tree).unwrap();
    // Private first: where the host's own mounts are shared these would be their peers.
    let script = r#"mount --make-r$1 /; shift; mount -t tmpfs top "$0"; mkdir "$0/sub" "$0/dir"; echo top > "$0/file"
        mount -t tmpfs sub "$0/sub"; echo sub > "$0/sub/file"; ln -s file "$0/sub/link"
        cp /bin/true "$0/sub/true"; exec "$@""#;
    let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    let mut wrapper = wrapper.to_vec();
    wrapper.extend([tree.to_str().unwrap(), propagation]);
    call.through(&wrapper)
}

/// Creates a container with the tree bound to /mnt by these options.
fn bind_tree<'b>(bundle: &'b Bundle, options: &[&str], propagation: &str) -> Container<'b> {
    let tree = bundle.dir().join("tree");
    let mount =
        json!({ "destination": "/mnt", "type": "none", "source": tree, "options": options });
    bundle.edit(|config| config.push("/mounts", mount));
    let web = bundle.container("web");
    with_tree(bundle, web.call("create", &[]), propagation).run().ok();
    web.start().ok();
    web
}

/// The options of /mnt and /mnt/sub.
#[track_caller]
fn pair(web: &Container) -> (String, String) {
    let of = |target: &str| web.init().mount_at(target).unwrap().options;
    (of("/mnt"), of("/mnt/sub"))
}

#[test]
fn bind_takes_the_top_mount_only() {
    require!(root);
    let bundle = Bundle::new();
    let web = bind_tree(&bundle, &["bind"], "private");
    assert!(web.init().mount_at("/mnt").is_some() && web.init().mount_at("/mnt/sub").is_none());
    assert_eq!(web.sh("cat /mnt/file; ls /mnt/sub").ok().stdout, "top\n");
}

#[test]
fn rbind_takes_the_mounts_below_with_it() {
    require!(root);
    let bundle = Bundle::new();
    let web = bind_tree(&bundle, &["rbind"], "private");
    assert_eq!(web.sh("cat /mnt/file /mnt/sub/file").ok().stdout, "top\nsub\n");
}

/// The spec: `ro` is not recursive, not even on an rbind.
#[test]
fn rbind_with_ro_leaves_the_mounts_below_writable() {
    require!(root);
    let bundle = Bundle::new();
    let web = bind_tree(&bundle, &["rbind", "ro"], "private");
    let output = web.sh("touch /mnt/sub/new; touch /mnt/new");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 1, "{output}");
}

/// An option and what both mounts must (or must not) show, given on a tree bound with the second.
#[test]
fn recursive_attributes_hold_for_the_mounts_below() {
    require!(root);
    for (option, shows) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rrelatime", "relatime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        let bundle = Bundle::new();
        let web = bind_tree(&bundle, &["rbind", option], "private");
        let (top, sub) = pair(&web);
        let has = |list: &str| list.split(',').any(|word| word == shows);
        assert!(has(&top) && has(&sub), "{option}: {top} / {sub}");
    }
}

#[test]
fn recursive_strictatime_holds_for_the_mounts_below() {
    require!(root);
    let bundle = Bundle::new();
    let (top, sub) = pair(&bind_tree(&bundle, &["rbind", "rstrictatime"], "private"));
    assert!(!top.contains("relatime") && !sub.contains("relatime"), "{top} / {sub}");
    assert!(!top.contains("noatime") && !sub.contains("noatime"), "{top} / {sub}");
}

/// The clearing forms, each after the setting one.
#[test]
fn recursive_attributes_are_cleared_again_by_later_ones() {
    require!(root);
    for (set, clear, word) in [
        ("rro", "rrw", "ro"),
        ("rnosuid", "rsuid", "nosuid"),
        ("rnodev", "rdev", "nodev"),
        ("rnoexec", "rexec", "noexec"),
        ("rnoatime", "ratime", "noatime"),
        ("rnodiratime", "rdiratime", "nodiratime"),
        ("rnosymfollow", "rsymfollow", "nosymfollow"),
    ] {
        let bundle = Bundle::new();
        let web = bind_tree(&bundle, &["rbind", set, clear], "private");
        let (top, sub) = pair(&web);
        let has = |list: &str| list.split(',').any(|option| option == word);
        assert!(!has(&top) && !has(&sub), "{set} {clear}: {top} / {sub}");
    }
}

#[test]
fn rro_cannot_be_written_anywhere_in_the_tree() {
    require!(root);
    let bundle = Bundle::new();
    let web = bind_tree(&bundle, &["rbind", "rro"], "private");
    let output = web.sh("touch /mnt/new; touch /mnt/sub/new; touch /mnt/dir/new");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 3, "{output}");
}

/// The source on the host must not become read-only with it.
#[test]
fn attributes_of_a_bind_mount_do_not_change_its_source() {
    require!(root);
    let bundle = Bundle::with(|config| config.bind("/etc", "/mnt", &["rbind", "rro", "rnoexec"]));
    let own = crate::support::Process::own();
    let before = own.read("mountinfo");
    bundle.container("web").up();
    let changed = own.read("mountinfo").lines().filter(|line| line.contains(" / / ")).count();
    assert_eq!(before.lines().filter(|line| line.contains(" / / ")).count(), changed);
    fs::write(bundle.dir().join("still-writable"), "").unwrap();
}

/// slave and rslave: mounts of the host come in, mounts of the container do not go out. The host
/// that has the tree must live on: a slave without a master is a private mount.
#[test]
fn slave_and_rslave_make_a_bind_mount_a_slave_of_its_source() {
    require!(root);
    for option in ["slave", "rslave"] {
        let bundle = Bundle::new();
        let tree = bundle.dir().join("tree");
        let mount = json!({ "destination": "/mnt", "type": "none", "source": tree, "options": ["rbind", option] });
        bundle.edit(|config| config.push("/mounts", mount).args(&["cat", "/proc/self/mountinfo"]));
        let web = bundle.container("web");
        let output = with_tree(&bundle, web.call("run", &[]), "shared").run().ok();
        let line = |target: &str| output.stdout.lines().find(|line| line.contains(target)).unwrap();
        let is_slave = |line: &str| line.contains(" master:") && !line.contains(" shared:");
        assert!(is_slave(line(" /mnt ")), "{option}: {output}");
        assert!(option == "slave" || is_slave(line(" /mnt/sub ")), "{option}: {output}");
    }
}

#[test]
fn remount_changes_what_is_mounted_there_already() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.push("/mounts", tmpfs("/mnt", &["size=64k"]));
        config.push("/mounts", tmpfs("/mnt", &["remount", "ro", "nosuid"]))
    });
    let web = bundle.container("web");
    web.create().ok();
    let mounts = web.init().mounts();
    let there: Vec<_> = mounts.iter().filter(|mount| mount.target == "/mnt").collect();
    assert_eq!(there.len(), 1, "{there:?}");
    assert!(there[0].options.starts_with("ro,nosuid"), "{there:?}");
    assert!(there[0].super_options.contains("size=64k"), "the rest is kept: {there:?}");
}

#[test]
fn nosymfollow_follows_no_link() {
    require!(root);
    let bundle = Bundle::new();
    let share = bundle.dir().join("links");
    fs::create_dir(&share).unwrap();
    fs::write(share.join("file"), "content").unwrap();
    symlink("file", share.join("link")).unwrap();
    let share = share.to_str().unwrap();
    bundle.edit(|config| {
        config.bind(share, "/no", &["nosymfollow"]).bind(
            share,
            "/yes",
            &["nosymfollow", "symfollow"],
        );
        config.sh("cat /yes/link; cat /no/file; cat /no/link")
    });
    let web = bundle.container("web");
    let output = web.run();
    assert_eq!(output.stdout, "contentcontent", "{output}");
    assert!(output.stderr.contains("Too many levels of symbolic links"), "{output}");
}

#[test]
fn tmpcopyup_shows_what_was_there_and_keeps_the_image_as_it_is() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.push("/mounts", tmpfs("/data", &["tmpcopyup", "size=1m"]));
        config.sh(
            "cd /data; cat file link sub/inner; stat -c '%a %g' file sub; readlink link; echo x > file",
        )
    });
    let data = bundle.rootfs().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "one\n").unwrap();
    fs::write(data.join("sub/inner"), "two\n").unwrap();
    fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(data.join("sub"), fs::Permissions::from_mode(0o1770)).unwrap();
    std::os::unix::fs::chown(data.join("file"), Some(0), Some(1234)).unwrap();
    symlink("file", data.join("link")).unwrap();
    let output = bundle.container("web").run().ok();
    assert_eq!(output.stdout, "one\none\ntwo\n640 1234\n1770 0\nfile\n");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "one\n");
}

/// A link of the image that leads out of it is copied as the link it is, not followed.
#[test]
fn tmpcopyup_does_not_follow_links_out_of_the_image() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.push("/mounts", tmpfs("/data", &["tmpcopyup"])).sh("readlink /data/link; ls /data")
    });
    fs::create_dir(bundle.rootfs().join("data")).unwrap();
    symlink("/etc/shadow", bundle.rootfs().join("data/link")).unwrap();
    assert_eq!(bundle.container("web").run().ok().stdout, "/etc/shadow\nlink\n");
}

#[test]
fn data_options_size_mode_uid_and_nr_inodes_reach_the_filesystem() {
    require!(root);
    let options = ["size=128k", "mode=1710", "uid=7", "gid=8", "nr_inodes=99"];
    let bundle = Bundle::with(|config| {
        config.push("/mounts", tmpfs("/mnt", &options)).args(&["stat", "-c", "%a %u %g", "/mnt"])
    });
    assert_eq!(bundle.container("web").run().ok().stdout, "1710 7 8\n");
    let web = bundle.container("again");
    web.create().ok();
    let mount = web.init().mount_at("/mnt").unwrap();
    assert!(mount.super_options.contains("size=128k,nr_inodes=99"), "{mount:?}");
}

#[test]
fn data_option_huge_reaches_the_filesystem() {
    require!(root, path("/sys/kernel/mm/transparent_hugepage/shmem_enabled"));
    let bundle =
        Bundle::with(|config| config.push("/mounts", tmpfs("/mnt", &["huge=within_size"])));
    let web = bundle.container("web");
    web.create().ok();
    let mount = web.init().mount_at("/mnt").unwrap();
    assert!(mount.super_options.contains("huge=within_size"), "{mount:?}");
}

/// Engines write such; the kernel has no use for the data.
#[test]
fn bind_mount_with_data_options_is_accepted() {
    require!(root);
    let bundle = Bundle::with(|config| config.bind("/etc", "/mnt", &["size=1m"]).sh("ls /mnt"));
    let output = bundle.container("web").run().ok();
    assert!(output.stdout.contains("passwd"), "{output}");
    let warned = output.log().iter().any(|line| line["level"] == "warning");
    assert!(warned, "no warning in {output}");
}
