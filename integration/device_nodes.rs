//! Device nodes and links in /dev, masked and read-only paths.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::support::refusal::refused_at;
use crate::support::{Bundle, host};
use crate::user_namespaces::{mapped, own};

const STAT: &str = "stat -c '%n %F %t:%T %a %u:%g'";

fn device(path: &str, kind: &str, major: i64, minor: i64) -> Value {
    json!({ "path": path, "type": kind, "major": major, "minor": minor })
}

/// Bundle with one requested device and a script.
fn with_device(device: Value, script: &str) -> Bundle {
    Bundle::with(|config| config.push("/linux/devices", device).sh(script))
}

#[test]
fn default_devices_are_there_with_mode_0666() {
    require!(root);
    let bundle = Bundle::sh(&format!("cd /dev; {STAT} full null random tty urandom zero"));
    let node =
        |name: &str, number: &str| format!("{name} character special file {number} 666 0:0\n");
    let expected = [
        node("full", "1:7"),
        node("null", "1:3"),
        node("random", "1:8"),
        node("tty", "5:0"),
        node("urandom", "1:9"),
        node("zero", "1:5"),
    ];
    assert_eq!(bundle.container("web").run().ok().stdout, expected.concat());
}

/// The rules of the container's devices cgroup deny all: these are allowed nevertheless.
#[test]
fn default_devices_work() {
    require!(root);
    let bundle = Bundle::sh(
        "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c; \
         echo x > /dev/full",
    );
    let web = bundle.container("web");
    let output = web.run();
    assert_eq!(output.stdout, "4\n4\n", "{output}");
    assert!(output.stderr.contains("No space left on device"), "{output}");
}

#[test]
fn dev_links_fd_stdin_stdout_stderr_and_ptmx() {
    require!(root);
    let bundle = Bundle::sh("cd /dev; for i in fd stdin stdout stderr ptmx; do readlink $i; done");
    let output = bundle.container("web").run().ok();
    let expected = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(output.stdout, expected);
}

/// A terminal opened inside comes from the container's own devpts.
#[test]
fn dev_ptmx_opens_a_terminal_of_the_own_devpts() {
    require!(root);
    let bundle = Bundle::sh("exec 3<>/dev/ptmx && ls /dev/pts");
    assert_eq!(bundle.container("web").run().ok().stdout, "0\nptmx\n");
}

/// An image without a mount on /dev gets its nodes in the image.
#[test]
fn default_devices_without_a_mount_on_dev() {
    require!(root);
    let bundle = Bundle::sh("test -c /dev/null && test -c /dev/full && readlink /dev/fd");
    bundle.edit(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        config
    });
    assert_eq!(bundle.container("web").run().ok().stdout, "/proc/self/fd\n");
}

/// With /dev of the host nothing is made in it.
#[test]
fn bound_dev_directory_stays_as_it_is() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        config.args(&["ls", "-A", "/dev"])
    });
    // docker run -v /dev:/dev --device /dev/null:/dev/modem
    bundle.edit(|config| config.push("/linux/devices", device("/dev/modem", "c", 1, 3)));
    let dev = bundle.share("/dev");
    let null = dev.join("null");
    assert!(host::tool(&["mknod", "-m", "666", null.to_str().unwrap(), "c", "1", "3"]).0.success());
    assert_eq!(bundle.container("web").run().ok().stdout, "null\n");
    assert_eq!(fs::read_dir(dev).unwrap().count(), 1);
}

#[test]
fn requested_devices_with_mode_uid_and_gid() {
    require!(root);
    let mut char_device = device("/dev/some", "c", 10, 229);
    char_device["fileMode"] = json!(0o664);
    char_device["uid"] = json!(7);
    char_device["gid"] = json!(8);
    let mut fifo = device("/dev/pipe", "p", 0, 0);
    fifo["fileMode"] = json!(0o622);
    let bundle = Bundle::with(|config| {
        config.push("/linux/devices", char_device).push("/linux/devices", fifo);
        config.push("/linux/devices", device("/dev/disk/block", "b", 7, 200));
        config.push("/linux/devices", device("/dev/unbuffered", "u", 10, 230));
        config.sh(&format!("cd /dev; {STAT} some pipe unbuffered; stat -c '%F %t:%T' disk/block"))
    });
    let expected = "some character special file a:e5 664 7:8\npipe fifo 0:0 622 0:0\n\
                    unbuffered character special file a:e6 666 0:0\nblock special file 7:c8\n";
    assert_eq!(bundle.container("web").run().ok().stdout, expected);
}

