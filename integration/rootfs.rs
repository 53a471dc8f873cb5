//! The root file system: pivot_root and --no-pivot, root.readonly, rootfsPropagation.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Call, Process, eventually, host, reaper};

/// A mount namespace of our own in which every mount is shared, as systemd makes the host's. The
/// tree is kept alive by a process that sleeps.
struct SharedHost(Process);

impl SharedHost {
    fn new() -> SharedHost {
        let mut command = Command::new("unshare");
        // Private first: where the host's own mounts are shared they would be its peers.
        let script = "mount --make-rshared / && exec sleep 1000";
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        let holder = Process(reaper::spawn(&mut command).unwrap().pid);
        eventually("it sleeps", || {
            holder.cmdline().first().is_some_and(|name| name == "sleep").then_some(())
        });
        SharedHost(holder)
    }

    /// Lets the runtime run there.
    fn call(&self, call: Call) -> Call {
        call.through(&["nsenter", "--mount", "--target", &self.0.0.to_string()])
    }

    /// Runs a tool of the host there.
    #[track_caller]
    fn tool(&self, args: &[&str]) {
        let target = self.0.0.to_string();
        let mut all = vec!["nsenter", "--mount", "--target", &target];
        all.extend(args);
        let (status, text) = host::tool(&all);
        assert!(status.success(), "{text}");
    }
}

impl Drop for SharedHost {
    fn drop(&mut self) {
        let _ = self.0.kill(libc::SIGKILL);
    }
}

/// Every mount that a container of the default config may see.
const PLACES: [&str; 6] = ["/", "/proc", "/dev", "/sys", "/tmp", "/run"];

#[test]
fn pivot_root_leaves_no_mount_of_the_host() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let root = init.mount_at("/").unwrap();
    assert!(root.root.ends_with("/bundle/rootfs"), "{root:?}");
    for mount in init.mounts() {
        let known = PLACES
            .iter()
            .any(|place| mount.target == *place || mount.target.starts_with(&format!("{place}/")));
        assert!(known && !mount.target.contains("onggi-it"), "{mount:?}");
    }
    let roots = init.mounts().iter().filter(|mount| mount.target == "/").count();
    assert_eq!(roots, 1, "the old root is still below");
}

#[test]
fn pivot_root_shows_exactly_the_entries_of_the_rootfs() {
    require!(root);
    let bundle = Bundle::sh("ls -A /");
    let mut entries: Vec<String> = fs::read_dir(bundle.rootfs())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    entries.sort();
    let output = bundle.container("web").run().ok();
    assert_eq!(output.stdout.lines().collect::<Vec<_>>(), entries);
}

/// A chroot is left by a chroot below the cwd; after pivot_root there is nothing above.
#[test]
fn pivot_root_cannot_be_left_by_a_second_chroot() {
    require!(root);
    let capabilities = serde_json::json!(["CAP_SYS_CHROOT"]);
    let bundle = Bundle::sh(
        "mkdir -p /tmp/below; cd /; chroot /tmp/below /bin/sh -c : 2>/dev/null; \
         cd ../../../../../../..; ls -A . | sort; ls -A /proc/1/root/../.. | sort",
    );
    bundle.edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config.set(&format!("/process/capabilities/{set}"), capabilities.clone());
        }
        config
    });
    let output = bundle.container("web").run().ok();
    assert!(!output.stdout.contains("lost+found") && !output.stdout.contains("boot"), "{output}");
}

/// For an initramfs, where pivot_root is refused: docker's DOCKER_RAMDISK passes it.
#[test]
fn no_pivot_still_shows_the_rootfs_only() {
    require!(root);
    let bundle = Bundle::sh("ls -A /; cat /proc/self/mountinfo");
    let output = bundle.container("web").call("run", &["--no-pivot"]).run().ok();
    assert!(output.stdout.contains("busybox") || output.stdout.contains("bin\n"), "{output}");
    assert!(
        !output.stdout.contains("onggi-it-") || output.stdout.contains("/rootfs / "),
        "{output}"
    );
    assert!(!output.stdout.contains("lost+found\n"), "{output}");
}

