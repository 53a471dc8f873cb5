//! Containers of users without rights to the host, and of root in somebody else's user namespace.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fake_bus::FakeBus;
use crate::support::{Bundle, Call, Config, Process, eventually, host, reaper};

const USER: u32 = 1000;

/// A bundle of the user's, who is root in it.
pub struct Rootless {
    pub bundle: Bundle,
    /// How the runtime is called.
    pub through: Vec<String>,
}

pub fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_string).collect()
}

impl Rootless {
    /// As `onggi spec --rootless` has it: one id, no network namespace's group of terminals.
    pub fn new(edit: impl FnOnce(&mut Config) -> &mut Config) -> Rootless {
        let bundle = Bundle::with(|config| {
            let map = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
            config.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
            config.push("/linux/namespaces", json!({ "type": "user" }));
            config.remove("/linux/resources");
            let mounts = config["mounts"].as_array_mut().unwrap();
            for options in mounts.iter_mut().filter_map(|mount| mount["options"].as_array_mut()) {
                options.retain(|option| option != "gid=5");
            }
            edit(config)
        });
        let owner = format!("{USER}:{USER}");
        let (status, text) = host::tool(&["chown", "-Rh", &owner, bundle.dir().to_str().unwrap()]);
        assert!(status.success(), "{text}");
        let through = words("setpriv --reuid=1000 --regid=1000 --clear-groups");
        Rootless { bundle, through }
    }

    /// With ranges of ids that newuidmap(1) and newgidmap(1) find, in a mount namespace of its own.
    pub fn with_ranges(mut self) -> Rootless {
        let file = self.bundle.dir().join("subids");
        fs::write(&file, format!("{USER}:300000:65536\n")).unwrap();
        let file = file.display();
        let script = format!(
            "mount --bind {file} /etc/subuid && mount --bind {file} /etc/subgid && exec \"$@\""
        );
        let mut through = words("unshare --mount --propagation slave sh -c");
        through.extend([script, "sh".to_string()]);
        through.append(&mut self.through);
        self.through = through;
        self
    }

    pub fn call(&self, args: &[&str]) -> Call {
        let through: Vec<&str> = self.through.iter().map(String::as_str).collect();
        self.bundle.onggi(args).through(&through).without_log()
    }

    pub fn path(&self) -> String {
        self.bundle.path().to_str().unwrap().to_string()
    }

    pub fn create(&self) -> Call {
        self.call(&["create", "--bundle", &self.path(), "web"])
    }

    #[track_caller]
    pub fn init(&self) -> Process {
        let state = self.call(&["state", "web"]).run().ok().json();
        let pid = state["pid"].as_i64().unwrap() as i32;
        reaper::expect(pid);
        Process(pid)
    }

    #[track_caller]
    pub fn exec(&self, options: &[&str], args: &[&str]) -> String {
        let call = self.call(&["exec"]).args(options).arg("web");
        call.args(args).run().ok().stdout
    }

    /// A second container, `two`, which runs in these namespaces of a first one.
    #[track_caller]
    pub fn another_in(&self, pod: Process, kinds: &[&str]) -> Process {
        let path = self.bundle.dir().join("bundle-two");
        fs::create_dir(&path).unwrap();
        let mut config = self.bundle.config();
        config.set("/root/path", self.bundle.rootfs().to_str().unwrap()).remove("/hostname");
        let file = |kind: &str| if kind == "network" { "net" } else { kind }.to_string();
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap().to_string();
            if kinds.contains(&kind.as_str()) {
                namespace["path"] = json!(format!("/proc/{}/ns/{}", pod.0, file(&kind)));
            }
        }
        fs::write(path.join("config.json"), config.0.to_string()).unwrap();
        self.call(&["create", "--bundle", path.to_str().unwrap(), "two"]).run().ok();
        self.call(&["start", "two"]).run().ok();
        let state = self.call(&["state", "two"]).run().ok().json();
        let two = Process(state["pid"].as_i64().unwrap() as i32);
        reaper::expect(two.0);
        for kind in kinds {
            assert_eq!(two.ns(&file(kind)), pod.ns(&file(kind)), "{kind}");
        }
        two
    }

    /// Everything up to its end, and nothing is left.
    #[track_caller]
    pub fn ends(&self) {
        self.call(&["kill", "web", "KILL"]).run().ok();
        eventually("it is stopped", || {
            let state = self.call(&["state", "web"]).run().ok().json();
            (state["status"] == "stopped").then_some(())
        });
        self.call(&["delete", "web"]).run().ok();
        self.bundle.assert_clean();
    }
}

