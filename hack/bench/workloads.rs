//! What is measured: each workload is set up once per contestant and then run in turns.

use super::guard;
use super::harness::{Container, Contestant, Cost, Harness};
use anyhow::{Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What a set-up made.
#[derive(Default)]
pub struct Scene {
    container: Option<Container>,
    directories: Vec<PathBuf>,
    more: Vec<Container>,
}

type Rows = Vec<(&'static str, Cost)>;

pub struct Workload {
    pub name: &'static str,
    /// Rounds are divided by this.
    pub slow: usize,
    pub set_up: fn(&Harness, &Contestant, usize) -> Result<Scene>,
    pub once: fn(&Harness, &Contestant, &Scene) -> Result<Rows>,
    pub tear_down: fn(&Harness, &Contestant, &Scene) -> Result<()>,
}

/// Everything, in the order of the table.
#[rustfmt::skip]
pub const ALL: &[Workload] = &[
    Workload { name: "run", slow: 1, set_up: nothing, once: run_docker, tear_down: force },
    Workload { name: "run-minimal", slow: 1, set_up: nothing, once: run_minimal, tear_down: force },
    Workload { name: "life", slow: 1, set_up: nothing, once: life, tear_down: force },
    Workload { name: "exec", slow: 1, set_up: running, once: exec, tear_down: force },
    Workload { name: "delete-force", slow: 10, set_up: nothing, once: delete_crowd, tear_down: force },
    Workload { name: "stats", slow: 3, set_up: many_containers, once: stats, tear_down: remove_containers },
    Workload { name: "crowd-states", slow: 3, set_up: many_states, once: list_and_state, tear_down: remove_states },
    Workload { name: "crowd-mounts", slow: 3, set_up: many_mounts, once: run_in_mounts, tear_down: remove_mounts },
    Workload { name: "crowd-cgroups", slow: 3, set_up: many_cgroups, once: run_in_cgroups, tear_down: remove_cgroups },
];

fn nothing(_: &Harness, _: &Contestant, _: usize) -> Result<Scene> {
    Ok(Scene::default())
}

fn force(h: &Harness, who: &Contestant, scene: &Scene) -> Result<()> {
    scene.container.as_ref().map_or(Ok(()), |c| h.force(who, c))
}

fn run(h: &Harness, who: &Contestant, docker: bool) -> Result<Cost> {
    let id = h.new_id(who);
    let bundle = h.bundles.write(&who.name, docker, true, &id)?;
    h.call(who, &["run", "--bundle", &bundle, &id])
}

fn run_docker(h: &Harness, who: &Contestant, _: &Scene) -> Result<Rows> {
    Ok(vec![("run, docker-like", run(h, who, true)?)])
}

fn run_minimal(h: &Harness, who: &Contestant, _: &Scene) -> Result<Rows> {
    Ok(vec![("run, minimal", run(h, who, false)?)])
}

/// One container through all its commands; the sum has the init's own time in it too.
fn life(h: &Harness, who: &Contestant, _: &Scene) -> Result<Rows> {
    let (container, create) = h.create(who, true, false)?;
    let rest = || -> Result<Rows> {
        let id = &container.id;
        let start = h.call(who, &["start", id])?;
        let state = h.call(who, &["state", id])?;
        let kill = h.call(who, &["kill", id, "KILL"])?;
        let init = h.ended(container.pid)?;
        let delete = h.call(who, &["delete", id])?;
        let verbs = [create, start, state, kill, delete];
        let sum = verbs.iter().fold(Cost { wall: 0.0, cpu: init }, |s, c| Cost {
            wall: s.wall + c.wall,
            cpu: s.cpu + c.cpu,
        });
        Ok(vec![
            ("create", create),
            ("start", start),
            ("state", state),
            ("kill", kill),
            ("delete", delete),
            ("all five + init", sum),
        ])
    };
    let rows = rest();
    if rows.is_err() {
        h.force(who, &container)?;
    }
    rows
}

fn running(h: &Harness, who: &Contestant, _: usize) -> Result<Scene> {
    Ok(Scene { container: Some(h.started(who, true)?), ..Scene::default() })
}

fn exec(h: &Harness, who: &Contestant, scene: &Scene) -> Result<Rows> {
    let Some(container) = &scene.container else { bail!("no container") };
    let process = h.bundles.exec_process()?;
    Ok(vec![("exec", h.call(who, &["exec", "--process", &process, &container.id])?)])
}

/// A container of 1000 processes is ended.
fn delete_crowd(h: &Harness, who: &Contestant, _: &Scene) -> Result<Rows> {
    let (container, _) = h.create_crowd(who)?;
    let ready =
        h.call(who, &["start", &container.id]).and_then(|_| h.has_children(container.pid, 999));
    if let Err(error) = ready {
        h.force(who, &container)?;
        return Err(error);
    }
    let cost = h.call(who, &["delete", "--force", &container.id])?;
    guard::reap();
    Ok(vec![("delete -f of 1000", cost)])
}

/// 500 containers, for those who have a command for all of them.
fn many_containers(h: &Harness, who: &Contestant, _: usize) -> Result<Scene> {
    let mut scene = Scene::default();
    if h.call(who, &["stats", "--format", "json"]).is_err() {
        return Ok(scene);
    }
    for _ in 0..500 {
        match h.create(who, false, false) {
            Ok((container, _)) => scene.more.push(container),
            Err(error) => {
                remove_containers(h, who, &scene)?;
                return Err(error);
            }
        }
    }
    Ok(scene)
}

fn stats(h: &Harness, who: &Contestant, scene: &Scene) -> Result<Rows> {
    if scene.more.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![("stats of 500", h.call(who, &["stats", "--format", "json"])?)])
}

fn remove_containers(h: &Harness, who: &Contestant, scene: &Scene) -> Result<()> {
    scene.more.iter().try_for_each(|container| h.force(who, container))
}

/// One real container and copies of its state directory under other names: as many known
/// containers without their memory. Works where the state is ROOT/ID and `list` shows the copies.
fn many_states(h: &Harness, who: &Contestant, n: usize) -> Result<Scene> {
    let (container, _) = h.create(who, false, false)?;
    let source = who.root.join(&container.id);
    let mut scene = Scene::default();
    for i in 0..n {
        let name = format!("{}-copy{i:05}", container.id);
        copy_state(&source, &who.root.join(&name), &container.id, &name)?;
        scene.directories.push(who.root.join(name));
    }
    scene.container = Some(container);
    let listed = h.ask(who, &["list"]).map(|(_, text)| text.matches("-copy").count());
    match listed {
        Ok(seen) if seen >= n => Ok(scene),
        other => {
            remove_states(h, who, &scene)?;
            bail!("list shows {} of {n} copied containers", other?)
        }
    }
}

fn copy_state(from: &Path, to: &Path, old: &str, new: &str) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_file() {
            let text = fs::read(entry.path())?;
            match String::from_utf8(text) {
                Ok(text) => fs::write(target, text.replace(old, new))?,
                Err(e) => fs::write(target, e.into_bytes())?,
            }
        } else if kind.is_fifo() {
            nix::unistd::mkfifo(&target, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
        }
    }
    Ok(())
}

