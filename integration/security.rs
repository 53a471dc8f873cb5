//! Hostile images and hostile callers: the tests T1 to T35 of docs/security.md, those that need no
//! race. (T1, T6 are in mounts.rs, T10 and T21 in exec.rs, T22 in create_failure.rs, T26 and T27 in
//! input.rs, T28 in names.rs, T34 in hooks.rs, races in security_races.rs.)
//!
//! The last line of each comment names the protection whose removal the test would notice.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use serde_json::json;

use crate::support::attack::Outside;
use crate::support::pty::{FdSocket, Pty};
use crate::support::{Bundle, Call, Config, Container, Output, eventually, host, onggi};

/// Takes out the mounts on /dev and below, so that the image's own /dev is what the runtime meets.
fn without_dev(config: &mut Config) -> &mut Config {
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    config
}

/// Either a clean refusal, or a container that runs; never anything in between.
#[track_caller]
fn created_or_refused(bundle: &Bundle, web: &Container, output: &Output) {
    match output.code() {
        0 => drop(web.start().ok()),
        1 => bundle.assert_clean(),
        code => panic!("{code}: {output}"),
    }
}

/// T2, CVE-2016-3697: the image's /etc/passwd has a user *named* 1000 with uid 0.
/// Notices: names looked up where the spec has numbers.
#[test]
fn t2_numeric_user_is_never_looked_up_by_name() {
    require!(root);
    let bundle =
        Bundle::with(|config| config.set("/process/user/uid", 1000).sh("id -u; exec sleep 1000"));
    fs::write(bundle.rootfs().join("etc/passwd"), "1000:x:0:0::/root:/bin/sh\n").unwrap();
    let web = bundle.container("web");
    let created = web.up();
    eventually("it has written", || (created.stdout_now() == "1000\n").then_some(()));
    let exec = web.call("exec", &["--user", "1000"]).args(&["cat", "/proc/self/status"]).run().ok();
    assert!(exec.stdout.contains("Uid:\t1000\t1000\t1000\t1000"), "{exec}");
}

/// T4, CVE-2019-5736: what runs in the container before its own program is not the host's file.
/// Notices: the seal (memfd or read-only overlay).
#[test]
fn t4_created_init_does_not_run_the_host_inode() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let exe = format!("/proc/{}/exe", web.init().0);
    let (inside, own) = (fs::metadata(&exe).unwrap(), fs::metadata(onggi::binary()).unwrap());
    assert_ne!((inside.dev(), inside.ino()), (own.dev(), own.ino()));
    let opened = fs::OpenOptions::new().write(true).open(&exe);
    assert!(opened.is_err(), "even root on the host can write to it: it is no sealed copy");
}

/// T4: an entry point that makes the runtime execute itself in the container, and a process inside
/// that holds /proc/N/exe open and writes to it as soon as nobody runs it any more.
/// Notices: the seal.
#[test]
fn t4_interpreter_proc_self_exe_cannot_write_the_runtime() {
    require!(root);
    let bundle = Bundle::sh(
        "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || ( i=0; \
         while [ $i -lt 20 ]; do echo hacked > /proc/self/fd/9; i=$((i+1)); done ) 9<$p/exe; \
         done; done 2>/dev/null",
    );
    // A copy: what is at stake is the file that runs, and this one may be lost.
    let binary = bundle.dir().join(onggi::name());
    fs::copy(onggi::binary(), &binary).unwrap();
    let before = fs::read(&binary).unwrap();
    let evil = bundle.rootfs().join("evil");
    fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let web = bundle.container("web");
    web.call("create", &[]).binary(&binary).run().ok();
    web.call("start", &[]).binary(&binary).run().ok();
    for _ in 0..20 {
        let exec = web.call("exec", &[]).args(&["/evil"]).binary(&binary);
        exec.timeout(Duration::from_secs(10)).run();
    }
    assert!(fs::read(&binary).unwrap() == before, "the runtime's file has been written");
}

/// Host directories at 3 to 20, as a careless caller leaks them.
fn with_leaked_directories(mut call: Call, outside: &Outside) -> Call {
    for number in 3..=20 {
        call = call.fd(File::open(outside.path()).unwrap(), number);
    }
    call
}