/// The host's tree is still in the mount namespace then: with its whole /proc there, the kernel would let a user
/// namespace in the container have one without masks.
#[test]
fn no_pivot_leaves_no_proc_or_sysfs_to_make_an_unmasked_one_from() {
    require!(root);
    for kind in ["proc", "sysfs"] {
        let bundle = Bundle::sh(&format!(
            "cat /proc/mounts > /mounts; unshare -Urpnfm sh -c 'echo root; mount -t {kind} none /tmp' || echo refused"
        ));
        // Who maps root needs it (user_namespaces(7)); docker gives it.
        bundle.edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                config.push(&format!("/process/capabilities/{set}"), "CAP_SETFCAP".into());
            }
            config
        });
        let output = bundle.container("web").call("run", &["--no-pivot"]).run().ok();
        assert_eq!(output.stdout, "root\nrefused\n", "{kind}: {output}");
        assert!(output.stderr.contains("mount: permission denied"), "{kind}: {output}");
        let mounts = fs::read_to_string(bundle.rootfs().join("mounts")).unwrap();
        assert_eq!(mounts.matches(" /proc proc ").count(), 1, "{mounts}");
    }
}

/// A container that is refused where the host has this.
#[track_caller]
fn no_pivot_is_refused(bundle: &Bundle, script: &str, left: &Path) {
    let host = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    let host = [&host[..], &[left.parent().unwrap().to_str().unwrap()]].concat();
    let web = bundle.container("web");
    let output = web.call("create", &["--no-pivot"]).through(&host).run().fails();
    let text = format!("--no-pivot: {} cannot be taken away", left.display());
    assert!(output.stderr.contains(&text), "{output}");
    bundle.assert_clean();
}

/// One that a mount above it hides does not hide it from the kernel. Refused, as it is not for us to find.
#[test]
fn no_pivot_refuses_a_hidden_proc() {
    require!(root);
    let bundle = Bundle::new();
    let place = bundle.dir().join("above/proc");
    fs::create_dir_all(&place).unwrap();
    let script = "mount -t proc hidden $0/proc && mount -t tmpfs over $0 && exec \"$@\"";
    no_pivot_is_refused(&bundle, script, &place);
    // What is mounted there has a directory of its name.
    let script =
        "mount -t proc hidden $0/proc && mount -t tmpfs over $0 && mkdir $0/proc && exec \"$@\"";
    no_pivot_is_refused(&bundle, script, &place);
}

/// A procfs that the host had in the rootfs lies below the container's, with another one on it.
#[test]
fn no_pivot_refuses_a_proc_that_the_host_had_in_the_rootfs() {
    require!(root);
    let bundle = Bundle::new();
    let place = bundle.rootfs().join("proc");
    no_pivot_is_refused(&bundle, "mount -t proc below $0/proc && exec \"$@\"", &place);
}

#[test]
fn no_pivot_container_takes_exec() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.call("create", &["--no-pivot"]).run().ok();
    web.start().ok();
    assert_eq!(web.sh("cat /etc/passwd").ok().stdout, "root:x:0:0:root:/root:/bin/sh\n");
}

#[test]
fn root_readonly_refuses_to_write() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config
            .set("/root/readonly", true)
            .sh("touch /new; touch /etc/new; echo x > /dev/shm/x && echo shm")
    });
    let output = bundle.container("web").run().ok();
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output}");
    assert_eq!(output.stdout, "shm\n", "other mounts stay writable");
    assert!(!bundle.rootfs().join("new").exists());
}

#[test]
fn root_readonly_is_a_flag_of_the_mount_only() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/root/readonly", true));
    let web = bundle.container("web");
    web.up();
    let root = web.init().mount_at("/").unwrap();
    assert!(root.options.split(',').any(|option| option == "ro"), "{root:?}");
    assert!(root.super_options.split(',').any(|option| option == "rw"), "{root:?}");
    fs::write(bundle.rootfs().join("host-can-write"), "").unwrap();
}

#[test]
fn root_writable_can_be_written() {
    require!(root);
    let bundle = Bundle::sh("echo hello > /new");
    bundle.container("web").run().ok();
    assert_eq!(fs::read_to_string(bundle.rootfs().join("new")).unwrap(), "hello\n");
}