#[test]
fn rootless_with_one_id_of_its_own() {
    require!(root, program("setpriv"));
    let user = Rootless::new(|config| config);
    user.create().run().ok();
    // Who may not look at init before it is its program is told so.
    let output = user.call(&["exec", "web", "true"]).run();
    output.exits(255).fails_with("until it has been started");
    user.call(&["start", "web"]).run().ok();
    let init = user.init();
    assert_eq!(init.status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(init.read("uid_map").split_whitespace().collect::<Vec<_>>(), ["0", "1000", "1"]);
    assert_eq!(init.read("setgroups"), "deny\n");
    assert_eq!(user.exec(&[], &["sh", "-c", "id -u; id -g; id -G"]), "0\n0\n0\n");
    let script =
        "hostname; echo x > /dev/null; ls -d /proc/1 /sys/kernel; readlink /proc/self/ns/pid";
    let output = user.exec(&[], &["sh", "-c", script]);
    assert_eq!(output, format!("onggi\n/proc/1\n/sys/kernel\n{}\n", init.ns("pid")));
    user.exec(&["--detach"], &["sleep", "1000"]);
    user.call(&["exec", "--user", "1", "web", "id"]).run().fails_with("not mapped");
    let list = user.call(&["list", "--format", "json"]).run().ok().json();
    assert_eq!(list[0]["owner"], "1000");
    user.ends();
}

/// Only root may write to the files in /proc of a process that is not dumpable, as exec's child is: it has the
/// score from its parent, which goes back to its own.
#[test]
fn rootless_exec_has_its_oom_score_adj() {
    require!(root, program("setpriv"));
    let user = Rootless::new(|config| config.set("/process/oomScoreAdj", 654));
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    assert_eq!(user.init().read("oom_score_adj"), "654\n");
    let script = "cat /proc/self/oom_score_adj; exec cat";
    let exec = user.call(&["exec", "web", "sh", "-c", script]).stdin(Stdio::piped()).spawn();
    eventually("it has its score", || (exec.stdout_now() == "654\n").then_some(()));
    assert_eq!(exec.process().read("oom_score_adj"), Process::own().read("oom_score_adj"));
    exec.wait().ok();
    user.ends();
}

/// A user's own files can be bound, and so can those of everybody, before any target is touched.
#[test]
fn rootless_sources_are_opened_before_targets_as_the_user() {
    require!(root, program("setpriv"));
    let user = Rootless::new(|config| config);
    let private = user.bundle.dir().join("private");
    fs::create_dir(&private).unwrap();
    fs::write(private.join("file"), "mine\n").unwrap();
    chown(&private, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let file = private.join("file").to_str().unwrap().to_string();
    user.bundle.edit(|config| {
        config.bind(&file, "/mnt/file", &["bind"]);
        // The second one's source is a path that the first one covers.
        config.bind("/var", &file, &["rbind", "ro"]).bind(&file, "/mnt/again", &["bind", "ro"])
    });
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    assert_eq!(user.exec(&[], &["cat", "/mnt/file", "/mnt/again"]), "mine\nmine\n");
    user.ends();
    // What the user may not reach is not reached.
    chown(&private, Some(0), Some(0)).unwrap();
    user.create().run().fails_with("permission denied");
    user.bundle.assert_clean();
}

fn ranges(config: &mut Config) -> &mut Config {
    let map = json!([
        { "containerID": 0, "hostID": USER, "size": 1 },
        { "containerID": 1, "hostID": 300_000, "size": 65535 },
    ]);
    config.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    config.set("/process/user", json!({ "uid": 33, "gid": 34, "additionalGids": [44] }))
}

#[test]
fn rootless_with_newuidmap_has_the_ranges() {
    require!(root, program("setpriv"), program("newuidmap"));
    let user = Rootless::new(ranges).with_ranges();
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    let init = user.init();
    assert_eq!(init.status("Uid"), ["300032"; 4].join("\t"));
    assert_eq!(init.status("Gid"), ["300033"; 4].join("\t"));
    assert_eq!(init.status("Groups"), "300043");
    assert_eq!(user.exec(&[], &["id"]).trim(), "uid=33 gid=34 groups=44");
    let script = "chown 33:34 /tmp/file; stat -c %u:%g /tmp/file";
    let script = format!("> /tmp/file; {script}");
    let output = user.exec(&["--user", "0:0", "--cap", "CAP_CHOWN"], &["sh", "-c", &script]);
    assert_eq!(output, "33:34\n");
    let file = fs::metadata(user.bundle.rootfs().join("tmp/file")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), 300_032);
    user.ends();
}

#[test]
fn rootless_without_newuidmap_names_it() {
    require!(root, program("setpriv"), program("newuidmap"));
    let user = Rootless::new(ranges);
    let setpriv = host::find_program("setpriv").unwrap();
    let mut bare = Rootless::new(ranges);
    bare.through[0] = setpriv.to_str().unwrap().to_string();
    bare.create().env("PATH", "/nowhere").run().fails_with("/linux/uidMappings: ids that are not");
    // Without ranges the program refuses, in its own words.
    user.create().run().fails_with("/linux/uidMappings: newuidmap: ");
    for user in [user, bare] {
        user.bundle.assert_clean();
    }
}

#[test]
fn rootless_needs_a_user_namespace() {
    require!(root, program("setpriv"));
    let user = Rootless::new(|config| {
        config.remove("/linux/uidMappings").remove("/linux/gidMappings");
        let list = config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != "user");
        config
    });
    user.create()
        .run()
        .fails_with("/linux/namespaces: a caller without CAP_SYS_ADMIN needs a user");
    user.bundle.assert_clean();
}

