//! The same configurations under onggi and under the machine's runc and crun: a probe inside tells what
//! there is, and every difference must be explained in conformance/differences.toml. Device rules are left
//! out: crun cannot load them without the right to raise RLIMIT_MEMLOCK.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::conformance::tables;
use crate::support::need::Need;
use crate::support::{Bundle, Config, host};

mod configs;

/// What the container's process prints: a line per fact, `SECTION FACT`. The shell reads the files
/// itself, so that they speak of the process that the runtime has started.
const PROBE: &str = r#"
show() { while IFS= read -r line; do echo "$1 $line"; done < "$2"; } 2>/dev/null
show status /proc/self/status; show limits /proc/self/limits; show mountinfo /proc/self/mountinfo
show cgroup /proc/self/cgroup; show oom /proc/self/oom_score_adj; show personality /proc/self/personality
show uid_map /proc/self/uid_map; show setgroups /proc/self/setgroups; show coredump /proc/self/coredump_filter
for n in /proc/self/attr/current /proc/self/attr/apparmor/current; do show attr $n; done
for n in cgroup ipc mnt net pid time user uts; do echo "ns $n $(readlink /proc/$$/ns/$n)"; done
tr '\0' '\n' </proc/$$/environ | while IFS= read -r line; do echo "env $line"; done
tr '\0' '\n' </proc/$$/cmdline | while IFS= read -r line; do echo "args $line"; break; done
for n in /proc/$$/fd/*; do n=${n##*/}; [ $n -gt 9 ] || echo "fds $n $(readlink /proc/$$/fd/$n)"; done
echo "cwd $(readlink /proc/$$/cwd)"; echo "root $(ls -di / >/dev/null && readlink /proc/$$/root)"
echo "names $(hostname)"; show names /proc/sys/kernel/domainname
show sysctl /proc/sys/kernel/shmmax; show sysctl /proc/sys/net/ipv4/ip_forward; show sysctl /proc/sys/fs/mqueue/msg_max
ls -ln /dev | tail -n +2 | while read mode links uid gid rest; do
    set -- $rest; case $mode in c*|b*) echo "dev $mode $uid $gid $1$2 ${6:-}";; l*) echo "dev l ${5:-} ${6:-} ${7:-}";;
    *) echo "dev $mode $uid $gid ${5:-}";; esac; done
for n in /proc/kcore /proc/keys /proc/timer_list /sys/firmware /proc/scsi /proc/acpi /mnt/mask /mnt/ro; do
    if [ -d $n ]; then echo "paths $n $(ls -A $n 2>&1 | wc -l)"; else echo "paths $n $(head -c 4 $n 2>&1 | wc -c)"; fi; done
for n in / /proc/sys/kernel/hostname /sys/kernel /dev /dev/shm /mnt /mnt/ro /tmp; do
    [ -w $n ] && echo "writable $n"; done
for n in /proc /sys /dev /dev/pts /dev/shm /mnt /tmp; do echo "stat $n $(stat -c '%a %u %g' $n 2>&1)"; done
ip -o link 2>/dev/null | while read -r n name flags rest; do echo "link $name $flags"; done
for n in memory.limit_in_bytes memory.max pids.max cpu.shares cpu.weight cpu.cfs_quota_us cpu.max cpuset.cpus; do
    for c in /sys/fs/cgroup /sys/fs/cgroup/memory /sys/fs/cgroup/pids /sys/fs/cgroup/cpu /sys/fs/cgroup/cpuset; do
        show "limit $n" $c/$n; done; done
ps -o pid,comm 2>/dev/null | wc -l | while read -r n; do [ $n -gt 9 ] && echo "pids many" || echo "pids few"; done
echo "umask $(umask)"; echo "end"
"#;

/// The fields of /proc/PID/status that a runtime decides about.
const STATUS: [&str; 18] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "NStgid",
    "NSpid",
    "Threads",
    "SigBlk",
    "SigIgn",
    "ShdPnd",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
];

/// A runtime and its version, as differences.toml names them.
struct Peer {
    name: &'static str,
    path: PathBuf,
}

