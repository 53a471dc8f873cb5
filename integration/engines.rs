//! Bundles as docker, containerd, podman and buildkit really write them: `fixtures/` holds what
//! hack/capture-configs has recorded on a machine with systemd, cgroup v2 and AppArmor.
//!
//! Each fixture is used three times: unmodified (this machine must refuse it for a stated reason,
//! or run it), with what belonged to that machine replaced and every fact compared with the
//! kernel's, and through the very calls that the engine made.

mod calls;
mod checks;
mod facts;
pub mod fixture;
mod resources;
pub mod substitute;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use crate::support::pty::FdSocket;
use crate::support::{Bundle, Container, Output, Process, eventually, onggi, reaper};
use fixture::Fixture;
use substitute::{Adapted, Change, adapt};

/// One test for each engine and way, so that they run side by side.
macro_rules! tests_of {
    ($($engine:ident),*) => {$(
        mod $engine {
            const ENGINE: &str = stringify!($engine);

            /// What needs a security module is refused here, by its name.
            #[test]
            fn unmodified_configs_run_or_are_refused_for_a_known_reason() {
                require!(root);
                super::each(ENGINE, super::unmodified);
            }

            #[test]
            fn what_the_configs_say_is_really_there() {
                require!(root);
                super::each(ENGINE, super::adapted);
            }

            /// Options, their order and their spelling are the engine's, and so is the environment.
            #[test]
            fn the_calls_of_the_engine_work() {
                require!(root);
                super::each(ENGINE, super::calls::replay);
            }
        }
    )*};
}

tests_of!(docker, containerd, podman, buildkit);

/// A fixture that no test would touch is a mistake.
#[test]
fn every_fixture_belongs_to_an_engine() {
    for fixture in fixture::all() {
        assert_ne!(engine_of(&fixture), "", "{}", fixture.name);
    }
}

/// Without these the tests above would prove less than their names say.
#[test]
fn the_fixtures_have_what_engines_vary() {
    let has = [
        ("/process/apparmorProfile", "a label"),
        ("/process/terminal", "a terminal"),
        ("/process/rlimits/0", "a resource limit"),
        ("/process/noNewPrivileges", "no new privileges"),
        ("/process/capabilities/ambient/0", "an ambient capability"),
        ("/root/readonly", "a read-only root"),
        ("/hooks/prestart/0", "a hook"),
        ("/linux/seccomp/syscalls/0", "a seccomp profile"),
        ("/linux/uidMappings/0", "mapped ids"),
        ("/linux/rootfsPropagation", "a propagation of the root"),
        ("/linux/devices/0", "a device"),
        ("/linux/resources/memory/limit", "a memory limit"),
        ("/linux/resources/pids/limit", "a limit of processes"),
        ("/linux/resources/unified", "a limit in words of cgroup v2"),
        ("/linux/sysctl", "a sysctl"),
        ("/annotations", "an annotation"),
    ];
    let configs: Vec<Value> = fixture::all().iter().map(Fixture::config).collect();
    for (at, what) in has {
        assert!(
            configs.iter().any(|config| config.pointer(at).is_some()),
            "no fixture with {what}"
        );
    }
    let joins = |config: &Value| config["linux"]["namespaces"].to_string().contains("\"path\"");
    assert!(configs.iter().any(joins), "no fixture that joins a namespace");
    assert!(fixture::all().iter().any(|one| one.exec_process().is_some()), "no exec");
}

/// The engine by the fixture's name. docker build is buildkit, buildah is what podman build uses.
fn engine_of(fixture: &Fixture) -> &'static str {
    let prefixes = [
        ("docker-build", "buildkit"),
        ("docker-", "docker"),
        ("ctr-", "containerd"),
        ("cri-", "containerd"),
        ("podman-", "podman"),
        ("buildah-", "podman"),
    ];
    let found = prefixes.iter().find(|(prefix, _)| fixture.name.starts_with(prefix));
    found.map_or("", |(_, engine)| engine)
}

/// Runs a test with every fixture of an engine, and fails with the names of all that failed.
fn each(engine: &str, test: fn(&Fixture)) {
    let all: Vec<Fixture> =
        fixture::all().into_iter().filter(|fixture| engine_of(fixture) == engine).collect();
    assert!(!all.is_empty(), "no fixture of {engine}");
    let fails = |fixture: &Fixture| {
        let failed = catch_unwind(AssertUnwindSafe(|| test(fixture))).is_err();
        if failed {
            eprintln!("^ this was the fixture {}", fixture.name);
        }
        failed
    };
    let failed: Vec<&str> =
        all.iter().filter(|one| fails(one)).map(|one| one.name.as_str()).collect();
    assert!(failed.is_empty(), "{} of {} have failed: {failed:?}", failed.len(), all.len());
}

/// The bytes of the engine, nothing replaced but the directory around them.
fn unmodified(fixture: &Fixture) {
    let bundle = Bundle::new();
    substitute::mapped_owner(&fixture.config(), &bundle);
    let changes = adapt(fixture.config(), &bundle, None).changes;
    bundle.write(fixture.text("config.json"));
    let web = bundle.container(&format!("{}-web", bundle.name()));
    let config = fixture.config();
    let console = console(&config["process"], &bundle);
    let created = web.call("create", &socket_option(console.as_ref())).run();
    let refused: Vec<&Change> = changes.iter().filter(|change| change.refused).collect();
    if refused.is_empty() {
        runs_to_its_end(&web, created);
    } else {
        is_refused_at(&refused, &created);
    }
    no_cgroup_is_left(&config);
    bundle.assert_clean();
}

