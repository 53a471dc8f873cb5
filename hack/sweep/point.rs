//! One point of the sweep: disturb one call of one run, then look at everything.

use super::compare;
use super::host::{Host, Left};
use super::runtime::Runtime;
use super::trace::{Act, Hit, Outcome};
use super::verbs::{Check, Verb};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How the undisturbed container and command look.
pub struct Reference {
    pub counted: u64,
    /// Lines that differ between undisturbed runs, and so are not compared.
    pub noise: BTreeSet<String>,
    container: Vec<String>,
    output: Vec<String>,
}

/// What one disturbed run led to.
#[derive(Default)]
pub struct Verdict {
    pub hit: Option<Hit>,
    pub hung: bool,
    pub failed: bool,
    /// The command returned 0.
    pub ok: bool,
    pub after: Left,
    pub after_delete: Left,
    pub silent: bool,
    /// Returned 0, but there is no working container, or the command did not do its work.
    pub dead: Option<String>,
    /// Returned 0, the init died later and both `state` and `start` say so.
    pub late: bool,
    pub weaker: Vec<String>,
    pub delete: Option<String>,
    pub recreate: Option<String>,
    pub message: String,
}

impl Verdict {
    /// After a kill it is `delete` that has to clean; after an error the command itself.
    pub fn is_bad(&self, act: Act) -> bool {
        let left = matches!(act, Act::Fail(_)) && self.failed && !self.after.is_empty();
        left || self.hung
            || self.silent
            || self.dead.is_some()
            || self.delete.is_some()
            || self.recreate.is_some()
            || !self.weaker.is_empty()
            || !self.after_delete.is_empty()
    }
}

pub struct Sweeper<'a> {
    pub runtime: &'a Runtime<'a>,
    pub host: &'a Host<'a>,
    pub verb: Verb,
}

