//! events and stats: what the kernel counts, in runc's shape, as a table and for Prometheus.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, eventually, host};

const MIB: u64 = 1 << 20;

fn stats(bundle: &Bundle) -> Value {
    let web = bundle.container("web");
    let event = web.call("events", &["--stats"]).run().ok().json();
    // Not to be deleted at the end of this function.
    std::mem::forget(web);
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("web")));
    event["data"].clone()
}

/// go-runc decodes it into fixed types: unsigned 64-bit numbers, and these names.
#[test]
fn row98_events_stats_have_the_shape_of_runc() {
    require!(root);
    let bundle = Bundle::sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000");
    let web = bundle.container("web");
    web.up();
    let data = eventually("it has used CPU time", || {
        Some(stats(&bundle)).filter(|data| data["cpu"]["usage"]["total"].as_u64() > Some(1_000_000))
    });
    let object = |pointer: &str| {
        let value = data.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}: {data:#}"));
        value.as_object().unwrap_or_else(|| panic!("{pointer}: {value}")).clone()
    };
    assert!(object("/cpu/usage").contains_key("kernel"));
    assert!(object("/cpu/usage").contains_key("user"));
    object("/cpu/throttling");
    for name in ["cpu_exclusive", "sched_load_balance", "sched_relax_domain_level"] {
        assert!(data["cpuset"][name].is_i64(), "{name}: {data:#}");
    }
    for name in ["usage", "swap", "kernel", "kernelTCP"] {
        let entry = object(&format!("/memory/{name}"));
        assert!(entry["limit"].is_u64() && entry["failcnt"].is_u64(), "{name}: {entry:?}");
    }
    object("/blkio");
    object("/hugetlb");
    object("/intel_rdt");
    assert!(data["network_interfaces"].is_null() && data.get("network_interfaces").is_some());
    assert_eq!(data["pids"]["current"], json!(1));
    if let Some(psi) = data["cpu"].get("psi") {
        assert!(psi["some"]["avg10"].is_f64() && psi["some"]["total"].is_u64(), "{psi}");
    }
}

/// The numbers are those of the files.
#[test]
fn row98_events_stats_tell_what_the_files_say() {
    require!(root, controller("memory"), controller("pids"));
    let bundle = Bundle::new();
    bundle.edit(|config| {
        config.set("/linux/resources/memory", json!({ "limit": 64 * MIB }));
        config.set("/linux/resources/pids", json!({ "limit": 77 }))
    });
    let web = bundle.container("web");
    web.up();
    let data = stats(&bundle);
    let memory = &data["memory"];
    assert_eq!(memory["usage"]["limit"], json!(64 * MIB));
    assert!(memory["usage"]["usage"].as_u64() > Some(0), "{memory:#}");
    // memory.peak is there since Linux 5.19, its v1 name always.
    let peak = memory["usage"]["max"].as_u64();
    assert!(peak >= memory["usage"]["usage"].as_u64(), "{memory:#}");
    assert!(memory["raw"]["pgfault"].is_u64(), "{memory:#}");
    assert_eq!(data["pids"], json!({ "current": 1, "limit": 77 }));
}

/// An engine that is told of it shows `OOMKilled`.
#[test]
fn events_tell_when_memory_runs_out_and_end_with_the_container() {
    require!(root, controller("memory"));
    let hog = "read go < /share/go; head -c 90000000 /dev/zero | tail > /dev/null; sleep 1";
    let bundle = Bundle::sh(hog);
    let share = bundle.share("/share");
    host::tool(&["mkfifo", share.join("go").to_str().unwrap()]);
    let limit = json!({ "limit": 30 * MIB, "swap": 30 * MIB });
    bundle.edit(|config| config.set("/linux/resources/memory", limit));
    let web = bundle.container("web");
    web.up();
    let events = web.call("events", &["--interval", "50ms"]).spawn();
    eventually("the first statistics", || events.stdout_now().contains('\n').then_some(()));
    fs::write(share.join("go"), "go\n").unwrap();
    let output = events.wait().ok();
    let lines: Vec<Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == *kind).count();
    assert!(of("oom") > 0 && of("stats") > 0, "{output}");
    let oom = lines.iter().find(|line| line["type"] == "oom").unwrap();
    assert_eq!(*oom, json!({ "type": "oom", "id": "web" }));
}