/// The targets of mounts are made although the root will be read-only.
#[test]
fn root_readonly_comes_after_missing_mount_targets_are_made() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/root/readonly", true).sh("echo x > /made/here/file && cat /made/here/file")
    });
    bundle.share("/made/here");
    assert_eq!(bundle.container("web").run().ok().stdout, "x\n");
}

#[test]
fn root_path_may_be_absolute() {
    require!(root);
    let bundle = Bundle::sh("echo hello");
    let rootfs = bundle.rootfs().to_str().unwrap().to_string();
    bundle.edit(|config| config.set("/root/path", rootfs));
    assert_eq!(bundle.container("web").run().ok().stdout, "hello\n");
}

#[test]
fn root_path_missing_is_no_such_file_or_directory() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/root/path", "elsewhere"));
    refused_at(&bundle, &["/root/path"]).fails_with("no such file or directory");
}

#[test]
fn root_path_that_is_a_file_is_not_a_directory() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/root/path", "config.json"));
    refused_at(&bundle, &["/root/path"]).fails_with("not a directory");
}

#[test]
fn root_missing_is_refused() {
    require!(root);
    let bundle = Bundle::with(|config| config.remove("/root"));
    refused_at(&bundle, &["/root"]);
}

/// The rootfs may be a mount point of its own, as the snapshotters of engines make it.
#[test]
fn root_path_may_be_a_mount_point_with_mounts_below() {
    require!(root);
    let bundle = Bundle::sh("cat /tmp/below");
    let script =
        "mount --bind $0 $0; mount -t tmpfs tmpfs $0/tmp; echo deep > $0/tmp/below; exec \"$@\"";
    let rootfs = bundle.rootfs();
    let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    let mut wrapper = wrapper.to_vec();
    wrapper.push(rootfs.to_str().unwrap());
    let output = bundle.container("web").call("run", &[]).through(&wrapper).run().ok();
    assert_eq!(output.stdout, "deep\n");
}

/// The tags of the container's root mount, with every mount of the host shared.
fn root_tags(propagation: &str) -> String {
    let bundle = Bundle::with(|config| config.set("/linux/rootfsPropagation", propagation));
    let shared = SharedHost::new();
    let web = bundle.container("web");
    shared.call(web.call("create", &[])).run().ok();
    web.start().ok();
    let tags = web.init().mount_at("/").unwrap().tags;
    web.stop();
    web.delete().ok();
    tags
}

#[test]
fn rootfs_propagation_shared_and_rshared() {
    require!(root);
    for value in ["shared", "rshared"] {
        let tags = root_tags(value);
        assert!(tags.contains("shared:"), "{value}: {tags:?}");
    }
}

#[test]
fn rootfs_propagation_slave_and_rslave() {
    require!(root);
    for value in ["slave", "rslave"] {
        let tags = root_tags(value);
        assert!(tags.contains("master:") && !tags.contains("shared:"), "{value}: {tags:?}");
    }
}

#[test]
fn rootfs_propagation_private_and_rprivate() {
    require!(root);
    for value in ["private", "rprivate"] {
        assert_eq!(root_tags(value), "", "{value}");
    }
}

#[test]
fn rootfs_propagation_unbindable_and_runbindable() {
    require!(root);
    for value in ["unbindable", "runbindable"] {
        let tags = root_tags(value);
        assert!(tags.contains("unbindable"), "{value}: {tags:?}");
    }
}

#[test]
fn rootfs_propagation_unknown_value_is_refused() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/linux/rootfsPropagation", "everywhere"));
    refused_at(&bundle, &["/linux/rootfsPropagation"]);
}

/// What slave is for: a mount that the host makes later comes in, …
#[test]
fn rootfs_propagation_slave_receives_later_mounts_of_the_host() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/linux/rootfsPropagation", "rslave"));
    let shared = SharedHost::new();
    let web = bundle.container("web");
    shared.call(web.call("create", &[])).run().ok();
    web.start().ok();
    let target = bundle.rootfs().join("tmp");
    shared.tool(&["mount", "-t", "tmpfs", "later", target.to_str().unwrap()]);
    eventually("the mount has come", || {
        web.init().mount_at("/tmp").is_some_and(|mount| mount.source == "later").then_some(())
    });
}