/// docker run -v /dev/urandom:/dev/random, and `--privileged -v /dev/null:/dev/kmsg`, where the configuration
/// lists the node, too.
#[test]
fn device_that_something_is_mounted_on_is_not_made() {
    require!(root);
    for mapped in [None, Some(())] {
        let bundle = Bundle::sh(
            "stat -c %t:%T /dev/random /dev/kmsg; cat /dev/tty; ls /dev/full; stat -c %t:%T /dev/zero",
        );
        let dir = bundle.dir();
        let (urandom, null) = (dir.join("urandom"), dir.join("null"));
        for (path, minor) in [(&urandom, "9"), (&null, "3")] {
            let words = ["mknod", "-m", "666", path.to_str().unwrap(), "c", "1", minor];
            assert!(host::tool(&words).0.success());
        }
        fs::write(dir.join("file"), "a file\n").unwrap();
        fs::create_dir(dir.join("directory")).unwrap();
        fs::write(dir.join("directory/in"), "").unwrap();
        let text = |path: &str| dir.join(path).to_str().unwrap().to_owned();
        bundle.edit(|config| {
            config.bind(&text("urandom"), "/dev/random", &["rbind", "rprivate"]);
            config.bind(&text("null"), "/dev/kmsg", &["rbind", "rprivate"]);
            config.bind(&text("file"), "/dev/tty", &["rbind", "rprivate"]);
            config.bind(&text("directory"), "/dev/full", &["rbind", "rprivate"]);
            config.push("/linux/devices", device("/dev/kmsg", "c", 1, 11))
        });
        if mapped.is_some() {
            bundle.edit(self::mapped);
            own(&bundle);
        }
        let output = bundle.container("web").run().ok();
        assert_eq!(output.stdout, "1:9\n1:3\na file\nin\n1:5\n", "{mapped:?}");
    }
}

/// docker's `--device` of a directory and of a node in it, or of the same node twice.
#[test]
fn requested_device_listed_twice_is_made_once() {
    require!(root);
    let mut first = device("/dev/some", "c", 1, 3);
    first["fileMode"] = json!(0o640);
    let bundle = with_device(first, "stat -c '%t:%T %a' /dev/some");
    bundle.edit(|config| config.push("/linux/devices", device("/dev/some", "c", 1, 3)));
    assert_eq!(bundle.container("web").run().ok().stdout, "1:3 640\n");
}

/// Of a privileged container engines list all the host's devices.
#[test]
fn requested_ptmx_stays_the_link_to_the_containers_own() {
    require!(root);
    let bundle = with_device(device("/dev/ptmx", "c", 5, 2), "readlink /dev/ptmx");
    assert_eq!(bundle.container("web").run().ok().stdout, "pts/ptmx\n");
    bundle.edit(mapped);
    own(&bundle);
    assert_eq!(bundle.container("web").run().ok().stdout, "pts/ptmx\n");
}

/// In a container that may mount, yet not make devices.
#[test]
fn devices_without_the_right_to_make_them_are_the_hosts_own() {
    require!(root, program("setpriv"));
    let script = "grep -c ' /null /dev/null ' /proc/self/mountinfo; head -c 1 /dev/zero | od -An -tx1; \
         echo > /dev/null; chmod $(stat -c %a /dev/null) /dev/null 2>&1";
    let bundle = Bundle::sh(script);
    let run = bundle.container("web").call("run", &[]);
    let run = run.through(&["setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod"]);
    let output = run.run();
    // Whose mode is theirs, too.
    assert_eq!(output.stdout, "1\n 00\nchmod: /dev/null: Read-only file system\n", "{output}");
}

/// The caller's umask is nobody's business.
#[test]
fn requested_device_mode_does_not_depend_on_the_callers_umask() {
    require!(root);
    let mut some = device("/dev/some", "c", 10, 229);
    some["fileMode"] = json!(0o666);
    let bundle = with_device(some, "stat -c %a /dev/some /dev/null");
    let run = bundle.container("web").call("run", &[]).before_exec(|| {
        unsafe { libc::umask(0o077) };
    });
    assert_eq!(run.run().ok().stdout, "666\n666\n");
}

/// The spec: the path may be anywhere, not only below /dev.
#[test]
fn requested_device_outside_dev_makes_missing_directories() {
    require!(root);
    let bundle =
        with_device(device("/srv/new/node", "c", 1, 3), "test -c /srv/new/node && echo is");
    assert_eq!(bundle.container("web").run().ok().stdout, "is\n");
    let facts = fs::symlink_metadata(bundle.rootfs().join("srv/new/node")).unwrap();
    assert!(facts.file_type().is_char_device() || facts.is_file(), "made in the image");
}