fn list_and_state(h: &Harness, who: &Contestant, scene: &Scene) -> Result<Rows> {
    let Some(container) = &scene.container else { bail!("no container") };
    let state = h.call(who, &["state", &container.id])?;
    Ok(vec![("list among states", h.call(who, &["list"])?), ("state among states", state)])
}

fn remove_states(h: &Harness, who: &Contestant, scene: &Scene) -> Result<()> {
    for dir in &scene.directories {
        fs::remove_dir_all(dir)?;
    }
    force(h, who, scene)
}

/// The host has many mounts. All contestants share them: whoever is first makes them.
fn many_mounts(h: &Harness, _: &Contestant, n: usize) -> Result<Scene> {
    let dir = h.place.dir.join("mounts");
    if dir.exists() {
        return Ok(Scene::default());
    }
    let mut scene = Scene::default();
    for i in 0..n {
        let point = dir.join(i.to_string());
        fs::create_dir_all(&point)?;
        mount(Some(&point), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        scene.directories.push(point);
    }
    Ok(scene)
}

fn run_in_mounts(h: &Harness, who: &Contestant, _: &Scene) -> Result<Rows> {
    Ok(vec![("run among mounts", run(h, who, true)?)])
}

fn remove_mounts(h: &Harness, _: &Contestant, scene: &Scene) -> Result<()> {
    for point in &scene.directories {
        umount2(point, MntFlags::MNT_DETACH)?;
    }
    if !scene.directories.is_empty() {
        fs::remove_dir_all(h.place.dir.join("mounts"))?;
    }
    Ok(())
}

/// The host has many other cgroups.
fn many_cgroups(h: &Harness, _: &Contestant, n: usize) -> Result<Scene> {
    let mut scene = Scene::default();
    for root in &h.place.cgroup_roots {
        let crowd = root.join(&h.place.prefix).join("crowd");
        if crowd.exists() {
            return Ok(scene);
        }
        for i in 0..n {
            fs::create_dir_all(crowd.join(i.to_string()))?;
        }
        scene.directories.push(crowd);
    }
    Ok(scene)
}

fn run_in_cgroups(h: &Harness, who: &Contestant, _: &Scene) -> Result<Rows> {
    Ok(vec![("run among cgroups", run(h, who, true)?)])
}

fn remove_cgroups(h: &Harness, _: &Contestant, scene: &Scene) -> Result<()> {
    if !scene.directories.is_empty() {
        h.place.remove_cgroups("/crowd");
    }
    guard::reap();
    Ok(())
}
