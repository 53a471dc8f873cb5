//! The systemd driver against a bus that is absent, silent, late, wrong or unfriendly. The bus is a
//! fake behind a real socket; the runtime, the processes and the cgroups are real.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::fake_bus::{FakeBus, Peer, Request, make_scope, remove_scope};
use crate::support::{Bundle, Call, Container, eventually, host};

const JOB: &str = "/org/freedesktop/systemd1/job/7";
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const READ_ONLY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";

/// A bundle whose container is in a scope of the root slice, and the scope's name.
fn bundle() -> (Bundle, String) {
    let bundle = Bundle::new();
    let path = format!("-.slice:{}:web", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path));
    let unit = format!("{}-web.scope", bundle.name());
    (bundle, unit)
}

fn call(container: &Container<'_>, command: &str, options: &[&str], bus: &FakeBus) -> Call {
    let call = container.call(command, options).global(&["--systemd-cgroup"]);
    call.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address()).timeout(Duration::from_secs(90))
}

/// Does what systemd does.
fn systemd(unit: String) -> impl Fn(&Peer, &Request) + Send + Sync {
    move |peer, request| match request.member.as_str() {
        "StartTransientUnit" => {
            make_scope(&unit, request.pid());
            peer.reply(request, Some(JOB));
            peer.job_removed("/org/freedesktop/systemd1/job/6", "other.scope", "failed");
            peer.job_removed(JOB, &unit, "done");
        }
        "StopUnit" => {
            remove_scope(&unit);
            peer.reply(request, Some(JOB));
            peer.job_removed(JOB, &unit, "done");
        }
        _ => peer.refuse(request, NO_UNIT, "Unit is not loaded."),
    }
}

/// Create must fail with this text and leave nothing.
#[track_caller]
fn create_fails(
    answer: impl Fn(&Peer, &Request) + Send + Sync + 'static,
    text: &str,
) -> Vec<String> {
    let (bundle, _) = bundle();
    let bus = FakeBus::new(&bundle, answer);
    let web = bundle.container("web");
    let output = call(&web, "create", &[], &bus).run().fails_with(text);
    assert!(!output.stderr.contains("undoing"), "{output}");
    bundle.assert_clean();
    bus.calls()
}

/// Two calls for a whole life; exec, kill and state have no need of systemd.
#[test]
fn systemd_life_of_a_container_takes_one_call_to_start_and_one_to_stop() {
    require!(root);
    let (bundle, unit) = bundle();
    bundle.edit(|config| {
        config.set("/linux/resources", json!({ "devices": [{ "allow": false, "access": "rwm" }] }))
    });
    let bus = FakeBus::new(&bundle, systemd(unit.clone()));
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().ok();
    assert_eq!(bus.calls(), ["StartTransientUnit"]);
    // In every hierarchy, also those that systemd does not know.
    let cgroups = web.init().cgroups();
    let mut names: Vec<String> = host::v1_mounts().into_iter().map(|mount| mount.0).collect();
    names.push(String::new());
    for name in names.iter().filter(|name| cgroups.contains_key(*name)) {
        assert_eq!(cgroups[name], format!("/{unit}"), "{name:?}");
    }
    web.start().ok();
    assert_eq!(
        web.sh("cat /proc/self/cgroup").ok().stdout,
        web.sh("cat /proc/1/cgroup").ok().stdout
    );
    assert_eq!(web.status(), "running");
    web.stop();
    assert_eq!(bus.calls(), ["StartTransientUnit"]);
    call(&web, "delete", &[], &bus).run().ok();
    assert_eq!(bus.calls(), ["StartTransientUnit", "StopUnit", "ResetFailedUnit"]);
    bundle.assert_clean();
}

/// The signal that a job has ended may be faster than the answer that names the job.
#[test]
fn systemd_job_may_end_before_its_name_is_known() {
    require!(root);
    let (bundle, unit) = bundle();
    let name = unit.clone();
    let bus = FakeBus::new(&bundle, move |peer, request| {
        if request.member == "StartTransientUnit" {
            make_scope(&name, request.pid());
            peer.job_removed(JOB, &name, "done");
            thread::sleep(Duration::from_millis(300));
            peer.reply(request, Some(JOB));
        } else {
            systemd(name.clone())(peer, request);
        }
    });
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().ok();
    call(&web, "delete", &["--force"], &bus).run().ok();
    bundle.assert_clean();
}

/// runc waits for ever in D state here (opencontainers/runc#3904).
#[test]
fn systemd_bus_that_never_answers_is_given_up() {
    require!(root);
    let (bundle, _) = bundle();
    let bus = FakeBus::raw(&bundle, |peer| {
        thread::sleep(Duration::from_secs(600));
        drop(peer);
    });
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().fails_with("gives no answer within 30 s");
    bundle.assert_clean();
}

