//! linux.netDevices: devices of the host that move into the container. Every test has a network
//! namespace of its own in the host's place, so nothing of the machine is touched.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Call, Config, Container, Process, eventually, host, reaper};

/// A network namespace, held by a process that sleeps.
struct Net(Process);

impl Net {
    fn new() -> Net {
        let child =
            reaper::spawn(Command::new("unshare").args(["--net", "sleep", "1000"])).unwrap();
        let net = Net(Process(child.pid));
        let own = Process::own().ns("net");
        eventually("it has its own network namespace", || {
            (net.0.status("Name") == "sleep" && net.0.ns("net") != own).then_some(())
        });
        net
    }

    /// With a pair of devices, `v0` up and with addresses, and `v1`.
    fn with_pair() -> Net {
        let net = Net::new();
        net.ip("link add v0 type veth peer name v1");
        net.ip("addr add 10.77.0.1/24 brd + dev v0");
        net.ip("addr add fd77::1/64 dev v0 nodad");
        net.ip("link set v0 up");
        net
    }

    fn ip(&self, args: &str) -> String {
        let (status, output) = self.try_ip(args);
        assert!(status, "ip {args}: {output}");
        output
    }

    fn try_ip(&self, args: &str) -> (bool, String) {
        let pid = self.0.0.to_string();
        let mut words = vec!["nsenter", "-t", &pid, "-n", "ip"];
        words.extend(args.split(' '));
        let (status, output) = host::tool(&words);
        (status.success(), output)
    }

    fn has(&self, device: &str) -> bool {
        self.try_ip(&format!("link show {device}")).0
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.0)
    }

    /// The call, made with this as the host's network namespace.
    fn run(&self, call: Call) -> Call {
        call.through(&["nsenter", "-t", &self.0.0.to_string(), "-n"])
    }

    fn create(&self, container: &Container<'_>) -> Call {
        self.run(container.call("create", &[]))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.0.kill(libc::SIGKILL);
        reaper::wait(self.0.0, Duration::from_secs(5));
    }
}

fn devices(config: &mut Config, devices: Value) -> &mut Config {
    config.set("/linux/netDevices", devices)
}

#[test]
fn netdevices_move_with_new_name_global_addresses_and_state_up() {
    require!(root, program("ip"), program("nsenter"));
    let net = Net::with_pair();
    // One that will not last belongs to whoever made it.
    net.ip("addr add 10.78.0.1/24 valid_lft 1000 preferred_lft 1000 dev v0");
    let bundle = Bundle::with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config.push(&format!("/process/capabilities/{set}"), json!("CAP_NET_RAW"));
        }
        devices(config, json!({ "v0": { "name": "eth0" } }))
    });
    let web = bundle.container("web");
    net.create(&web).run().ok();
    assert!(!net.has("v0") && net.has("v1"), "{}", net.ip("link"));
    web.start().ok();
    let list = web.exec(&["ip", "addr", "show", "eth0"]).ok().stdout;
    for part in ["UP", "inet 10.77.0.1/24 brd 10.77.0.255", "inet6 fd77::1/64"] {
        assert!(list.contains(part), "no {part} in {list}");
    }
    assert!(!list.contains("10.78.0.1"), "{list}");
    // Nothing to wait for before the address can be used.
    assert!(
        !list.lines().any(|line| line.contains("fd77") && line.contains("tentative")),
        "{list}"
    );
    // It works: the other end of the pair is still outside.
    net.ip("addr add 10.77.0.2/24 dev v1");
    net.ip("link set v1 up");
    web.exec(&["ping", "-c", "1", "-W", "5", "10.77.0.2"]).ok();
}

#[test]
fn netdevices_keep_their_name_without_another() {
    require!(root, program("ip"), program("nsenter"));
    let net = Net::with_pair();
    let bundle = Bundle::with(|config| devices(config, json!({ "v0": {}, "v1": { "name": "" } })));
    let web = bundle.container("web");
    net.create(&web).run().ok();
    assert!(!net.has("v0") && !net.has("v1"));
    web.start().ok();
    web.exec(&["ip", "link", "show", "v0"]).ok();
    web.exec(&["ip", "link", "show", "v1"]).ok();
}

#[test]
fn netdevices_template_with_a_number_lets_the_kernel_choose() {
    require!(root, program("ip"), program("nsenter"));
    let net = Net::with_pair();
    let both = json!({ "v0": { "name": "net%d" }, "v1": { "name": "net%d" } });
    let bundle = Bundle::with(|config| devices(config, both));
    let web = bundle.container("web");
    net.create(&web).run().ok();
    web.start().ok();
    web.exec(&["ip", "link", "show", "net0"]).ok();
    web.exec(&["ip", "link", "show", "net1"]).ok();
}

