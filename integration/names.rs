//! Host name, domain name, sysctls and the session keyring.

use std::fs;

use serde_json::json;

use crate::support::refusal::{refused, refused_at};
use crate::support::{Bundle, eventually, host};

#[test]
fn hostname_and_domainname_are_set_inside() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/hostname", "box").set("/domainname", "example.org");
        config.sh("uname -n; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname")
    });
    let output = bundle.container("web").run().ok();
    assert_eq!(output.stdout, "box\nbox\nexample.org\n");
}

#[test]
fn hostname_of_64_bytes_is_accepted_and_of_65_refused() {
    require!(root);
    let longest = "h".repeat(64);
    let bundle =
        Bundle::with(|config| config.set("/hostname", longest.as_str()).args(&["uname", "-n"]));
    assert_eq!(bundle.container("web").run().ok().stdout.trim(), longest);
    bundle.edit(|config| config.set("/hostname", format!("{longest}h")));
    refused_at(&bundle, &["/hostname"]);
}

#[test]
fn sysctl_of_the_own_namespaces_is_set() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set(
            "/linux/sysctl",
            json!({
                "net.ipv4.ip_forward": "1",
                "net/ipv4/ip_default_ttl": "77",
                "kernel.msgmax": "12345",
                "kernel.shm_rmid_forced": "1",
                "fs.mqueue.msg_max": "17"
            }),
        );
        config.sh("cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ip_default_ttl kernel/msgmax \
             kernel/shm_rmid_forced fs/mqueue/msg_max")
    });
    let before = fs::read("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    assert_eq!(bundle.container("web").run().ok().stdout, "1\n77\n12345\n1\n17\n");
    assert_eq!(fs::read("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), before, "the host's");
}

/// sysctl(8): a slash stands for a dot in a name that is written with dots.
#[test]
fn sysctl_with_an_interface_name() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/linux/sysctl", json!({ "net.ipv4.conf.lo.forwarding": "1" }));
        config.args(&["cat", "/proc/sys/net/ipv4/conf/lo/forwarding"])
    });
    assert_eq!(bundle.container("web").run().ok().stdout, "1\n");
}

/// The image's /proc is not what sysctls go through: they are set even where /proc is not mounted.
#[test]
fn sysctl_without_a_mount_on_proc() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.remove("/mounts/0").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
        config.set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "77" }))
    });
    let fake = bundle.rootfs().join("proc/sys/net/ipv4");
    fs::create_dir_all(&fake).unwrap();
    fs::write(fake.join("ip_default_ttl"), "fake").unwrap();
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(fs::read_to_string(fake.join("ip_default_ttl")).unwrap(), "fake");
    let pid = web.init().0.to_string();
    let args = ["nsenter", "--net", "--target", &pid, "cat", "/proc/sys/net/ipv4/ip_default_ttl"];
    let (_, text) = host::tool(&args);
    assert_eq!(text, "77\n");
}

/// T28, CVE-2022-0811: whatever would change the host is refused, in whatever spelling.
#[test]
fn t28_sysctls_that_reach_the_host_are_refused() {
    require!(root);
    let pattern = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    for name in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "net.ipv4.../../kernel.core_pattern",
        "net..kernel",
        "net/ipv4//../../kernel/core_pattern",
        "/net/ipv4/ip_forward",
        "net.a\0b",
        "vm.overcommit_memory",
        "kernel.hostname",
        "fs.file-max",
        "kernel.msgmax/../core_pattern",
        "",
    ] {
        let bundle = Bundle::with(|config| config.set("/linux/sysctl", json!({ name: "|/evil" })));
        let output = refused(&bundle);
        assert!(output.stderr.contains("/linux/sysctl/"), "{name:?}: {output}");
    }
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

/// T28: a sysctl of a namespace that the container shares with the host.
#[test]
fn t28_sysctl_without_its_own_namespace_is_refused() {
    require!(root);
    for (kind, name) in [
        ("network", "net.ipv4.ip_default_ttl"),
        ("ipc", "kernel.msgmax"),
        ("ipc", "fs.mqueue.msg_max"),
    ] {
        let bundle = Bundle::with(|config| {
            config.share_namespace(kind).set("/linux/sysctl", json!({ name: "77" }))
        });
        refused_at(&bundle, &[&format!("/linux/sysctl/{name}")]);
    }
}