/// The spec: a file at the path that is something else MUST be an error.
#[test]
fn requested_device_over_a_conflicting_file_is_an_error() {
    require!(root);
    let bundle = with_device(device("/etc/passwd", "c", 1, 3), "true");
    let web = bundle.container("web");
    let output = web.create().fails();
    assert!(output.stderr.contains("/linux/devices/0:"), "{output}");
    let passwd = fs::read_to_string(bundle.rootfs().join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("root:"));
    bundle.assert_clean();
}

#[test]
fn requested_device_over_another_device_is_an_error() {
    require!(root);
    let bundle = with_device(device("/srv/node", "c", 1, 3), "true");
    fs::create_dir(bundle.rootfs().join("srv")).unwrap();
    let node = bundle.rootfs().join("srv/node");
    assert!(host::tool(&["mknod", node.to_str().unwrap(), "c", "1", "5"]).0.success());
    let web = bundle.container("web");
    let output = web.create().fails();
    assert!(output.stderr.contains("/linux/devices/0:"), "{output}");
    bundle.assert_clean();
}

#[test]
fn requested_device_that_is_there_already_is_taken() {
    require!(root);
    let bundle = with_device(device("/srv/node", "c", 1, 3), "echo x > /srv/node && echo ok");
    fs::create_dir(bundle.rootfs().join("srv")).unwrap();
    let node = bundle.rootfs().join("srv/node");
    assert!(host::tool(&["mknod", node.to_str().unwrap(), "c", "1", "3"]).0.success());
    assert_eq!(bundle.container("web").run().ok().stdout, "ok\n");
}

/// A symlink of the image at the place of a device: nothing may be made where it leads.
#[test]
fn requested_device_at_a_symlink_never_leaves_the_rootfs() {
    require!(root);
    let bundle = with_device(device("/link/node", "c", 1, 3), "true");
    let outside = bundle.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.rootfs().join("link")).unwrap();
    // Either made inside the rootfs or refused.
    let web = bundle.container("web");
    web.run();
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn requested_device_with_a_relative_path_is_refused() {
    require!(root);
    let bundle = with_device(device("dev/some", "c", 1, 3), "true");
    refused_at(&bundle, &["/linux/devices/0/path"]);
}

#[test]
fn requested_device_of_an_unknown_type_is_refused() {
    require!(root);
    let bundle = with_device(device("/dev/some", "x", 1, 3), "true");
    refused_at(&bundle, &["/linux/devices/0/type"]);
}

#[test]
fn duplicate_requested_device_is_refused() {
    require!(root);
    let bundle = with_device(device("/dev/some", "c", 1, 3), "true");
    bundle.edit(|config| config.push("/linux/devices", device("/dev/some", "c", 1, 5)));
    refused_at(&bundle, &["/linux/devices/1/path"]);
}

fn hidden(list: &str, paths: &[&str], script: &str) -> Bundle {
    Bundle::with(|config| config.set(&format!("/linux/{list}"), paths).sh(script))
}

#[test]
fn masked_file_is_empty_and_cannot_be_changed() {
    require!(root);
    let script = "cat /etc/secret; wc -c < /etc/secret; echo x > /etc/secret; cat /etc/secret; \
                  grep -c ' /etc/secret ' /proc/self/mountinfo";
    let bundle = hidden("maskedPaths", &["/etc/secret"], script);
    fs::write(bundle.rootfs().join("etc/secret"), "password").unwrap();
    let web = bundle.container("web");
    let output = web.run();
    assert_eq!(output.stdout, "0\n1\n", "{output}");
    assert_eq!(fs::read_to_string(bundle.rootfs().join("etc/secret")).unwrap(), "password");
}