/// setgroups(2) is denied, and no group is as good as another.
#[test]
fn rootless_additional_groups_that_cannot_be_are_refused() {
    require!(root, program("setpriv"), program("newuidmap"));
    // One group only, mapped without rights; users come from the ranges.
    let user = Rootless::new(|config| {
        config.set("/process/user", json!({ "uid": 0, "gid": 0, "additionalGids": [0] }))
    });
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    user.ends();
    let user = Rootless::new(|config| {
        config.set("/process/user", json!({ "uid": 0, "gid": 0, "additionalGids": [7] }))
    });
    user.create().run().fails_with("/process/user/additionalGids: 7 is not mapped");
}

/// A limit that nobody delegated is an error; without limits the container stays where the caller is.
#[test]
fn rootless_without_a_delegated_cgroup() {
    require!(root, program("setpriv"));
    let user = Rootless::new(|config| config);
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    let own: Vec<String> = Process::own().cgroups().into_values().collect();
    assert_eq!(user.init().cgroups().into_values().collect::<Vec<_>>(), own);
    user.ends();
    let user = Rootless::new(|config| config.set("/linux/resources/pids/limit", 50));
    user.create().run().fails_with("/linux/resources/pids/limit");
    user.bundle.assert_clean();
}

/// The bus of the user's systemd, for a user and for root of the user's own user namespace (podman): where
/// no address is told, it is in the runtime directory.
#[test]
fn row18_bus_of_a_user_without_an_address_is_in_the_runtime_directory() {
    require!(root, program("setpriv"));
    let user = |user: &Rootless, bus: &FakeBus| {
        let dir = user.bundle.dir().join("runtime");
        fs::create_dir(&dir).unwrap();
        symlink(bus.path(), dir.join("bus")).unwrap();
        chown(bus.path(), Some(USER), Some(USER)).unwrap();
        let dir = dir.to_str().unwrap();
        for variables in [&[][..], &[("DBUS_SESSION_BUS_ADDRESS", "")]] {
            let variables = [&[("XDG_RUNTIME_DIR", dir)], variables].concat();
            let call = user.create().global(&["--systemd-cgroup"]).env_only(&variables);
            call.run().fails_with("the user's systemd says no");
        }
        assert_eq!(bus.calls(), ["StartTransientUnit"; 2]);
        user.bundle.assert_clean();
    };
    let refuse = |rootless: &Rootless| {
        FakeBus::new(&rootless.bundle, |peer, request| {
            peer.refuse(request, "org.example.No", "the user's systemd says no");
        })
    };
    let path = "user.slice:libpod:web";
    let plain = Rootless::new(|config| config.set("/linux/cgroupsPath", path));
    user(&plain, &refuse(&plain));
    let mut root_of_namespace =
        Rootless::new(|config| without_user_namespace(config).set("/linux/cgroupsPath", path));
    root_of_namespace.through.extend(words("unshare --user --map-root-user --mount"));
    user(&root_of_namespace, &refuse(&root_of_namespace));
}

