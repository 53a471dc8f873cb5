//! Counts the verdicts and prints them.

use super::names;
use super::point::Verdict;
use super::trace::Act;
use std::collections::BTreeMap;

/// The sums of one mode.
#[derive(Default)]
pub struct Tally {
    runs: u64,
    missed: u64,
    failed: u64,
    left: u64,
    clean: u64,
    left_after_delete: u64,
    kinds: BTreeMap<&'static str, u64>,
    delete_failed: u64,
    recreate_failed: u64,
    hung: u64,
    silent: u64,
    ok: u64,
    dead: u64,
    late: u64,
    weaker: u64,
    pub bad: u64,
}

impl Tally {
    pub fn add(&mut self, act: Act, verdict: Option<&Verdict>) {
        let Some(v) = verdict else {
            self.missed += 1;
            return;
        };
        self.runs += 1;
        let mut count = |yes: bool, sum: fn(&mut Tally) -> &mut u64| *sum(self) += u64::from(yes);
        count(v.failed, |t| &mut t.failed);
        count(!v.ok && !v.after.is_empty(), |t| &mut t.left);
        count(!v.ok && !v.hung && v.after.is_empty(), |t| &mut t.clean);
        count(!v.after_delete.is_empty(), |t| &mut t.left_after_delete);
        count(v.delete.is_some(), |t| &mut t.delete_failed);
        count(v.recreate.is_some(), |t| &mut t.recreate_failed);
        count(v.hung, |t| &mut t.hung);
        count(v.silent, |t| &mut t.silent);
        count(v.ok, |t| &mut t.ok);
        count(v.dead.is_some(), |t| &mut t.dead);
        count(v.late, |t| &mut t.late);
        count(!v.weaker.is_empty(), |t| &mut t.weaker);
        count(v.is_bad(act), |t| &mut t.bad);
        for kind in v.after_delete.kinds() {
            *self.kinds.entry(kind).or_default() += 1;
        }
    }

    pub fn passed(&self) -> u64 {
        self.runs - self.bad
    }

    fn rows(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("points hit", self.runs),
            ("points not reached", self.missed),
            ("command failed", self.failed),
            ("  left something", self.left),
            ("  clean right after", self.clean),
            ("  without a message", self.silent),
            ("command returned 0", self.ok),
            ("  dead or not done", self.dead),
            ("  weaker or different", self.weaker),
            ("  init died later, said so", self.late),
            ("hung", self.hung),
            ("delete --force failed", self.delete_failed),
            ("left after delete --force", self.left_after_delete),
            ("  state", self.kind("state")),
            ("  cgroup", self.kind("cgroup")),
            ("  mount", self.kind("mount")),
            ("  process", self.kind("process")),
            ("  file", self.kind("file")),
            ("re-create failed", self.recreate_failed),
            ("bad points", self.bad),
        ]
    }

    fn kind(&self, name: &str) -> u64 {
        self.kinds.get(name).copied().unwrap_or(0)
    }
}

/// The table, one column per mode.
pub fn table(columns: &[(String, Tally)]) {
    print!("{:28}", "");
    columns.iter().for_each(|(name, _)| print!(" {name:>10}"));
    println!();
    let rows: Vec<_> = columns.iter().map(|(_, t)| t.rows()).collect();
    for i in 0..rows.first().map_or(0, Vec::len) {
        print!("{:28}", rows[0][i].0);
        rows.iter().for_each(|r| print!(" {:>10}", r[i].1));
        println!();
    }
}

/// One line for a point, and the reasons below it.
pub fn point(mode: &str, at: u64, act: Act, v: &Verdict, verbose: bool) {
    let bad = v.is_bad(act);
    if !bad && !verbose {
        return;
    }
    let Some(hit) = &v.hit else { return };
    let what = hit.errno.map_or_else(|| "killed".to_string(), names::errno_name);
    let mark = if bad { "BAD" } else { "ok " };
    let result = if v.hung {
        "hung"
    } else if v.ok {
        "returned 0"
    } else if v.failed {
        "failed"
    } else {
        "main is dead"
    };
    println!("{mark} {mode} {at}: {} in {}, {what}: {result}", hit.call, hit.task);
    let line = |label: &str, text: String| {
        if !text.is_empty() {
            println!("      {label}: {}", text.chars().take(300).collect::<String>());
        }
    };
    if !v.ok {
        line("left", v.after.to_string());
    }
    line("left after delete --force", v.after_delete.to_string());
    line("not done", v.dead.clone().unwrap_or_default());
    line("delete", v.delete.clone().unwrap_or_default());
    line("re-create", v.recreate.clone().unwrap_or_default());
    line("silent", if v.silent { "no message on standard error".into() } else { String::new() });
    v.weaker.iter().take(6).for_each(|l| line("different", l.clone()));
    if verbose {
        line("message", v.message.trim().to_string());
    }
}