/// Memory management may hold a page of the copy for longer than the kernel waits: asked again, not for ever.
#[test]
fn t4_sealing_is_tried_again_while_a_page_is_held() {
    require!(root, program("strace"));
    // The first fcntl asks whether it is sealed already, the second seals; 20 times are enough.
    for (when, sealed) in [("2..4", true), ("2..21", false)] {
        let bundle = Bundle::new();
        let inject = format!("inject=fcntl:error=EBUSY:when={when}");
        let strace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=fcntl", "-e", &inject];
        let output = bundle.container("web").call("create", &[]).through(&strace).run();
        assert_eq!(output.code() == 0, sealed, "{output}");
        let busy = output.stderr.contains("F_ADD_SEALS: device or resource busy");
        assert_eq!(busy, !sealed, "{output}");
        if sealed {
            bundle.container("web").remove();
        }
        bundle.assert_clean();
    }
}

/// T12, CVE-2024-21626: cwd by way of a descriptor that the runtime has inherited.
/// Notices: close_range at entry, CLOEXEC, the check that cwd is reachable.
#[test]
fn t12_cwd_in_a_leaked_descriptor_is_refused_by_run() {
    require!(root);
    for number in 3..=20 {
        let bundle = Bundle::new();
        let outside = Outside::new(bundle.dir().join("outside"));
        let cwd = match number % 3 {
            0 => format!("/proc/self/fd/{number}"),
            1 => format!("/proc/1/fd/{number}/dir/.."),
            _ => "/link".to_string(),
        };
        symlink(format!("/proc/self/fd/{number}"), bundle.rootfs().join("link")).unwrap();
        bundle.edit(|config| {
            config.set("/process/cwd", cwd.as_str()).sh("cat file; cat ../*/secret")
        });
        let output =
            with_leaked_directories(bundle.container("web").call("run", &[]), &outside).run();
        assert!(!output.stdout.contains("secret"), "{cwd}: {output}");
        assert_ne!(output.code(), 0, "{cwd}: {output}");
        bundle.assert_clean();
    }
}

/// T12: the same for exec.
/// Notices: close_range at entry of exec's child, CLOEXEC, the check that cwd is reachable.
#[test]
fn t12_cwd_in_a_leaked_descriptor_is_refused_by_exec() {
    require!(root);
    let bundle = Bundle::new();
    let outside = Outside::new(bundle.dir().join("outside"));
    symlink("/proc/self/fd/7", bundle.rootfs().join("link")).unwrap();
    let web = bundle.container("web");
    web.up();
    let mut places: Vec<String> =
        (3..=20).map(|number| format!("/proc/self/fd/{number}")).collect();
    places.push("/link".into());
    places.push("/link/dir".into());
    for cwd in places {
        let exec =
            web.call("exec", &["--cwd", &cwd]).args(&["sh", "-c", "cat file; ls -l /proc/self/fd"]);
        let output = with_leaked_directories(exec, &outside).run();
        assert!(
            !output.stdout.contains("secret") && !output.stdout.contains("outside"),
            "{cwd}: {output}"
        );
        assert_ne!(output.code(), 0, "{cwd}: {output}");
    }
}

/// T12: a descriptor that does get through on purpose must be no way out of the root either.
/// Notices: the check that cwd is below the root.
#[test]
fn t12_cwd_in_a_preserved_descriptor_is_refused() {
    require!(root);
    let bundle =
        Bundle::with(|config| config.set("/process/cwd", "/proc/self/fd/3").sh("cat file"));
    let outside = Outside::new(bundle.dir().join("outside"));
    let run = bundle.container("web").call("run", &["--preserve-fds", "1"]);
    let output = run.fd(File::open(outside.path()).unwrap(), 3).run().fails();
    assert!(!output.stdout.contains("secret"), "{output}");
    bundle.assert_clean();
}