/// The container must have been refused because of one of these places. All label errors are
/// there, whatever else is wrong: they come from reading config.json alone.
#[track_caller]
fn is_refused_at(places: &[&Change], created: &Output) {
    assert_ne!(created.code(), 0, "no error because of any of {places:#?}");
    if onggi::name() != "onggi" {
        return;
    }
    let text = &created.stderr;
    let named = places.iter().any(|place| text.contains(&place.at));
    assert!(named, "none of {places:#?} in the error of {created}");
    // With AppArmor a profile is refused only when it is not loaded, and when its turn comes.
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        return;
    }
    let labels = ["/process/apparmorProfile", "/process/selinuxLabel", "/linux/mountLabel"];
    for place in places.iter().filter(|place| labels.contains(&place.at.as_str())) {
        let needs = format!("{}: needs ", place.at);
        assert!(text.contains(&needs), "no {needs:?} in the error of {created}");
    }
}

#[track_caller]
fn runs_to_its_end(web: &Container, created: Output) {
    created.ok();
    let init = web.init();
    web.start().ok();
    if reaper::wait(init.0, std::time::Duration::from_secs(2)).is_none() {
        web.kill("KILL").ok();
    }
    web.becomes("stopped");
    web.delete().ok();
}

/// The path is that of the engine, so the harness cannot find it by the bundle's name.
#[track_caller]
fn no_cgroup_is_left(config: &Value) {
    let Some(path) = config["linux"]["cgroupsPath"].as_str() else { return };
    for hierarchy in crate::support::host::hierarchies() {
        let dir = hierarchy.join(path.trim_start_matches('/'));
        assert!(!dir.exists(), "left behind: {}", dir.display());
        // A directory that the path goes through is shared with others, and stays.
        if let Some(parent) = dir.parent().filter(|parent| *parent != hierarchy) {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// create, start, exec, kill and delete, and every fact in between.
fn adapted(fixture: &Fixture) {
    let captured = fixture.config();
    let bundle = Bundle::new();
    substitute::mapped_owner(&captured, &bundle);
    let peer = peer(&captured, &bundle);
    let peer_init = peer.as_ref().map(Container::init);
    let mut adapted = adapt(captured, &bundle, peer_init);
    substitute::stays(&mut adapted.config, "/process");
    let config = adapted.config.clone();
    bundle.edit(|place| {
        *place = config.clone();
        place
    });
    let web = bundle.container("web");
    let console = console(&config["process"], &bundle);
    let created = web.call("create", &socket_option(console.as_ref())).run();
    created.ok();
    let _terminal = console.map(|socket| socket.receive());
    let init = web.init();
    web.start().ok();
    becomes(init, &config["process"]["args"]);
    checks::process(&config["process"], &config["linux"], init);
    checks::container(&config, init, peer_init, &web);
    resources::check(&config, &bundle);
    web.exec(&["/bin/true"]).ok();
    if let Some(process) = fixture.exec_process() {
        exec(process, &web, &bundle);
    }
    web.kill("9").ok();
    let ended = reaper::wait(init.0, crate::support::patience()).expect("init is still there");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(libc::SIGKILL));
    web.becomes("stopped");
    web.delete().ok();
    drop(peer);
    bundle.assert_clean();
}

/// exec as the engine does it: a process object in a file, detached, with a pid file.
#[track_caller]
fn exec(process: Value, web: &Container, bundle: &Bundle) {
    let mut adapted = Adapted::of_process(process, bundle);
    substitute::process(&mut adapted, "");
    substitute::stays(&mut adapted.config, "");
    let (file, pid_file) = (bundle.dir().join("process.json"), bundle.dir().join("exec.pid"));
    fs::write(&file, adapted.config.0.to_string()).unwrap();
    let console = console(&adapted.config, bundle);
    let (file, pid_path) = (file.to_str().unwrap(), pid_file.to_str().unwrap());
    let mut options = vec!["--detach", "--process", file, "--pid-file", pid_path];
    options.extend(socket_option(console.as_ref()));
    web.call("exec", &options).run().ok();
    let _terminal = console.map(|socket| socket.receive());
    let found = Process::of_pid_file(&pid_file);
    becomes(found, &adapted.config["args"]);
    checks::process(&adapted.config, &bundle.config()["linux"], found);
}

/// `start` and `exec` may return just before the last execve.
#[track_caller]
fn becomes(process: Process, args: &Value) {
    let wanted = args.as_array().unwrap();
    eventually("the program runs", || (process.cmdline() == *wanted).then_some(()));
}

/// A container whose namespaces the other one joins, if it joins any.
fn peer<'b>(captured: &Value, bundle: &'b Bundle) -> Option<Container<'b>> {
    let list = captured["linux"]["namespaces"].as_array().unwrap();
    let joins = |kind: &str| list.iter().any(|one| one["type"] == kind && one["path"].is_string());
    if !list.iter().any(|namespace| namespace["path"].is_string()) {
        return None;
    }
    let peer = bundle.another("peer", |config| {
        if joins("user") {
            config.push("/linux/namespaces", json!({ "type": "user" }));
            for map in ["uidMappings", "gidMappings"] {
                config.set(&format!("/linux/{map}"), captured["linux"][map].clone());
            }
        }
        config
    });
    peer.create().ok();
    peer.start().ok();
    Some(peer)
}

fn console(process: &Value, bundle: &Bundle) -> Option<FdSocket> {
    process["terminal"].as_bool().unwrap_or(false).then(|| FdSocket::bind(bundle.dir()))
}

fn socket_option(console: Option<&FdSocket>) -> Vec<&str> {
    console.map_or(Vec::new(), |socket| vec!["--console-socket", socket.path()])
}