#[test]
fn masked_directory_is_empty_and_read_only() {
    require!(root);
    let script = "ls -A /secrets | wc -l; touch /secrets/new; ls -A /secrets | wc -l";
    let bundle = hidden("maskedPaths", &["/secrets"], script);
    fs::create_dir(bundle.rootfs().join("secrets")).unwrap();
    fs::write(bundle.rootfs().join("secrets/key"), "password").unwrap();
    let web = bundle.container("web");
    let output = web.run();
    assert_eq!(output.stdout, "0\n0\n", "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
}

#[test]
fn masked_paths_of_procfs_are_hidden() {
    require!(root);
    let bundle = hidden(
        "maskedPaths",
        &["/proc/kcore", "/proc/scsi", "/proc/keys"],
        "cat /proc/keys; \
        test -c /proc/keys || test ! -s /proc/keys && echo hidden",
    );
    let output = bundle.container("web").run().ok();
    assert_eq!(output.stdout, "hidden\n");
}

/// Several masked directories must not be one and the same place to write to.
#[test]
fn masked_directories_are_all_empty() {
    require!(root);
    let bundle =
        hidden("maskedPaths", &["/a", "/b"], "cp /etc/passwd /a/x; ls -A /a /b | grep -c x");
    for name in ["a", "b"] {
        fs::create_dir(bundle.rootfs().join(name)).unwrap();
    }
    assert_eq!(bundle.container("web").run().stdout, "0\n");
}

#[test]
fn masked_and_readonly_paths_that_are_missing_are_no_error() {
    require!(root);
    let paths = ["/no/such/path", "/proc/no-such-file", "/etc/passwd/below-a-file"];
    let bundle = hidden("maskedPaths", &paths[..2], "echo runs; ls -d /no");
    bundle.edit(|config| config.set("/linux/readonlyPaths", &paths[..2]));
    let web = bundle.container("web");
    let output = web.run();
    assert_eq!(output.stdout, "runs\n", "{output}");
    assert!(!bundle.rootfs().join("no").exists(), "made in the image");
}

#[test]
fn masked_paths_that_are_relative_are_refused() {
    require!(root);
    let bundle = hidden("maskedPaths", &["/proc/kcore", "proc/keys"], "true");
    refused_at(&bundle, &["/linux/maskedPaths/1"]);
}

#[test]
fn readonly_paths_that_are_relative_are_refused() {
    require!(root);
    let bundle = hidden("readonlyPaths", &["proc/sys"], "true");
    refused_at(&bundle, &["/linux/readonlyPaths/0"]);
}

#[test]
fn readonly_path_can_be_read_and_not_written() {
    require!(root);
    let script = "cat /data/file; echo x > /data/file; touch /data/sub/new; echo x > /data-file";
    let bundle = hidden("readonlyPaths", &["/data", "/data-file"], script);
    fs::create_dir_all(bundle.rootfs().join("data/sub")).unwrap();
    fs::write(bundle.rootfs().join("data/file"), "content").unwrap();
    fs::write(bundle.rootfs().join("data-file"), "").unwrap();
    let web = bundle.container("web");
    let output = web.run();
    assert_eq!(output.stdout, "content");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 3, "{output}");
}

/// The attributes that /proc was mounted with must not be lost on the way (CVE-2024-like: a bind
/// without them would make device nodes usable).
#[test]
fn readonly_path_keeps_the_other_attributes_of_its_mount() {
    require!(root);
    let bundle =
        Bundle::with(|config| config.set("/mounts/0/options", &["nosuid", "noexec", "nodev"][..]));
    let web = bundle.container("web");
    web.create().ok();
    let mount = web.init().mount_at("/proc/sys").unwrap();
    assert!(mount.options.starts_with("ro,nosuid,nodev,noexec"), "{mount:?}");
}

#[test]
fn readonly_paths_of_procfs_refuse_to_write() {
    require!(root);
    let bundle =
        Bundle::sh("echo 1 > /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward");
    let web = bundle.container("web");
    let output = web.run();
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    assert_eq!(output.stdout.len(), 2, "{output}");
}

/// A masked path behind a symlink of the image must not mask (or touch) anything on the host.
#[test]
fn masked_path_behind_a_symlink_stays_inside() {
    require!(root);
    let bundle = hidden("maskedPaths", &["/link/file"], "cat /target/file; echo end");
    let outside = bundle.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "host").unwrap();
    fs::create_dir(bundle.rootfs().join("target")).unwrap();
    fs::write(bundle.rootfs().join("target/file"), "inside").unwrap();
    symlink("/target", bundle.rootfs().join("link")).unwrap();
    let web = bundle.container("web");
    let output = web.run();
    // Masked where it leads, or refused; never shown.
    assert!(!output.stdout.contains("inside"), "{output}");
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "host");
}

/// What is made in the rootfs for the container belongs to root and is not writable by others.
#[test]
fn directories_made_for_devices_are_not_writable_by_others() {
    require!(root);
    let bundle = with_device(device("/srv/deep/node", "c", 1, 3), "true");
    let run = bundle.container("web").call("run", &[]).before_exec(|| {
        unsafe { libc::umask(0) };
    });
    run.run().ok();
    let facts = fs::metadata(bundle.rootfs().join("srv/deep")).unwrap();
    assert_eq!((facts.uid(), facts.permissions().mode() & 0o022), (0, 0));
}