/// T12: a preserved number at which the caller has nothing must not show what the runtime has open there.
/// Notices: the numbers are taken before anything is opened.
#[test]
fn t12_program_through_a_hole_of_preserve_fds_is_not_found() {
    require!(root);
    for number in 3..=10 {
        let bundle = Bundle::with(|config| config.args(&["/echo", "escaped"]));
        fs::copy(bundle.rootfs().join("bin/busybox"), bundle.path().join("outside")).unwrap();
        let link = format!("/proc/self/fd/{number}/../outside");
        symlink(link, bundle.rootfs().join("echo")).unwrap();
        let output = bundle.container("web").call("run", &["--preserve-fds", "8"]).run().fails();
        assert!(!output.stdout.contains("escaped"), "{number}: {output}");
        bundle.assert_clean();
    }
}

/// T12: the user's home directory is looked up by the image's /etc/passwd.
/// Notices: RESOLVE_NO_MAGICLINKS.
#[test]
fn t12_home_is_not_read_through_a_descriptor_of_the_runtime() {
    require!(root);
    for number in 3..=40 {
        let bundle = Bundle::with(|config| {
            config.set("/process/env", &["PATH=/bin"][..]).sh("echo home $HOME")
        });
        fs::write(bundle.path().join("outside"), "x:x:0:0::/of-the-host:\n").unwrap();
        let passwd = bundle.rootfs().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        symlink(format!("/proc/self/fd/{number}/../outside"), passwd).unwrap();
        let output = bundle.container("web").run().ok();
        assert_eq!(output.stdout, "home /\n", "{number}");
    }
}

/// The masked file, and what covers it according to mountinfo.
fn masked_with(bundle: &Bundle) {
    let secret = bundle.rootfs().join("etc/secret");
    fs::write(secret, "password").unwrap();
    bundle.edit(|config| config.set("/linux/maskedPaths", &["/etc/secret"][..]));
    let web = bundle.container("web");
    let output = web.create();
    created_or_refused(bundle, &web, &output);
    if output.code() == 0 {
        let mount = web.init().mount_at("/etc/secret").expect("it is not masked");
        assert!(
            !mount.root.contains("core_pattern") && !mount.root.contains("outside"),
            "{mount:?}"
        );
        assert_eq!(web.exec(&["cat", "/etc/secret"]).ok().stdout, "");
    }
}

/// T14, CVE-2025-31133: the image's /dev/null leads to a file that must not come in.
/// Notices: the runtime's own, verified source of masks (char 1:3).
#[test]
fn t14_dev_null_symlink_of_the_image_is_no_mask_source() {
    require!(root);
    for to in ["/proc/sys/kernel/core_pattern", "outside"] {
        let bundle = Bundle::with(without_dev);
        let outside = Outside::new(bundle.dir().join("outside"));
        let to = if to == "outside" { outside.path().join("file") } else { to.into() };
        symlink(to, bundle.rootfs().join("dev/null")).unwrap();
        masked_with(&bundle);
        outside.assert_untouched();
    }
}

/// T14: the same with a /dev that is a volume, in which the runtime makes no nodes.
/// Notices: the runtime's own, verified source of masks.
#[test]
fn t14_dev_null_symlink_of_a_volume_is_no_mask_source() {
    require!(root);
    let bundle = Bundle::with(without_dev);
    let dev = bundle.share("/dev");
    let outside = Outside::new(bundle.dir().join("outside"));
    symlink("/proc/sys/kernel/core_pattern", dev.join("null")).unwrap();
    masked_with(&bundle);
    outside.assert_untouched();
}

/// T15, CVE-2025-52565: the image's /dev/console and /dev/pts lead to files of the host.
/// Notices: the slave by TIOCGPTPEER, the mount through a descriptor, O_NOFOLLOW.
#[test]
fn t15_console_symlink_of_the_image_is_not_followed_to_the_host() {
    require!(root);
    for (name, file) in [
        ("console", "file"),
        ("console", "new"),
        ("pts", "dir"),
        ("ptmx", "file"),
        ("pts/0", "file"),
    ] {
        let bundle = Bundle::with(|config| without_dev(config).set("/process/terminal", true));
        if name == "console" {
            // Without a devpts nobody would get as far as the console.
            let pts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"] });
            bundle.edit(|config| config.push("/mounts", pts));
        }
        let outside = Outside::new(bundle.dir().join("outside"));
        let link = bundle.rootfs().join("dev").join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(outside.path().join(file), link).unwrap();
        let socket = FdSocket::bind(bundle.dir());
        let web = bundle.container("web");
        let output = web.call("create", &["--console-socket", socket.path()]).run();
        created_or_refused(&bundle, &web, &output);
        if output.code() == 0 {
            let console = web.init().mount_at("/dev/console");
            assert!(console.is_none_or(|mount| mount.fstype == "devpts"), "{output}");
        }
        outside.assert_untouched();
    }
}