/// The peers that the list of differences was made with.
fn peers() -> Vec<Peer> {
    let mut found = Vec::new();
    for name in ["runc", "crun"] {
        let place = "integration::differential";
        let Some(path) = host::find_program(name) else {
            Need { fact: format!("the program {name}"), met: false }.skip(place);
            continue;
        };
        let (_, version) = host::tool(&[path.to_str().unwrap(), "--version"]);
        let known = tables("differences.toml").into_iter().any(|row| {
            let cgroups = if host::is_v2() { "v2" } else { "v1" };
            row.get("peer") == Some(&json!(name))
                && row.get("cgroups") == Some(&json!(cgroups))
                && row.get("version").is_some_and(|made| {
                    version.lines().next().unwrap_or_default().contains(made.as_str().unwrap())
                })
        });
        if !known {
            let fact = format!("a {name} that conformance/differences.toml knows on such a host");
            Need { fact, met: false }.skip(place);
            continue;
        }
        if name == "crun" && !host::is_v2() {
            Need { fact: "cgroup v2 at /sys/fs/cgroup, for crun".into(), met: false }.skip(place);
            continue;
        }
        found.push(Peer { name, path });
    }
    found
}

/// Runs the configuration to its end and returns the facts that the probe has told.
fn facts(config: &configs::Named, runtime: Option<&Peer>) -> Vec<String> {
    let bundle = Bundle::new();
    bundle.edit(|all| {
        configs::base(all, PROBE);
        (config.patch)(all);
        all
    });
    prepare(&bundle);
    let mut call = bundle.container("web").call("run", &[]);
    if let Some(peer) = runtime {
        let state = bundle.dir().join("peer");
        let args =
            ["run", "--bundle", bundle.path().to_str().unwrap(), bundle.name()].map(str::to_string);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        call = bundle.onggi_without_root(&args).without_log().binary(&peer.path);
        call = call.global(&["--root", state.to_str().unwrap()]);
    }
    let call = call.timeout(std::time::Duration::from_secs(120));
    let output =
        call.env_only(&[("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("FROM_OUTSIDE", "1")]).run();
    let mut facts = normalized(&output.stdout, &bundle);
    if !output.stdout.ends_with("end\n") {
        facts.push(if facts.is_empty() { "outcome refused".into() } else { "outcome died".into() });
    }
    if runtime.is_some() {
        host::clean(bundle.name());
    }
    facts.sort();
    facts
}

/// What the configurations mount, mask and make read-only.
fn prepare(bundle: &Bundle) {
    let rootfs = bundle.rootfs();
    for dir in ["mnt/mask", "mnt/ro", "mnt/target", "work"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
        fs::write(rootfs.join(dir).join("file"), "content").unwrap();
    }
    let source = bundle.path().join("source");
    fs::create_dir_all(source.join("below")).unwrap();
    fs::write(source.join("file"), "from the source").unwrap();
    std::os::unix::fs::symlink("/work", rootfs.join("link")).unwrap();
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .unwrap_or_else(|_| {
        fs::create_dir_all(rootfs.join("etc")).unwrap();
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
        )
        .unwrap();
    });
}

/// Without what must differ from call to call: names, numbers of namespaces, mounts and devices.
fn normalized(text: &str, bundle: &Bundle) -> Vec<String> {
    let own = crate::support::Process::own();
    let mut facts = Vec::new();
    for line in text.lines() {
        let line =
            line.replace(bundle.dir().to_str().unwrap(), "DIR").replace(bundle.name(), "NAME");
        let (section, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let fact = match section {
            "status" => match rest.split_once(':') {
                Some((key, value)) if STATUS.contains(&key) => {
                    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                    let of_the_host = key.starts_with("NS") && value != "1";
                    format!(
                        "status {key} {}",
                        if of_the_host { "a pid of the host" } else { &value }
                    )
                }
                _ => continue,
            },
            "limits" => {
                rest.split_whitespace().collect::<Vec<_>>().join(" ").replacen("", "limits ", 1)
            }
            "ns" => {
                let (kind, id) = rest.split_once(' ').unwrap_or((rest, ""));
                format!("ns {kind} {}", if own.ns(kind) == id { "inherited" } else { "new" })
            }
            "mountinfo" => format!("mountinfo {}", mount(rest)),
            "fds" => {
                let (number, place) = rest.split_once(' ').unwrap_or((rest, ""));
                let place = match place.split_once(':') {
                    Some((kind, _)) => kind,
                    None if place.starts_with("DIR/calls/") => "the caller's",
                    None => place,
                };
                format!("fds {number} {place}")
            }
            "end" => continue,
            _ => line.clone(),
        };
        facts.push(fact);
    }
    facts
}

/// `TARGET ROOT OPTIONS PROPAGATION TYPE SOURCE SUPER-OPTIONS`
fn mount(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let dash = words.iter().position(|word| *word == "-").unwrap();
    let tags: Vec<&str> = words[6..dash].iter().map(|tag| tag.split(':').next().unwrap()).collect();
    let mut tags = tags.join(",");
    if tags.is_empty() {
        tags = "private".into();
    }
    let (root, source) = (words[3], words[dash + 2]);
    // The root file system is a directory of the host's, whatever that is.
    let root = root.find("DIR").map_or(root, |at| &root[at..]);
    format!(
        "{} {root} {} {tags} {} {source} {}",
        words[4],
        words[5],
        words[dash + 1],
        words[dash + 3..].join(" ")
    )
}

/// A `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    match last {
        None => rest.is_empty(),
        Some(part) => rest.is_empty() || part.is_empty() || text.ends_with(part),
    }
}

/// One row of differences.toml.
struct Row {
    text: BTreeMap<String, Value>,
    used: AtomicUsize,
}

impl Row {
    fn is(&self, key: &str, text: &str) -> bool {
        self.text.get(key).and_then(Value::as_str).is_none_or(|pattern| matches(pattern, text))
    }

    fn explains(&self, difference: &Difference) -> bool {
        self.text.contains_key("why")
            && self.is("peer", difference.peer)
            && self.is("config", &difference.config)
            && self.is("only", difference.only)
            && self.is("fact", &difference.fact)
    }
}

/// A fact that only one of the two has.
struct Difference {
    config: String,
    peer: &'static str,
    only: &'static str,
    fact: String,
}

fn compare(
    config: &str,
    peer: &'static str,
    ours: &[String],
    theirs: &[String],
) -> Vec<Difference> {
    let mut rest = theirs.to_vec();
    let mut found = Vec::new();
    let mut add = |only, fact: &str| {
        found.push(Difference { config: config.into(), peer, only, fact: fact.into() });
    };
    for fact in ours {
        match rest.iter().position(|other| other == fact) {
            Some(at) => drop(rest.remove(at)),
            None => add("onggi", fact),
        }
    }
    for fact in &rest {
        add("peer", fact);
    }
    found
}

/// Every difference is explained, and every explanation explains something.
#[test]
fn differential_onggi_runc_and_crun_show_the_same_inside() {
    require!(root);
    let peers = peers();
    if peers.is_empty() {
        return;
    }
    let configs = configs::all();
    assert!(configs.len() >= 100, "{}", configs.len());
    let next = AtomicUsize::new(0);
    let differences = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(config) = configs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ours = facts(config, None);
                    for peer in &peers {
                        let theirs = facts(config, Some(peer));
                        let found = compare(&config.name, peer.name, &ours, &theirs);
                        differences.lock().unwrap().extend(found);
                    }
                }
            });
        }
    });
    let rows: Vec<Row> = tables("differences.toml")
        .into_iter()
        .map(|text| Row { text, used: AtomicUsize::new(0) })
        .collect();
    let mut unexplained = Vec::new();
    let differences = differences.into_inner().unwrap();
    for difference in &differences {
        match rows.iter().find(|row| row.explains(difference)) {
            Some(row) => drop(row.used.fetch_add(1, Ordering::Relaxed)),
            None => unexplained.push(format!(
                "{} {} only-{}: {}",
                difference.peer, difference.config, difference.only, difference.fact
            )),
        }
    }
    let cgroups = if host::is_v2() { "v2" } else { "v1" };
    let present = |row: &Row| {
        peers.iter().any(|peer| row.is("peer", peer.name)) && row.is("cgroups", cgroups)
    };
    let stale: Vec<_> = rows
        .iter()
        .filter(|row| {
            row.text.contains_key("why") && present(row) && row.used.load(Ordering::Relaxed) == 0
        })
        .map(|row| format!("{:?}", row.text))
        .collect();
    println!(
        "{} configurations, {} differences, {} unexplained",
        configs.len(),
        differences.len(),
        unexplained.len()
    );
    unexplained.sort();
    assert!(
        unexplained.is_empty(),
        "not in conformance/differences.toml:\n{}",
        unexplained.join("\n")
    );
    assert!(
        stale.is_empty(),
        "conformance/differences.toml explains what does not differ:\n{}",
        stale.join("\n")
    );
}

/// The comparison sees a single fact that differs, on either side.
#[test]
fn differential_a_difference_is_seen_and_patterns_match_as_meant() {
    let facts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let found = compare("x", "runc", &facts(&["a", "b", "b"]), &facts(&["a", "b", "c"]));
    let seen: Vec<_> = found.iter().map(|one| (one.only, one.fact.as_str())).collect();
    assert_eq!(seen, [("onggi", "b"), ("peer", "c")]);
    assert!(
        matches("a*c", "abc") && matches("a*", "a") && matches("*", "") && matches("abc", "abc")
    );
    assert!(!matches("a*c", "abd") && !matches("abc", "abcd") && !matches("b*", "ab"));
}

/// Used by the configurations.
fn mounts(config: &mut Config) -> &mut Vec<Value> {
    config.0["mounts"].as_array_mut().unwrap()
}
