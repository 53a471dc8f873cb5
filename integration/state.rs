//! `state` and `ps`: their JSON, and which process they are about.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, Process, eventually, host};

/// CRI-O decodes `created` as a time, buildkit opens bundle/config.json, buildah reads the rest.
#[test]
fn row72_state_has_every_field_with_absolute_paths() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/annotations", json!({ "org.example": "x" })));
    // Relative on the command line and in the config, absolute in the answer.
    let call = bundle.onggi(&["create", "--bundle", "bundle", "web"]);
    call.cwd(bundle.dir()).run().ok();
    let web = bundle.container("web");
    let state = web.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], "web");
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(bundle.path()));
    assert_eq!(state["rootfs"], json!(bundle.rootfs()));
    assert_eq!(state["annotations"], json!({ "org.example": "x" }));
    assert!(Process(state["pid"].as_i64().unwrap() as i32).is_alive());
    let created = state["created"].as_str().unwrap();
    let (_, text) = host::tool(&["date", "--utc", "--date", created, "+%s"]);
    let (_, now) = host::tool(&["date", "+%s"]);
    let age = now.trim().parse::<i64>().unwrap() - text.trim().parse::<i64>().expect("a time");
    assert!((0..600).contains(&age), "created {created}, {age} s ago");
    assert!(created.contains('T'), "{created}");
}

/// go-runc and CRI-O decode `created` as a time, whatever the status; a container in the making, and one whose record
/// cannot be read, have Go's zero time.
#[test]
fn row72_created_is_a_time_before_there_is_one() {
    require!(root);
    let bundle = Bundle::new();
    let share = bundle.share("/share");
    let fifo = share.join("go");
    host::tool(&["mkfifo", fifo.to_str().unwrap()]);
    let script = format!("cat > {0}/state; read go < {0}/go", share.display());
    bundle.edit(|config| config.hook("createRuntime", "/bin/sh", &["sh", "-c", &script]));
    let web = bundle.container("web");
    let create = web.call("create", &[]).spawn();
    let seen = || fs::read_to_string(share.join("state")).ok().filter(|text| text.ends_with('}'));
    let hook = eventually("its hook has read the state", seen);
    let hook: Value = serde_json::from_str(&hook).unwrap();
    let state = web.state();
    assert_eq!(state["status"], "creating");
    let damaged = bundle.root().join("damaged");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("state.json"), "garbage").unwrap();
    let list = bundle.onggi(&["list", "--format", "json"]).run().ok().json();
    for state in [&hook, &state, &list[0], &list[1]] {
        assert_eq!(state["created"], "0001-01-01T00:00:00Z", "{state}");
    }
    let table = bundle.onggi(&["list"]).run().ok().stdout;
    assert_eq!(table.matches("0001-01-01T00:00:00Z").count(), 2, "{table}");
    fs::remove_dir_all(damaged).unwrap();
    fs::write(fifo, "go\n").unwrap();
    create.wait().ok();
    assert!(web.state()["created"].as_str().unwrap().starts_with("20"));
}

/// Nothing but the one object on stdout, nothing at all on stderr.
#[test]
fn row72_state_prints_one_json_object() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let output = web.state_call().ok();
    assert!(output.json().is_object());
    assert_eq!(output.stderr, "");
}

/// `created` and the paths stay what they were over the whole life.
#[test]
fn row72_state_keeps_its_facts_from_created_to_stopped() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let first = web.state();
    web.start().ok();
    let second = web.state();
    web.stop();
    let third = web.state();
    for key in ["ociVersion", "id", "bundle", "rootfs", "created"] {
        assert_eq!((&first[key], &first[key]), (&second[key], &third[key]), "{key}");
    }
    assert_eq!(first["pid"], second["pid"]);
}

/// CRI-O may look before anybody has waited for the dead init.
#[test]
fn row73_zombie_init_is_stopped_with_pid_0() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let engine = web.call("create", &[]).under_lazy_parent();
    web.start().ok();
    let init = web.init();
    init.kill(libc::SIGKILL).unwrap();
    eventually("init is a zombie", || (init.stat(3).as_deref() == Some("Z")).then_some(()));
    let state = web.state();
    assert_eq!(state["status"], "stopped");
    assert!(state["pid"].as_i64().unwrap_or(0) == 0, "{state}");
    engine.signal(libc::SIGKILL);
}