/// Hooks find the device in place, and sysctls that name it can be set.
#[test]
fn netdevices_are_there_for_hooks_and_sysctls() {
    require!(root, program("ip"), program("nsenter"));
    let net = Net::with_pair();
    let bundle = Bundle::with(|config| {
        config.set("/linux/sysctl", json!({ "net.ipv4.conf.eth0.forwarding": "1" }));
        devices(config, json!({ "v0": { "name": "eth0" } }))
    });
    let seen = bundle.dir().join("seen");
    let script = format!("ip addr show eth0 > {}", seen.display());
    bundle.edit(|config| config.hook("createContainer", "/bin/sh", &["sh", "-c", &script]));
    let web = bundle.container("web");
    net.create(&web).run().ok();
    assert!(std::fs::read_to_string(seen).unwrap().contains("10.77.0.1/24"));
    web.start().ok();
    let read = web.exec(&["cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"]).ok();
    assert_eq!(read.stdout, "1\n");
}

/// The device is where it was, with all that it had.
#[track_caller]
fn is_home(net: &Net) {
    let list = net.ip("addr show v0");
    for part in [",UP", "inet 10.77.0.1/24", "inet6 fd77::1/64"] {
        assert!(list.contains(part), "no {part} in {list}");
    }
}

#[test]
fn netdevices_that_conflict_are_refused_and_stay() {
    require!(root, program("ip"), program("nsenter"));
    let (net, joined) = (Net::with_pair(), Net::new());
    joined.ip("link add eth0 type veth peer name eth1");
    let bundle = Bundle::with(|config| {
        config.join_namespace("network", &joined.path());
        devices(config, json!({ "v0": { "name": "eth0" } }))
    });
    let web = bundle.container("web");
    let output = net.create(&web).run().fails_with("/linux/netDevices/v0/name: ");
    assert!(output.stderr.contains("has a device eth0 already"), "{output}");
    is_home(&net);
    bundle.assert_clean();
    // Another name does not conflict, whatever numbers the devices have.
    bundle.edit(|config| devices(config, json!({ "v0": { "name": "eth7" } })));
    net.create(&web).run().ok();
    assert!(joined.ip("addr show eth7").contains("10.77.0.1/24") && !net.has("v0"));
    // The spec forbids to move it back.
    web.remove();
    assert!(joined.has("eth7") && !net.has("v0"));
}

#[test]
fn netdevices_go_back_when_create_fails() {
    require!(root, program("ip"), program("nsenter"));
    let net = Net::with_pair();
    let index = net.ip("-o link show v0").split(':').next().unwrap().to_string();
    let bundle = Bundle::with(|config| {
        devices(config, json!({ "v0": { "name": "eth0" } })).args(&["/no/such/program"])
    });
    net.create(&bundle.container("web")).run().fails_with("/no/such/program");
    is_home(&net);
    assert!(net.ip("-o link show v0").starts_with(&format!("{index}:")), "another number");
    bundle.assert_clean();
    bundle.edit(|config| config.args(&["true"]).hook("createRuntime", "/bin/false", &["false"]));
    net.create(&bundle.container("web")).run().fails_with("/hooks/createRuntime/0");
    is_home(&net);
}

/// A runtime that is killed has its devices in the namespace that it joined; delete gives them back.
#[test]
fn netdevices_of_a_killed_create_go_back_by_delete() {
    require!(root, program("ip"), program("nsenter"));
    let (net, joined) = (Net::with_pair(), Net::new());
    let bundle = Bundle::with(|config| {
        config.join_namespace("network", &joined.path());
        config.hook("createRuntime", "/bin/sleep", &["sleep", "1000"]);
        devices(config, json!({ "v0": { "name": "eth%d" } }))
    });
    let web = bundle.container("web");
    let running = net.create(&web).spawn();
    eventually("the device has moved", || {
        let (found, list) = joined.try_ip("addr show eth0");
        (found && list.contains("fd77::1")).then_some(())
    });
    running.signal(libc::SIGKILL);
    drop(running);
    net.run(web.call("delete", &["--force"])).run().ok();
    is_home(&net);
    bundle.assert_clean();
}

#[test]
fn netdevices_refused_with_their_pointer() {
    require!(root);
    let two = json!({ "v0": { "name": "eth0" }, "v1": { "name": "eth0" } });
    let bundle = Bundle::with(|config| devices(config, two));
    refused_at(&bundle, &["/linux/netDevices/v1/name"]);
    bundle.edit(|config| devices(config, json!({ "lo": {} })));
    refused_at(&bundle, &["/linux/netDevices/lo"]);
    bundle.edit(|config| devices(config, json!({ "v0": { "name": "sixteen-bytes-16" } })));
    refused_at(&bundle, &["/linux/netDevices/v0/name"]);
    bundle.edit(|config| devices(config, json!({ "no-such-device": {} })));
    refused_at(&bundle, &["/linux/netDevices/no-such-device"]);
    bundle.edit(|config| devices(config, json!({ "v0": {} })).share_namespace("network"));
    refused_at(&bundle, &["/linux/netDevices"]);
}

/// The host's own namespace, named by its path, is none to move devices to.
#[test]
fn netdevices_in_a_joined_namespace_that_is_the_hosts_are_refused() {
    require!(root, program("ip"), program("nsenter"));
    let net = Net::with_pair();
    let bundle = Bundle::with(|config| {
        config.join_namespace("network", &net.path());
        devices(config, json!({ "v0": { "name": "eth0" } }))
    });
    net.create(&bundle.container("web")).run().fails_with("/linux/netDevices: ");
    is_home(&net);
    bundle.assert_clean();
}