/// It has agreed to make the unit, so it may exist by now: it is stopped.
#[test]
fn systemd_start_that_never_ends_is_taken_back() {
    require!(root);
    let said = "gives no answer within 30 s";
    let calls = create_fails(
        |peer, request| match request.member.as_str() {
            "StartTransientUnit" => peer.reply(request, Some(JOB)),
            _ => peer.refuse(request, NO_UNIT, "Unit is not loaded."),
        },
        said,
    );
    assert_eq!(calls, ["StartTransientUnit", "StopUnit"]);
}

#[test]
fn systemd_bus_that_refuses_or_closes_or_talks_nonsense_is_an_error() {
    require!(root);
    for (said, text) in [
        (&b"REJECTED EXTERNAL\r\n"[..], "refuses us: \"REJECTED EXTERNAL\""),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "refuses us"),
        (&[b'x'; 5000], "does not speak D-Bus"),
        (b"", "closes the connection"),
        (b"DATA\r\nOK 1\r\nnot a message at all", "sends what is no D-Bus message"),
        // Its length is 4 GiB.
        (b"DATA\r\nOK 1\r\nl\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0", "no D-Bus message"),
        // Fields that end outside of it.
        (b"DATA\r\nOK 1\r\nl\x02\0\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x05\x01u\0\0\0\0\0", "closes"),
    ] {
        let (bundle, _) = bundle();
        let bus = FakeBus::raw(&bundle, move |peer| {
            peer.hear();
            peer.raw(said);
        });
        let web = bundle.container("web");
        call(&web, "create", &[], &bus).run().fails_with(text);
        bundle.assert_clean();
    }
}

#[test]
fn systemd_absent_bus_is_an_error_that_names_it() {
    require!(root);
    let (bundle, _) = bundle();
    let web = bundle.container("web");
    let create = web.call("create", &[]).global(&["--cgroup-manager", "systemd"]);
    let create = create.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus");
    let output = create.run();
    assert_eq!(output.log()[0]["code"], "E_SYSTEMD", "{output}");
    output.fails_with("connect /nowhere/bus: no such file or directory (ENOENT)");
    bundle.assert_clean();
}

#[test]
fn systemd_refusal_is_told_in_its_own_words() {
    require!(root);
    create_fails(
        |peer, request| {
            peer.refuse(request, "org.freedesktop.DBus.Error.AccessDenied", "Rejected by policy.");
        },
        "Rejected by policy (org.freedesktop.DBus.Error.AccessDenied)",
    );
}

#[test]
fn systemd_start_that_fails_is_taken_back() {
    require!(root);
    let calls = create_fails(
        |peer, request| match request.member.as_str() {
            "StartTransientUnit" => {
                peer.reply(request, Some(JOB));
                peer.job_removed(JOB, "web.scope", "failed");
            }
            _ => peer.refuse(request, NO_UNIT, "Unit is not loaded."),
        },
        "its start ends as \"failed\"",
    );
    assert_eq!(calls, ["StartTransientUnit", "StopUnit"]);
}

/// The process is in the scope then, on v1 also in directories of hierarchies that systemd does not know and
/// does not take away.
#[test]
fn systemd_create_with_a_limit_that_the_kernel_refuses_is_taken_back() {
    require!(root, controller("cpuset"));
    let (bundle, unit) = bundle();
    bundle.edit(|config| config.set("/linux/resources/cpu", json!({ "cpus": "4000" })));
    let bus = FakeBus::new(&bundle, systemd(unit));
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().fails_with("/linux/resources/cpu/cpus");
    bundle.assert_clean();
    assert_eq!(bus.calls(), ["StartTransientUnit", "StopUnit", "ResetFailedUnit"]);
}

/// It says that it is done, but the process is where it was: limits would go to nobody.
#[test]
fn systemd_that_has_not_moved_the_process_is_an_error() {
    require!(root);
    let calls = create_fails(
        |peer, request| match request.member.as_str() {
            "StartTransientUnit" => {
                peer.reply(request, Some(JOB));
                peer.job_removed(JOB, "web.scope", "done");
            }
            _ => peer.refuse(request, NO_UNIT, "Unit is not loaded."),
        },
        "has not put process",
    );
    assert_eq!(calls, ["StartTransientUnit", "StopUnit"]);
}