/// A process that has got the pid of a dead init is a stranger (T35): not ours to show, to
/// signal, to enter or to wait for.
#[test]
fn row73_recycled_pid_is_never_taken_for_init() {
    require!(root, capability("CAP_SYS_ADMIN", 21));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    web.stop();
    let sleep = host::find_program("sleep").unwrap();
    let stranger = host::spawn_with_pid(init.0, &[sleep.to_str().unwrap(), "1000"]).unwrap();
    assert_eq!(web.status(), "stopped");
    web.kill("KILL").fails_with("container not running");
    web.call("kill", &["--all"]).arg("KILL").run().ok();
    web.exec(&["true"]).fails();
    let list = web.call("ps", &["--format", "json"]).run().ok().json();
    assert!(list == Value::Null || list == json!([]), "{list}");
    web.delete().ok();
    assert!(stranger.is_alive());
    stranger.kill(libc::SIGKILL).unwrap();
}

/// containerd's and podman's text for "it is gone".
#[test]
fn row74_state_of_an_unknown_id() {
    require!(root);
    let bundle = Bundle::new();
    let output = bundle.onggi(&["state", "nobody"]).run().fails_with("does not exist");
    assert_eq!(output.stdout, "");
    assert!(output.errors()[0].contains("does not exist"), "{output}");
}

/// docker top: the pids of everything in the container, as the host numbers them.
#[test]
fn row88_ps_json_has_init_children_and_exec() {
    require!(root);
    let bundle = Bundle::sh("sleep 1001 & sleep 1002; true");
    let web = bundle.container("web");
    web.up();
    let file = bundle.dir().join("exec.pid");
    let exec = web.call("exec", &["--detach", "--pid-file", file.to_str().unwrap()]);
    exec.args(&["sleep", "1003"]).run().ok();
    let init = web.init();
    let children =
        eventually("both sleep", || Some(init.children()).filter(|children| children.len() == 2));
    let mut expected = vec![init.0, fs::read_to_string(file).unwrap().parse().unwrap()];
    expected.extend(children.iter().map(|child| child.0));
    expected.sort();
    assert_eq!(ps(&bundle), expected);
}

/// systemd inside a container sorts its processes into sub-cgroups: they count.
#[test]
fn row88_ps_json_includes_sub_cgroups() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    // In every hierarchy, because which one is asked is up to the runtime.
    for root in host::hierarchies() {
        let sub = root.join(bundle.name()).join("sub");
        if !root.join(bundle.name()).is_dir() {
            continue;
        }
        fs::create_dir(&sub).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // On v2 an empty one says "as above".
            match fs::read(root.join(bundle.name()).join(file)) {
                Ok(text) if !text.trim_ascii().is_empty() => {
                    fs::write(sub.join(file), text).unwrap()
                }
                _ => {}
            }
        }
        fs::write(sub.join("cgroup.procs"), init.0.to_string()).unwrap();
    }
    assert_eq!(ps(&bundle), [init.0]);
}

/// docker top of a container that has just ended is not an error.
#[test]
fn row88_ps_of_a_stopped_container_is_empty() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    let list = web.call("ps", &["--format", "json"]).run().ok().json();
    assert!(list == Value::Null || list == json!([]), "{list}");
}

/// The table is ps's own, with the container's processes only.
#[test]
fn row88_ps_table_shows_only_the_container() {
    require!(root, program("ps"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let table = web.call("ps", &[]).run().ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("PID"), "{table}");
    let column = lines[0].split_whitespace().position(|word| word == "PID").unwrap();
    assert_eq!(lines.len(), 2, "{table}");
    let pid = lines[1].split_whitespace().nth(column).unwrap();
    assert_eq!(pid, web.init().0.to_string());
}

fn ps(bundle: &Bundle) -> Vec<i32> {
    let output = bundle.onggi(&["ps", "--format", "json", "web"]).run().ok();
    let mut pids: Vec<i32> =
        output.json().as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap() as i32).collect();
    pids.sort();
    pids
}

/// The number of a dead init may be given to a thread. pidfd_open(2) says ENOENT of that since Linux 6.16, EINVAL
/// before.
#[test]
fn row73_a_thread_with_the_pid_of_a_dead_init_is_not_the_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    let (tell, told) = std::sync::mpsc::channel();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(unsafe { libc::gettid() }).unwrap();
        let _ = wait.recv();
    });
    let tid = told.recv().unwrap();
    let file = bundle.root().join("web/state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record["init"][0] = json!(tid);
    fs::write(&file, record.to_string()).unwrap();
    assert_eq!(web.status(), "stopped");
    web.kill("KILL").fails_with("container not running");
    web.start().fails_with("cannot start a container that has stopped");
    web.delete().ok();
    bundle.assert_clean();
    done.send(()).unwrap();
    thread.join().unwrap();
}