/// The default state root: below the user's runtime directory, kept from those who clean up there.
#[test]
fn rootless_default_root_is_in_the_runtime_directory() {
    require!(root, program("setpriv"));
    let user = Rootless::new(|config| config);
    let dir = user.bundle.dir().join("runtime");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(USER), Some(USER)).unwrap();
    let through: Vec<&str> = user.through.iter().map(String::as_str).collect();
    let call = |args: &[&str]| {
        let call = user.bundle.onggi_without_root(args).through(&through).without_log();
        call.env("XDG_RUNTIME_DIR", &dir).run().ok()
    };
    call(&["create", "--bundle", &user.path(), "web"]);
    let mode = fs::metadata(dir.join("onggi")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1700, "{mode:o}");
    assert!(dir.join("onggi/web/state.json").exists());
    call(&["delete", "--force", "web"]);
    assert!(!dir.join("onggi/web").exists());
}

/// podman and buildah: root of a user namespace that somebody else has made, here with nothing but
/// itself mapped.
fn in_a_user_namespace(unshare: &str, config: impl FnOnce(&mut Config) -> &mut Config) {
    let mut user = Rootless::new(config);
    user.through.extend(words(unshare));
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    // The pid is that of the namespace where the runtime is; both have the same here.
    let init = user.init();
    assert_eq!(init.status("Uid"), ["1000"; 4].join("\t"));
    user.call(&["kill", "web", "KILL"]).run().ok();
    eventually("it is stopped", || {
        let state = user.call(&["state", "web"]).run().ok().json();
        (state["status"] == "stopped").then_some(())
    });
    user.call(&["delete", "web"]).run().ok();
    user.bundle.assert_clean();
}

fn without_user_namespace(config: &mut Config) -> &mut Config {
    config.remove("/linux/uidMappings").remove("/linux/gidMappings");
    let list = config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "user");
    config
}

/// Its mount namespace is that of the host: sources are cloned by the child.
#[test]
fn rootless_root_of_a_user_namespace() {
    require!(root, program("setpriv"));
    in_a_user_namespace("unshare --user --map-root-user", without_user_namespace);
}

/// With a mount namespace of its own it clones them itself.
#[test]
fn rootless_root_of_a_user_and_a_mount_namespace() {
    require!(root, program("setpriv"));
    in_a_user_namespace("unshare --user --map-root-user --mount", without_user_namespace);
}