/// T28: a namespace that is joined by path but is the host's own all the same.
#[test]
fn t28_sysctl_in_the_hosts_namespace_joined_by_path_is_refused() {
    require!(root);
    let before = fs::read("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    let bundle = Bundle::with(|config| {
        config.join_namespace("network", &format!("/proc/{}/ns/net", std::process::id()));
        config.set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "77" }))
    });
    refused(&bundle);
    assert_eq!(fs::read("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), before);
}

#[test]
fn sysctl_that_does_not_exist_is_a_clean_error_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/linux/sysctl", json!({ "net.no_such": "1" })));
    let output = refused(&bundle).fails_with("no such file or directory");
    assert!(
        output.stderr.contains("/linux/sysctl") && output.stderr.contains("net.no_such"),
        "{output}"
    );
}

#[test]
fn sysctl_with_a_bad_value_is_a_clean_error_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "many" }))
    });
    let output = refused(&bundle).fails_with("invalid argument");
    assert!(
        output.stderr.contains("/linux/sysctl") && output.stderr.contains("ip_default_ttl"),
        "{output}"
    );
}

/// The session keyring is the container's own, and what the caller has in its own stays there.
#[test]
fn session_keyring_is_new_and_named_after_the_container() {
    require!(root, path("/proc/keys"));
    let bundle =
        Bundle::with(|config| config.remove("/linux/maskedPaths").args(&["cat", "/proc/keys"]));
    let id = format!("keys-{}", bundle.name());
    let output = bundle.container(&id).run().ok();
    let own = output.stdout.lines().filter(|line| line.contains(&format!("_ses.{id}"))).count();
    let named = output.stdout.lines().filter(|line| line.contains(&id)).count();
    assert!(own == 1 || named == 1, "{output}");
}

/// A keyring that somebody else has made under the name, for everybody to enter, is not the container's.
#[test]
fn session_keyring_of_another_user_is_not_entered() {
    require!(root, path("/proc/keys"));
    let bundle =
        Bundle::with(|config| config.remove("/linux/maskedPaths").args(&["cat", "/proc/keys"]));
    let id = format!("keys-{}", bundle.name());
    let name = std::ffi::CString::new(format!("_ses.{id}")).unwrap();
    let mut trap = std::process::Command::new("sleep");
    trap.arg("1000");
    let make = move || {
        let ret = unsafe {
            libc::setresuid(65534, 65534, 65534);
            let key = libc::syscall(libc::SYS_keyctl, 1, name.as_ptr());
            libc::syscall(libc::SYS_keyctl, 5, key, 0x3f3f_3f3f)
        };
        if ret == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut trap, make) };
    let mut trap = trap.spawn().unwrap();
    let output = bundle.container(&id).run();
    trap.kill().unwrap();
    // The harness reaps.
    drop(trap.wait());
    let keys = output.ok().stdout;
    let named = keys.lines().filter(|line| line.contains(&format!("_ses.{id}")));
    let owners: Vec<&str> = named.filter_map(|line| line.split_whitespace().nth(5)).collect();
    assert!(owners.contains(&"0"), "{keys}");
}

/// exec'd processes share the keyring of the container.
#[test]
fn session_keyring_is_shared_by_exec() {
    require!(root, path("/proc/keys"));
    let bundle = Bundle::with(|config| config.remove("/linux/maskedPaths"));
    let id = format!("keys-{}", bundle.name());
    let web = bundle.container(&id);
    web.up();
    let seen = web.exec(&["cat", "/proc/keys"]).ok();
    assert_eq!(seen.stdout.lines().filter(|line| line.contains(&id)).count(), 1, "{seen}");
}

/// The container's process cannot be traced to the host by its names: nothing of the runtime's
/// command line or environment is left in it.
#[test]
fn nothing_of_the_runtime_shows_in_the_process() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.call("create", &[]).env("SECRET_OF_THE_CALLER", "1").run().ok();
    web.start().ok();
    eventually("it runs", || (web.init().cmdline() == ["sleep", "1000"]).then_some(()));
    let init = web.init();
    assert!(!init.environ().iter().any(|entry| entry.contains("SECRET")));
    assert_eq!(init.status("Name"), "sleep");
}