/// T17, CVE-2026-41579: /dev itself is a symlink to a directory of the host.
/// Notices: nodes and links made by *at() calls on a directory that was resolved in the root.
#[test]
fn t17_dev_symlink_of_the_image_is_not_followed_to_the_host() {
    require!(root);
    for relative in [false, true] {
        let bundle = Bundle::with(without_dev);
        let outside = Outside::new(bundle.dir().join("outside"));
        let target = outside.path().join("dir");
        let up = "../".repeat(20) + target.strip_prefix("/").unwrap().to_str().unwrap();
        fs::remove_dir(bundle.rootfs().join("dev")).unwrap();
        symlink(if relative { up.into() } else { target }, bundle.rootfs().join("dev")).unwrap();
        bundle.edit(|config| {
            config.push(
                "/linux/devices",
                json!({ "path": "/dev/extra", "type": "c", "major": 1, "minor": 3 }),
            )
        });
        let web = bundle.container("web");
        let output = web.create();
        outside.assert_untouched();
        created_or_refused(&bundle, &web, &output);
        outside.assert_untouched();
    }
}

/// T19, CVE-2019-18837: links with `..`, absolute ones, and chains.
/// Notices: openat2 with RESOLVE_IN_ROOT for every target.
#[test]
fn t19_targets_by_way_of_links_stay_in_the_rootfs() {
    require!(root);
    let bundle = Bundle::new();
    let outside = Outside::new(bundle.dir().join("outside"));
    let inside = outside.text();
    symlink("../../../../../../../..", bundle.rootfs().join("up")).unwrap();
    symlink("/", bundle.rootfs().join("top")).unwrap();
    for link in 0..30 {
        symlink(format!("chain-{}", link + 1), bundle.rootfs().join(format!("chain-{link}")))
            .unwrap();
    }
    symlink("up", bundle.rootfs().join("chain-30")).unwrap();
    bundle.edit(|config| {
        for start in ["up", "top", "chain-0"] {
            let target = format!("/{start}{inside}/made-{start}");
            config
                .push("/mounts", json!({ "destination": target, "type": "tmpfs", "source": "x" }));
        }
        config
    });
    let web = bundle.container("web");
    let output = web.create();
    created_or_refused(&bundle, &web, &output);
    outside.assert_untouched();
}

/// T19: more links than the kernel follows are an error; without end they must be.
/// Notices: the error of openat2 taken as an error, no resolver of our own that never ends.
#[test]
fn t19_endless_chain_of_links_is_a_clean_error() {
    require!(root);
    let bundle = Bundle::new();
    for link in 0..45 {
        symlink(format!("chain-{}", link + 1), bundle.rootfs().join(format!("chain-{link}")))
            .unwrap();
    }
    symlink("self", bundle.rootfs().join("self")).unwrap();
    for target in ["/chain-0/x", "/self/x", "/self"] {
        bundle.edit(|config| {
            config
                .set("/mounts/1", json!({ "destination": target, "type": "tmpfs", "source": "x" }))
        });
        let web = bundle.container("web");
        let output = web.call("create", &[]).timeout(Duration::from_secs(10)).run();
        assert!(output.code() == 1 || target.starts_with("/chain"), "{output}");
        assert!(output.code() == 0 || output.stderr.contains("symbolic links"), "{output}");
        web.remove();
    }
}