/// The host's mounts are locked there. Something on its root hides a procfs of theirs from the kernel, too;
/// something on a directory above it does not.
#[test]
fn rootless_no_pivot_refuses_a_hidden_proc_that_is_locked() {
    require!(root, program("setpriv"));
    let mut user = Rootless::new(without_user_namespace);
    let place = user.bundle.dir().join("above");
    fs::create_dir_all(place.join("proc")).unwrap();
    let as_root = user.through.clone();
    for (over, refused) in [("$0 && mkdir $0/proc", true), ("$0/proc", false)] {
        let script =
            format!("mount -t proc hidden $0/proc && mount -t tmpfs over {over} && exec \"$@\"");
        user.through = words("unshare --mount --propagation private sh -c");
        user.through.extend([script, place.to_str().unwrap().to_string()]);
        user.through.extend(as_root.clone());
        user.through.extend(words("unshare --user --map-root-user --mount"));
        let output = user.create().args(&["--no-pivot"]).run();
        let text = format!("--no-pivot: {}/proc cannot be taken away", place.display());
        assert_eq!(output.stderr.contains(&text), refused, "{output}");
        assert_eq!(output.code() != 0, refused, "{output}");
    }
    user.call(&["delete", "--force", "web"]).run().ok();
    user.bundle.assert_clean();
}

/// `--userns keep-id`: one more inside.
#[test]
fn rootless_user_namespace_in_a_user_namespace() {
    require!(root, program("setpriv"));
    in_a_user_namespace("unshare --user --map-root-user --mount", |config| {
        let map: Value = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        config.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    });
}

/// A pod of podman without rights: root of a user namespace, whose other namespaces are still those of the
/// host. It has rights over a container's namespaces, and none over its own, to come back to.
#[test]
fn rootless_root_of_a_user_namespace_joins_and_execs() {
    // The system's systemd takes no orders from there.
    require!(root, cgroupfs_driver(), program("setpriv"), program("nsenter"));
    let mut user = Rootless::new(without_user_namespace);
    let holder = [&user.through[..], &words("unshare --user --map-root-user --mount sleep 600")];
    let holder = holder.concat();
    let holder = reaper::spawn(std::process::Command::new(&holder[0]).args(&holder[1..])).unwrap();
    let pid = holder.pid;
    let host_user = fs::read_link("/proc/self/ns/user").unwrap();
    eventually("its user namespace is there", || {
        let mapped = !fs::read_to_string(format!("/proc/{pid}/uid_map")).ok()?.is_empty();
        let sleeps = fs::read_to_string(format!("/proc/{pid}/comm")).ok()? == "sleep\n";
        let link = fs::read_link(format!("/proc/{pid}/ns/user")).ok()?;
        (mapped && sleeps && link != host_user).then_some(())
    });
    let enter = format!("nsenter --target {pid} --user --mount --preserve-credentials");
    user.through.extend(words(&enter));
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    let pod = user.init();
    assert_eq!(user.exec(&[], &["sh", "-c", "echo $PPID"]).trim(), "0");
    user.another_in(pod, &["network", "ipc", "uts", "pid"]);
    user.call(&["exec", "two", "true"]).run().ok();
    user.call(&["delete", "--force", "two"]).run().ok();
    user.call(&["delete", "--force", "web"]).run().ok();
    Process(pid).kill(libc::SIGKILL).unwrap();
    assert!(reaper::wait(pid, Duration::from_secs(10)).is_some());
    user.bundle.assert_clean();
}

/// A pod: the second container joins the first one's namespaces, user namespace included.
#[test]
fn rootless_joined_user_namespace() {
    require!(root, program("setpriv"));
    let user = Rootless::new(|config| config.set("/process/oomScoreAdj", 654));
    user.create().run().ok();
    user.call(&["start", "web"]).run().ok();
    let pod = user.init();
    let two = user.another_in(pod, &["user", "network", "ipc", "uts", "pid"]);
    assert_ne!(two.ns("mnt"), pod.ns("mnt"));
    assert_eq!(two.read("oom_score_adj"), "654\n");
    let output = user.call(&["exec", "two", "cat", "/proc/1/cmdline"]).run().ok();
    assert_eq!(output.stdout, "sleep\u{0}1000\u{0}");
    user.call(&["delete", "--force", "two"]).run().ok();
    user.ends();
}