/// … and with private it does not.
#[test]
fn rootfs_propagation_private_receives_nothing() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/linux/rootfsPropagation", "rprivate"));
    let shared = SharedHost::new();
    let web = bundle.container("web");
    shared.call(web.call("create", &[])).run().ok();
    web.start().ok();
    let target = bundle.rootfs().join("tmp");
    shared.tool(&["mount", "-t", "tmpfs", "later", target.to_str().unwrap()]);
    assert!(web.init().mount_at("/tmp").is_none());
}

/// Without rootfsPropagation nothing that is mounted for the container is seen on a host whose
/// mounts are shared.
#[test]
fn rootfs_propagation_absent_shows_the_host_no_mount() {
    require!(root);
    let bundle = Bundle::new();
    let shared = SharedHost::new();
    let before = shared.0.mounts().len();
    let web = bundle.container("web");
    shared.call(web.call("create", &[])).run().ok();
    web.start().ok();
    assert_eq!(shared.0.mounts().len(), before);
    web.stop();
    web.delete().ok();
    assert_eq!(shared.0.mounts().len(), before, "after delete");
}

/// With shared, the container's later mounts go out; those that build the container must not.
#[test]
fn rootfs_propagation_shared_shows_the_host_nothing_outside_the_rootfs() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/linux/rootfsPropagation", "rshared"));
    let shared = SharedHost::new();
    let outside = |mounts: Vec<crate::support::process::Mount>| {
        mounts.into_iter().filter(|mount| !mount.target.contains("/rootfs")).count()
    };
    let before = outside(shared.0.mounts());
    let web = bundle.container("web");
    shared.call(web.call("create", &[])).run().ok();
    assert_eq!(outside(shared.0.mounts()), before);
}

/// A symlink as the rootfs is followed by some and refused by others; it must never be half of
/// both: either a clean refusal or exactly the tree it leads to.
#[test]
fn root_path_symlink_is_refused_with_a_slash_behind_it() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["true"]));
    symlink("rootfs", bundle.path().join("link")).unwrap();
    for path in ["link", "link/", "link/.", "./link//"] {
        bundle.edit(|config| config.set("/root/path", path));
        bundle.container("web").create().fails_with("/root/path");
    }
    for path in ["rootfs/", "./rootfs/.", "rootfs//"] {
        bundle.edit(|config| config.set("/root/path", path));
        bundle.container("web").run().ok();
    }
}

#[test]
fn root_path_symlink_is_followed_or_refused() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/root/path", "link").sh("cat /etc/passwd"));
    symlink("rootfs", bundle.path().join("link")).unwrap();
    let web = bundle.container("web");
    let output = web.run();
    match output.code() {
        0 => assert!(output.stdout.starts_with("root:x:0:0:root:/root:"), "{output}"),
        _ => assert!(output.stderr.contains("rootfs") || output.stderr.contains("/root/path")),
    }
    bundle.assert_clean();
}

/// `docker run -v /mnt:/mnt:shared`, Kubernetes' Bidirectional: what the container mounts shows on the host. Engines
/// say `shared` of the root, too.
#[test]
fn shared_bind_mount_gives_the_containers_mounts_to_the_host() {
    require!(root);
    for (option, root) in [("shared", "shared"), ("rshared", "shared")] {
        let bundle = Bundle::new();
        let share = bundle.share("/share");
        bundle.edit(|config| {
            let mount = config.0["mounts"].as_array_mut().unwrap().last_mut().unwrap();
            mount["options"] = serde_json::json!(["rbind", option]);
            for set in ["bounding", "effective", "permitted"] {
                config.push(&format!("/process/capabilities/{set}"), "CAP_SYS_ADMIN".into());
            }
            config
                .set("/linux/rootfsPropagation", root)
                .sh("mkdir /share/in && mount -t tmpfs mine /share/in && exec sleep 1000")
        });
        let shared = SharedHost::new();
        let web = bundle.container("web");
        shared.call(web.call("create", &[])).run().ok();
        web.start().ok();
        eventually(&format!("{option} in {root}: it shows"), || {
            shared.0.mount_at(share.join("in").to_str().unwrap())
        });
        web.stop();
        web.delete().ok();
    }
}