/// T20: what the runtime makes in the rootfs is there already, as something nasty.
/// Notices: O_NOFOLLOW and O_EXCL at every creation, O_NONBLOCK or O_PATH at every open.
#[test]
fn t20_prepared_files_in_the_rootfs_harm_nobody() {
    require!(root);
    for kind in ["symlink", "dangling symlink", "fifo", "hard link", "device", "directory"] {
        let bundle = Bundle::with(without_dev);
        let outside = Outside::new(bundle.dir().join("outside"));
        let source = bundle.dir().join("source");
        fs::write(&source, "content").unwrap();
        for name in ["dev/fd", "dev/null", "dev/ptmx", "dev/console", "target"] {
            prepare(kind, &bundle.rootfs().join(name), outside.path());
        }
        bundle.edit(|config| config.bind(source.to_str().unwrap(), "/target", &[]));
        let web = bundle.container("web");
        let output = web.call("create", &[]).timeout(Duration::from_secs(10)).run();
        outside.assert_untouched();
        created_or_refused(&bundle, &web, &output);
        outside.assert_untouched();
    }
}

fn prepare(kind: &str, path: &std::path::Path, outside: &std::path::Path) {
    let text = path.to_str().unwrap();
    match kind {
        "symlink" => symlink(outside.join("file"), path).unwrap(),
        "dangling symlink" => symlink(outside.join("new"), path).unwrap(),
        "hard link" => fs::hard_link(outside.join("file"), path).unwrap(),
        "directory" => fs::create_dir(path).unwrap(),
        "fifo" => assert!(host::tool(&["mkfifo", text]).0.success()),
        _ => assert!(host::tool(&["mknod", text, "c", "1", "5"]).0.success()),
    }
}

/// T25, CVE-2019-14271: nothing of the image is loaded or run by the runtime, and no name service
/// of the host is asked.
/// Notices: a dynamic binary, getpwuid and its kin, helpers run by name.
#[test]
fn t25_runtime_opens_no_name_service_and_executes_nothing_of_the_image() {
    require!(root, program("strace"));
    let bundle = Bundle::with(|config| config.args(&["/bin/true"]).set("/process/user/uid", 1000));
    for name in ["etc/nsswitch.conf", "etc/ld.so.preload", "lib/libnss_files.so.2"] {
        let path = bundle.rootfs().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "poison").unwrap();
    }
    let trace = bundle.dir().join("trace");
    let calls = "trace=open,openat,openat2,execve,execveat";
    let strace = ["strace", "-f", "-o", trace.to_str().unwrap(), "-e", calls];
    bundle.container("web").call("run", &[]).through(&strace).run().ok();
    let text = fs::read_to_string(trace).unwrap();
    for word in ["nsswitch.conf", "libnss", "ld.so", "libc.so", "nscd"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    let executed: Vec<&str> = text.lines().filter(|line| line.contains("execve")).collect();
    let ours = onggi::binary();
    let ours = ours.to_str().unwrap();
    let of_image = executed.iter().filter(|line| !line.contains(ours) && line.ends_with(" = 0"));
    // The runtime executes its sealed copy by a descriptor.
    let by_descriptor =
        |line: &&&str| line.contains("execveat(") || line.contains("/proc/self/fd/");
    let of_image: Vec<_> = of_image.filter(|line| !by_descriptor(line)).collect();
    assert!(
        of_image.len() <= 1 && of_image.iter().all(|line| line.contains("true")),
        "{of_image:#?}"
    );
}

/// T32: exec without a terminal has none at all, even when its caller has one to push characters
/// into (TIOCSTI).
/// Notices: setsid in exec's child.
#[test]
fn t32_exec_never_has_the_callers_controlling_terminal() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let pty = Pty::open(24, 80);
    let call = web
        .call("exec", &[])
        .args(&["cat", "/proc/self/stat"])
        .stdin(pty.slave.try_clone().unwrap());
    let output = call.before_exec(|| unsafe {
        libc::setsid();
        libc::ioctl(0, libc::TIOCSCTTY, 0);
    });
    let output = output.run().ok();
    let fields: Vec<&str> = output.stdout.rsplit_once(") ").unwrap().1.split(' ').collect();
    // From field 3 on: state ppid pgrp session tty_nr.
    let (group, session, terminal) = (fields[2], fields[3], fields[4]);
    assert_eq!(terminal, "0", "{output}");
    assert!(group == session && session != "0", "a session of its own: {output}");
}