/// A failed unit of a crash keeps its name until it is reset; any other is somebody's.
#[test]
fn systemd_unit_that_is_there_is_reset_once_and_never_stopped() {
    require!(root);
    let calls = create_fails(
        |peer, request| match request.member.as_str() {
            "StartTransientUnit" => peer.refuse(request, EXISTS, "Unit was already loaded."),
            _ => peer.reply(request, None),
        },
        "-web.scope already exists",
    );
    assert_eq!(calls, ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

/// An old systemd lacks a property: the file has the limit all the same. What the container needs to
/// be one, and what an annotation asks for, is not left out.
#[test]
fn systemd_too_old_for_a_limit_gets_it_left_out() {
    require!(root);
    let (bundle, unit) = bundle();
    let name = unit.clone();
    let bus = FakeBus::new(&bundle, move |peer, request| {
        if request.member == "StartTransientUnit" && request.has("CPUAccounting") {
            let text = "Cannot set property CPUAccounting, or unknown property.";
            return peer.refuse(request, READ_ONLY, text);
        }
        systemd(name.clone())(peer, request);
    });
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().ok();
    assert_eq!(bus.calls(), ["StartTransientUnit", "StartTransientUnit"]);
    call(&web, "delete", &["--force"], &bus).run().ok();
    let unknown = |property: &'static str| {
        move |peer: &Peer, request: &Request| {
            let text = format!("Cannot set property {property}, or unknown property.");
            peer.refuse(request, READ_ONLY, &text);
        }
    };
    create_fails(unknown("Delegate"), "Cannot set property Delegate");
    create_fails(unknown("PIDs"), "Cannot set property PIDs");
}

/// Before systemd 252 a weight has to be 1 or more.
#[test]
fn systemd_too_old_for_an_idle_cgroup_gets_its_weight_left_out() {
    require!(root, controller("cpu"));
    let (bundle, unit) = bundle();
    bundle.edit(|config| config.set("/linux/resources/cpu/idle", 1));
    let name = unit.clone();
    let bus = FakeBus::new(&bundle, move |peer, request| {
        if request.member == "StartTransientUnit" && request.has("CPUWeight") {
            let text = "Value specified in CPUWeight is out of range";
            return peer.refuse(request, "org.freedesktop.DBus.Error.InvalidArgs", text);
        }
        systemd(name.clone())(peer, request);
    });
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().ok();
    assert_eq!(bus.calls(), ["StartTransientUnit", "StartTransientUnit"]);
    call(&web, "delete", &["--force"], &bus).run().ok();
}

#[test]
fn systemd_refusal_of_an_annotation_names_the_annotation() {
    require!(root);
    let (bundle, _) = bundle();
    let at = "/annotations/org.systemd.property.CollectMode";
    bundle.edit(|config| config.set(at, "'whatever'"));
    let bus = FakeBus::new(&bundle, |peer, request| {
        peer.refuse(request, READ_ONLY, "Cannot set property CollectMode, or unknown property.");
    });
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().fails_with(at);
    bundle.assert_clean();
}

/// delete says what it could not take away, and can be tried again.
#[test]
fn systemd_delete_with_a_silent_bus_fails_and_succeeds_later() {
    require!(root);
    let (bundle, unit) = bundle();
    let bus = FakeBus::new(&bundle, systemd(unit.clone()));
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().ok();
    let silent = FakeBus::new(&bundle, |_, _| {});
    let output = call(&web, "delete", &["--force"], &silent).run();
    output.fails_with(&format!("left systemd unit {unit}: the bus at"));
    assert_eq!(web.status(), "stopped");
    assert!(host::processes_of(bundle.name()).is_empty());
    call(&web, "delete", &[], &bus).run().ok();
    bundle.assert_clean();
}

/// systemd is gone, and its units with it.
#[test]
fn systemd_delete_without_a_bus_succeeds() {
    require!(root);
    let (bundle, unit) = bundle();
    let bus = FakeBus::new(&bundle, systemd(unit));
    let web = bundle.container("web");
    call(&web, "create", &[], &bus).run().ok();
    std::fs::remove_file(bus.path()).unwrap();
    call(&web, "delete", &["--force"], &bus).run().ok();
    bundle.assert_clean();
}

/// Killed while it waits for systemd, which has done its part or has not.
#[test]
fn systemd_create_killed_in_its_wait_is_cleaned_up_by_delete() {
    require!(root);
    for done in [false, true] {
        let (bundle, unit) = bundle();
        let asked = std::sync::Arc::new(AtomicU32::new(0));
        let (pid, name) = (asked.clone(), unit.clone());
        let bus = FakeBus::new(&bundle, move |_, request| {
            if done {
                make_scope(&name, request.pid());
            }
            pid.store(request.pid() as u32, Ordering::SeqCst);
        });
        let web = bundle.container("web");
        let creating = call(&web, "create", &[], &bus).spawn();
        let child = eventually("systemd is asked", || {
            Some(asked.load(Ordering::SeqCst)).filter(|pid| *pid != 0)
        });
        creating.signal(libc::SIGKILL);
        drop(creating);
        let child = crate::support::Process(child as i32);
        eventually("the child dies with its parent", || (!child.is_alive()).then_some(()));
        if done {
            // As systemd does with a scope that has lost its last process.
            remove_scope(&unit);
        }
        let gone = FakeBus::new(&bundle, |_, _| panic!("nobody may ask for this unit"));
        call(&web, "delete", &["--force"], &gone).run().ok();
        bundle.assert_clean();
    }
}