impl Sweeper<'_> {
    /// Runs the verb undisturbed: twice for what differs anyway, and traced for the count.
    pub fn reference(&self) -> Result<Reference> {
        let (a, out_a) = self.undisturbed("ref-a")?;
        let (b, out_b) = self.undisturbed("ref-b")?;
        let mut noise = compare::noise(&a, &b);
        noise.extend(compare::noise(&out_a, &out_b));
        let mut counted = 0;
        for id in ["ref-c", "ref-d"] {
            self.runtime.prepare(id, self.verb.before)?;
            let (outcome, stderr) = self.runtime.traced(&self.verb, id, 0, Act::Count)?;
            if outcome.code != 0 || outcome.hung {
                bail!(
                    "{} fails when traced: code {}: {}",
                    self.verb.name,
                    outcome.code,
                    stderr.trim()
                );
            }
            counted = outcome.counted.max(counted);
            self.wipe(id)?;
        }
        Ok(Reference { counted, container: a, output: out_a, noise })
    }

    fn undisturbed(&self, id: &str) -> Result<(Vec<String>, Vec<String>)> {
        let rt = self.runtime;
        rt.prepare(id, super::verbs::Stage::Running)?;
        let pid = rt.pid().context("no pid file")?;
        let lines = compare::fingerprint(rt.place, id, pid)?;
        let mut output = Vec::new();
        if self.verb.check == Check::Output {
            rt.say(&rt.args(&self.verb, id), super::runtime::LIMIT)?;
            output = compare::exec_lines(rt.place, id, &rt.stdout());
        }
        self.wipe(id)?;
        Ok((lines, output))
    }

    /// Ends a container of a reference run.
    fn wipe(&self, id: &str) -> Result<()> {
        self.runtime.command(&["delete", "--force", id])?;
        let left = self.host.settled(id, Duration::from_millis(500))?;
        self.host.scrub(&left, id)
    }

    /// Disturbs call `at` of one run and judges the result. `None`: the run had fewer calls.
    pub fn run(
        &self,
        reference: &Reference,
        id: &str,
        at: u64,
        act: Act,
        recreate: bool,
    ) -> Result<Option<Verdict>> {
        self.runtime.prepare(id, self.verb.before)?;
        let (outcome, stderr) = self.runtime.traced(&self.verb, id, at, act)?;
        let Some(hit) = outcome.hit.clone() else {
            self.wipe(id)?;
            return Ok(None);
        };
        let mut verdict =
            Verdict { hit: Some(hit), hung: outcome.hung, message: stderr, ..Verdict::default() };
        self.judge(&mut verdict, &outcome, reference, id, act)?;
        self.clean_up(&mut verdict, id, recreate)?;
        Ok(Some(verdict))
    }

    fn judge(
        &self,
        v: &mut Verdict,
        outcome: &Outcome,
        reference: &Reference,
        id: &str,
        act: Act,
    ) -> Result<()> {
        if outcome.hung {
            return Ok(());
        }
        v.ok = outcome.code == 0;
        if v.ok {
            return self.judge_success(v, reference, id, act);
        }
        let killed = act == Act::KillMain
            || (act == Act::KillTask && v.hit.as_ref().is_some_and(|h| h.is_main));
        v.failed = !killed;
        // `exec` passes on the status of a process that was killed; that needs no message.
        let child_killed = act == Act::KillTask && !killed;
        let passed_on = child_killed && self.verb.check == Check::Output && outcome.code > 128;
        // The C library's start has no words: it ends by a signal before there is a program.
        let before_main = v.hit.as_ref().is_some_and(|hit| hit.call == "arch_prctl");
        v.silent = v.failed && v.message.trim().is_empty() && !passed_on && !before_main;
        let patience = if killed { 30 } else { 300 };
        v.after = match self.verb.check {
            // The container existed before and may well still be there.
            Check::Startable | Check::Running
                if self.verb.before < super::verbs::Stage::Created =>
            {
                self.host.settled(id, Duration::from_millis(patience))?
            }
            Check::Output => self.extra_processes(Duration::from_millis(patience)),
            _ => Left::default(),
        };
        Ok(())
    }

    /// After `exec` nothing but the container's init may run.
    fn extra_processes(&self, patience: Duration) -> Left {
        let init = self.runtime.pid();
        let end = Instant::now() + patience;
        loop {
            super::guard::reap();
            let mut others = super::guard::descendants();
            others.retain(|(pid, _)| Some(*pid) != init);
            if others.is_empty() || Instant::now() > end {
                let processes = others.iter().map(|(pid, name)| format!("{name} {pid}")).collect();
                return Left { processes, ..Left::default() };
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn judge_success(
        &self,
        v: &mut Verdict,
        reference: &Reference,
        id: &str,
        act: Act,
    ) -> Result<()> {
        let rt = self.runtime;
        let wait = Duration::from_secs(2);
        match self.verb.check {
            Check::Startable => {
                let said = rt.command(&["start", id])?;
                if said.code == Some(0) && rt.runs_payload(wait) {
                    self.compare(v, reference, id)?;
                } else {
                    let why = said.stderr.trim();
                    self.judge_dead(v, id, &format!("start: {why}"), !why.is_empty())?;
                }
            }
            Check::Running if rt.runs_payload(wait) => self.compare(v, reference, id)?,
            Check::Running => {
                let what = format!("the payload does not run: {}", v.message.trim());
                self.judge_dead(v, id, &what, act == Act::KillTask)?;
            }
            Check::Output => {
                let now = compare::exec_lines(rt.place, id, &rt.stdout());
                v.weaker = compare::diff(&reference.output, &now, &reference.noise);
            }
            Check::Ended if !rt.ended(wait) => {
                v.dead = Some("returned 0, but the init lives on".into())
            }
            Check::Alive if rt.ended(Duration::ZERO) => v.dead = Some("the init has ended".into()),
            Check::Gone => {
                let left = self.host.settled(id, Duration::from_millis(300))?;
                if !left.is_empty() {
                    v.dead = Some(format!("returned 0 and left {left}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn compare(&self, v: &mut Verdict, reference: &Reference, id: &str) -> Result<()> {
        let pid = self.runtime.pid().context("no pid file")?;
        match compare::fingerprint(self.runtime.place, id, pid) {
            Ok(now) => v.weaker = compare::diff(&reference.container, &now, &reference.noise),
            Err(e) => v.dead = Some(format!("ended while being looked at: {e:#}")),
        }
        Ok(())
    }

    /// Not a lie although there is no container: an init that fails while it waits can no longer make
    /// `create` fail, and one that is killed before its execve looks like a payload that ended at
    /// once. That is honest as long as `state` says stopped (and a later `start` gives a reason).
    fn judge_dead(&self, v: &mut Verdict, id: &str, what: &str, honest: bool) -> Result<()> {
        self.runtime.command(&["state", id])?;
        let state: serde_json::Value =
            serde_json::from_str(&self.runtime.stdout()).unwrap_or_default();
        let by_child = v.hit.as_ref().is_some_and(|h| !h.is_main);
        if honest && by_child && state["status"] == "stopped" {
            v.late = true;
        } else {
            v.dead = Some(format!("{what}; state says {}", state["status"]));
        }
        Ok(())
    }

    fn clean_up(&self, v: &mut Verdict, id: &str, recreate: bool) -> Result<()> {
        self.force_delete(v, id)?;
        if recreate && !v.hung {
            let said = self.runtime.create_again(id)?;
            if said.code != Some(0) {
                v.recreate = Some(said.stderr.trim().to_string());
            }
            self.runtime.command(&["delete", "--force", id])?;
        }
        // Everything a run has left by now goes, whatever the runtime did.
        let rest = self.host.settled(id, Duration::from_millis(100))?;
        self.host.scrub(&rest, id)
    }

    fn force_delete(&self, v: &mut Verdict, id: &str) -> Result<()> {
        let said = self.runtime.command(&["delete", "--force", id])?;
        match said.code {
            Some(0) => {}
            None => v.delete = Some("delete --force hangs".into()),
            Some(code) => {
                v.delete = Some(format!("delete --force returned {code}: {}", said.stderr.trim()))
            }
        }
        v.after_delete = self.host.settled(id, Duration::from_millis(300))?;
        // The pid file of a container that was created is its caller's.
        v.after_delete.files.retain(|f| f != "io/pid");
        Ok(())
    }
}
