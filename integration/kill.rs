//! kill: which signal goes to whom.

use std::fs;

use crate::support::{Bundle, Container, Process, eventually, host};

/// A container in the host's pid namespace whose init is stopped: what is sent to it stays
/// pending and can be seen. (pid 1 of a namespace would not even get most signals.)
fn stopped_init(bundle: &Bundle) -> (Container<'_>, Process) {
    bundle.edit(|config| config.share_namespace("pid"));
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    eventually("init runs sleep", || (init.cmdline() == ["sleep", "1000"]).then_some(()));
    init.kill(libc::SIGSTOP).unwrap();
    eventually("init is stopped", || (init.stat(3).as_deref() == Some("T")).then_some(()));
    (web, init)
}

/// The pending signals, as a mask.
fn pending(process: Process) -> u64 {
    u64::from_str_radix(&process.status("ShdPnd"), 16).unwrap()
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// containerd, podman and CRI-O send decimals, the real-time ones too.
#[test]
fn row75_kill_by_number() {
    require!(root);
    let bundle = Bundle::new();
    let (web, init) = stopped_init(&bundle);
    // Left out: those that are ignored by default, that stop or continue, KILL, and libc's own.
    let left_out = [9, 17, 18, 19, 20, 21, 22, 23, 28, 32, 33];
    let mut sent = 0;
    for signal in (1..=64).filter(|signal| !left_out.contains(signal)) {
        web.kill(&signal.to_string()).ok();
        sent |= bit(signal);
        assert_eq!(pending(init), sent, "after signal {signal}");
    }
}

/// With and without SIG, in any case.
#[test]
fn row75_kill_by_name() {
    require!(root);
    let bundle = Bundle::new();
    let (web, init) = stopped_init(&bundle);
    let names = [
        ("HUP", 1),
        ("SIGINT", 2),
        ("quit", 3),
        ("sigusr1", 10),
        ("Usr2", 12),
        ("SigTerm", 15),
        ("SIGXCPU", 24),
        ("pwr", 30),
    ];
    for (name, number) in names {
        assert_eq!(pending(init) & bit(number), 0, "{name}");
        web.kill(name).ok();
        assert_ne!(pending(init) & bit(number), 0, "{name}");
    }
}

/// Without a signal it is TERM.
#[test]
fn row75_kill_default_is_term() {
    require!(root);
    let bundle = Bundle::new();
    let (web, init) = stopped_init(&bundle);
    web.call("kill", &[]).run().ok();
    assert_eq!(pending(init), bit(libc::SIGTERM));
}

/// A word that is no signal reaches nobody.
#[test]
fn row75_kill_with_an_unknown_signal() {
    require!(root);
    let bundle = Bundle::new();
    let (web, init) = stopped_init(&bundle);
    for word in ["NOSUCH", "SIGNOSUCH", "65", "1x", "", "0x9"] {
        web.kill(word).fails_with(&format!("unknown signal \"{word}\""));
    }
    assert_eq!(pending(init), 0);
}

/// kill(2): whether there is somebody.
#[test]
fn row75_kill_with_signal_0_asks_only() {
    require!(root);
    let bundle = Bundle::new();
    let (web, init) = stopped_init(&bundle);
    web.kill("0").ok();
    web.call("kill", &["--all"]).arg("0").run().ok();
    assert_eq!(pending(init), 0);
    web.stop();
    web.kill("0").fails_with("container not running");
}

/// containerd: "already finished"; CRI-O's stop loop ends there.
#[test]
fn row76_kill_of_a_stopped_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    let text = "container not running";
    let output = web.kill("TERM").fails_with(text);
    assert!(output.errors()[0].contains(text), "no {text:?} in the log of {output}");
}

/// The other text that means the same to containerd.
#[test]
fn row76_kill_of_an_unknown_id() {
    require!(root);
    let bundle = Bundle::new();
    bundle.onggi(&["kill", "nobody", "9"]).run().fails_with("does not exist");
}

/// containerd calls it after init has ended and takes an error for a failure.
#[test]
fn row77_kill_all_of_a_stopped_container_is_0() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    web.call("kill", &["--all"]).arg("9").run().ok();
    web.call("kill", &["-a"]).arg("KILL").run().ok();
}

/// Every process gets the signal, not only init.
#[test]
fn row77_kill_all_signals_every_process() {
    require!(root);
    let child = "(trap 'echo x >> /out/got; exit' TERM; echo x >> /out/ready;
        while :; do sleep 0.02; done) &";
    let bundle = Bundle::sh(&format!("trap '' USR1; {child} {child} {child} wait; sleep 1000"));
    let out = bundle.share("/out");
    let lines = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_default().lines().count();
    let web = bundle.container("web");
    web.up();
    eventually("all are ready", || (lines("ready") == 3).then_some(()));
    web.call("kill", &["--all"]).arg("TERM").run().ok();
    eventually("all have got it", || (lines("got") == 3).then_some(()));
}

/// podman --pid=host: all must die, also what has left the session of init.
#[test]
fn row77_kill_all_without_a_pid_namespace_kills_all() {
    require!(root);
    let bundle = shared_pid_bundle();
    let web = bundle.container("web");
    let processes = start_family(&bundle, &web);
    web.call("kill", &["--all"]).arg("9").run().ok();
    eventually("all are dead", || (!processes.iter().any(Process::is_alive)).then_some(()));
}

/// Without a pid namespace the kernel does not take the others away with init.
#[test]
fn row78_sigkill_without_a_pid_namespace_kills_the_whole_cgroup() {
    require!(root);
    let bundle = shared_pid_bundle();
    let web = bundle.container("web");
    let processes = start_family(&bundle, &web);
    web.kill("KILL").ok();
    eventually("all are dead", || (!processes.iter().any(Process::is_alive)).then_some(()));
    web.becomes("stopped");
}

/// Any other signal goes to init alone.
#[test]
fn row78_sigterm_without_a_pid_namespace_goes_to_init_only() {
    require!(root);
    let bundle = shared_pid_bundle();
    let web = bundle.container("web");
    let processes = start_family(&bundle, &web);
    let init = web.init();
    web.kill("TERM").ok();
    eventually("init is dead", || (!init.is_alive()).then_some(()));
    let others = processes.iter().filter(|process| **process != init);
    assert!(others.clone().all(Process::is_alive), "{others:?}");
    web.delete_force().ok();
}

/// docker kill between create and start.
#[test]
fn row79_kill_works_on_a_created_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    web.kill("KILL").ok();
    web.becomes("stopped");
    web.delete().ok();
    bundle.assert_clean();
}

fn shared_pid_bundle() -> Bundle {
    let script = "setsid sleep 1001 & setsid sleep 1002 & sleep 1003 & exec sleep 1004";
    Bundle::with(|config| config.sh(script).share_namespace("pid"))
}

/// Starts it and returns its four processes.
fn start_family(bundle: &Bundle, web: &Container) -> Vec<Process> {
    web.up();
    eventually("four processes sleep", || {
        let pids = host::cgroup_procs(&bundle.cgroup("memory")).into_iter();
        let processes: Vec<Process> = pids.map(Process).collect();
        let sleeps = |process: &Process| process.cmdline().first().is_some_and(|n| n == "sleep");
        (processes.len() == 4 && processes.iter().all(sleeps)).then_some(processes)
    })
}