#[test]
fn events_of_a_container_that_does_not_run() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.call("events", &[]).run().fails_with("container does not exist");
    web.up();
    web.call("events", &["--interval", "0s"]).run().fails_with("--interval");
    web.call("events", &["--interval", "soon"]).run().fails_with("--interval");
    web.stop();
    web.call("events", &["--stats"]).run().fails_with("container with id web is not running");
}

/// A shim that is told to end does not leave it behind.
#[test]
fn events_end_when_the_container_is_deleted() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let events = web.call("events", &["--interval", "20ms"]).spawn();
    eventually("the first statistics", || events.stdout_now().contains('\n').then_some(()));
    web.delete_force().ok();
    let output = events.wait().ok();
    assert!(output.stdout.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
}

/// Three containers, one of them stopped.
fn three(bundle: &Bundle, test: impl FnOnce()) {
    let all = ["one", "two"].map(|id| bundle.another(id, |config| config));
    for container in &all {
        container.up();
    }
    let web = bundle.container("web");
    web.up();
    web.stop();
    test();
}

#[test]
fn stats_of_all_containers_or_of_some() {
    require!(root);
    let bundle = Bundle::new();
    bundle.onggi(&["stats"]).run().fails_with("no such file or directory");
    three(&bundle, || {
        let table = bundle.onggi(&["stats"]).run().ok().stdout;
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("ID ") && lines[0].contains("MEMORY"), "{table}");
        let ids: Vec<&str> =
            lines[1..].iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(ids, ["one", "two", "web"]);
        let all = bundle.onggi(&["stats", "--format", "json"]).run().ok().json();
        let status: Vec<&str> =
            all.as_array().unwrap().iter().map(|one| one["status"].as_str().unwrap()).collect();
        assert_eq!(status, ["running", "running", "stopped"]);
        let some = bundle.onggi(&["stats", "-f", "json", "two", "one"]).run().ok().json();
        assert_eq!((&some[0]["id"], &some[1]["id"]), (&json!("two"), &json!("one")));
        assert!(some[0]["cpu_usage_seconds"].as_f64() > Some(0.0), "{some:#}");
        bundle.onggi(&["stats", "no"]).run().fails_with("no: container does not exist");
        bundle.onggi(&["stats", "--format", "xml"]).run().fails_with("invalid format option");
    });
}

/// Name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Read by the parser that defines the format, and compared with the files.
#[test]
fn stats_openmetrics_is_read_by_a_real_parser() {
    require!(root, python_module("prometheus_client.openmetrics.parser"));
    let bundle = Bundle::new();
    three(&bundle, || {
        let text = bundle.onggi(&["stats", "--format", "openmetrics"]).run().ok().stdout;
        let file = bundle.dir().join("metrics");
        fs::write(&file, &text).unwrap();
        let script = "import sys, json
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
print(json.dumps([[s.name, s.labels, s.value]
    for f in parse(open(sys.argv[1]).read()) for s in f.samples]))";
        let (status, out) = host::tool(&["python3", "-c", script, file.to_str().unwrap()]);
        assert!(status.success(), "{out}\n{text}");
        let samples: Vec<Sample> = serde_json::from_str(&out).unwrap();
        let of = |name: &str, id: &str| {
            samples.iter().find(|one| one.0 == name && one.1["id"] == id).map(|one| one.2)
        };
        let cpu = "onggi_container_cpu_usage_seconds_total";
        assert!(of(cpu, "one") > Some(0.0) && of(cpu, "two") > Some(0.0), "{out}");
        let status = samples.iter().find(|one| one.1["id"] == "web").unwrap();
        assert_eq!(status.1["status"], "stopped");
        if !host::is_v2() {
            let file = bundle.cgroup("memory").with_file_name(format!("{}-one", bundle.name()));
            let peak = fs::read_to_string(file.join("memory.max_usage_in_bytes")).unwrap();
            let told = of("onggi_container_memory_peak_bytes", "one");
            assert_eq!(told, peak.trim().parse().ok());
        }
    });
}

/// `--watch` prints again when a container comes.
#[test]
fn stats_watch_goes_on() {
    require!(root);
    let bundle = Bundle::new();
    let one = bundle.another("one", |config| config);
    one.up();
    let watch = bundle.onggi(&["stats", "--watch", "--interval", "1h"]).spawn();
    eventually("the first table", || watch.stdout_now().contains("one ").then_some(()));
    let two = bundle.another("two", |config| config);
    two.up();
    eventually("the second table", || watch.stdout_now().contains("two ").then_some(()));
    watch.signal(libc::SIGTERM);
    eventually("its end", || watch.has_ended().then_some(()));
}
