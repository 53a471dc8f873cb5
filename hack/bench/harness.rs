//! Calling a contestant and measuring what that cost.

use super::bundles::Bundles;
use super::{guard, guard::Place, sys, trace};
use anyhow::{Context, Result, bail};
use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// Milliseconds of waiting, and of user and system time of the program and all it reaped.
#[derive(Clone, Copy)]
pub struct Cost {
    pub wall: f64,
    pub cpu: f64,
}

/// A runtime under measurement.
pub struct Contestant {
    pub name: String,
    pub path: PathBuf,
    pub root: PathBuf,
}

/// A container that exists.
pub struct Container {
    pub id: String,
    pub pid: i32,
}

pub struct Harness<'a> {
    pub place: &'a Place,
    pub bundles: Bundles,
    env: Vec<String>,
    null: File,
    sequence: Cell<u64>,
}

pub fn cpu(usage: &libc::rusage) -> f64 {
    let ms = |t: libc::timeval| t.tv_sec as f64 * 1e3 + t.tv_usec as f64 / 1e3;
    ms(usage.ru_utime) + ms(usage.ru_stime)
}

impl<'a> Harness<'a> {
    pub fn new(place: &'a Place, bundles: Bundles) -> Result<Self> {
        let env = vec![
            format!("PATH={}", std::env::var("PATH").unwrap_or_default()),
            "HOME=/root".to_string(),
            format!("XDG_RUNTIME_DIR={}", place.dir.join("run").display()),
        ];
        for dir in ["run", "roots", "io"] {
            fs::create_dir_all(place.dir.join(dir))?;
        }
        // State roots are below /run, a tmpfs; on a disk's filesystem its journal would be measured.
        let roots = place.dir.join("roots");
        nix::mount::mount(
            Some("tmpfs"),
            &roots,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .context("tmpfs for the state roots")?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        Ok(Harness { place, bundles, env, null, sequence: Cell::new(0) })
    }

    /// `name=path`.
    pub fn contestant(&self, spec: &str) -> Result<Contestant> {
        let Some((name, path)) = spec.split_once('=') else { bail!("{spec}: not name=path") };
        let path = fs::canonicalize(path).with_context(|| path.to_string())?;
        let root = self.place.dir.join("roots").join(name);
        fs::create_dir_all(&root)?;
        Ok(Contestant { name: name.to_string(), path, root })
    }

    pub fn new_id(&self, who: &Contestant) -> String {
        self.sequence.set(self.sequence.get() + 1);
        format!("{}-{}", who.name, self.sequence.get())
    }

    pub fn io(&self, name: &str) -> PathBuf {
        self.place.dir.join("io").join(name)
    }

    fn argv(&self, who: &Contestant, words: &[&str]) -> Vec<String> {
        let mut argv =
            vec![who.path.display().to_string(), "--root".into(), who.root.display().to_string()];
        argv.extend(self.place.options());
        argv.extend(words.iter().map(|w| (*w).to_string()));
        argv
    }

    /// Runs a command that must return 0; its output goes to `out`, or nowhere.
    fn timed(&self, who: &Contestant, words: &[&str], out: &File) -> Result<Cost> {
        let argv = self.argv(who, words);
        let err = File::create(self.io("err"))?;
        let program = sys::Program {
            argv: &argv,
            env: &self.env,
            stdin: &self.null,
            stdout: out,
            stderr: &err,
        };
        let begin = Instant::now();
        let (pid, _) = program.start(false)?;
        let (code, usage) = sys::wait_child(pid, LIMIT, false)
            .with_context(|| format!("{} {}", who.name, words[0]))?;
        let wall = begin.elapsed().as_secs_f64() * 1e3;
        if code != 0 {
            let said = fs::read_to_string(self.io("err")).unwrap_or_default();
            bail!("{} {}: status {code}: {}", who.name, words[0], said.trim());
        }
        Ok(Cost { wall, cpu: cpu(&usage) })
    }

    pub fn call(&self, who: &Contestant, words: &[&str]) -> Result<Cost> {
        self.timed(who, words, &self.null)
    }

    /// The same, with what it printed.
    pub fn ask(&self, who: &Contestant, words: &[&str]) -> Result<(Cost, String)> {
        let cost = self.timed(who, words, &File::create(self.io("out"))?)?;
        Ok((cost, fs::read_to_string(self.io("out"))?))
    }

    pub fn create(&self, who: &Contestant, docker: bool, ends: bool) -> Result<(Container, Cost)> {
        let id = self.new_id(who);
        let bundle = self.bundles.write(&who.name, docker, ends, &id)?;
        let pid_file = self.io("pid").display().to_string();
        let cost =
            self.call(who, &["create", "--bundle", &bundle, "--pid-file", &pid_file, &id])?;
        Ok((Container { id, pid: self.pid()? }, cost))
    }

    /// One whose init makes 999 children.
    pub fn create_crowd(&self, who: &Contestant) -> Result<(Container, Cost)> {
        let id = self.new_id(who);
        let bundle = self.bundles.write_crowd(&who.name, &id)?;
        let pid_file = self.io("pid").display().to_string();
        let cost =
            self.call(who, &["create", "--bundle", &bundle, "--pid-file", &pid_file, &id])?;
        Ok((Container { id, pid: self.pid()? }, cost))
    }

    /// Waits until a process has so many children.
    pub fn has_children(&self, pid: i32, count: usize) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            if list.split_whitespace().count() >= count {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("{pid} has not made {count} children")
    }

    pub fn pid(&self) -> Result<i32> {
        Ok(fs::read_to_string(self.io("pid"))?.trim().parse()?)
    }

    pub fn started(&self, who: &Contestant, docker: bool) -> Result<Container> {
        let (container, _) = self.create(who, docker, false)?;
        self.call(who, &["start", &container.id])?;
        Ok(container)
    }

    /// Waits until the init, which is our child now, has ended; its own CPU time.
    pub fn ended(&self, pid: i32) -> Result<f64> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(usage) = sys::reap_one(pid) {
                return Ok(cpu(&usage));
            }
            if !Path::new(&format!("/proc/{pid}")).exists() {
                return Ok(0.0);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        bail!("the init {pid} lives on")
    }

    /// Ends a container, however far it got.
    pub fn force(&self, who: &Contestant, container: &Container) -> Result<()> {
        let done = self.call(who, &["delete", "--force", &container.id]);
        guard::reap();
        done.map(drop)
    }

    /// A traced run for the counts.
    pub fn traced(
        &self,
        who: &Contestant,
        words: &[&str],
        attach: Option<i32>,
    ) -> Result<trace::Outcome> {
        let argv = self.argv(who, words);
        let err = File::create(self.io("err"))?;
        let program = sys::Program {
            argv: &argv,
            env: &self.env,
            stdin: &self.null,
            stdout: &self.null,
            stderr: &err,
        };
        let payload = trace::identity(&self.bundles.pause)?;
        let job =
            trace::Job { program, attach, payload, at: 0, act: trace::Act::Count, limit: LIMIT };
        let outcome = trace::run(&job)?;
        if outcome.code != 0 || outcome.hung {
            let said = fs::read_to_string(self.io("err")).unwrap_or_default();
            bail!("{} {} traced: status {}: {}", who.name, words[0], outcome.code, said.trim());
        }
        Ok(outcome)
    }
}
