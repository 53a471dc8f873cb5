//! Sub-cgroups of a container's that are already there: where `exec --cgroup` puts its process.

use std::os::fd::AsFd;

use super::dir;
use super::group::Group;
use super::path;
use crate::error::{Code, Error, Result};

/// One `--cgroup [CONTROLLER[,CONTROLLER…]:]PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubCgroup {
    /// The v1 controller whose hierarchy is meant; all hierarchies when absent.
    pub controller: Option<String>,
    /// Below the container's own cgroup, without a `/` in front; empty for that one itself.
    pub path: String,
}

impl SubCgroup {
    /// Reads the options as runc does: one without controllers, or several with different ones.
    ///
    /// # Errors
    /// When they contradict each other, or a path could lead out of the container's cgroup.
    pub fn read(options: &[String]) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for option in options {
            let bad =
                |why: &str| Error::text(Code::E_OPTION, format!("--cgroup: {option:?} {why}"));
            let (controllers, below) = match option.split_once(':') {
                Some((controllers, below)) => (Some(controllers), below),
                None => (None, option.as_str()),
            };
            let below = below.trim_matches('/');
            if !below.is_empty() {
                path::check(below).map_err(|why| bad(&why))?;
            }
            if controllers.is_none() && options.len() > 1 {
                return Err(bad("names no controller, beside other options that must"));
            }
            for controller in
                controllers.map_or(vec![None], |all| all.split(',').map(Some).collect())
            {
                if controller == Some("") {
                    return Err(bad("has an empty controller"));
                }
                let controller = controller.map(str::to_owned);
                if all.iter().any(|known| known.controller == controller) {
                    return Err(bad("names a controller a second time"));
                }
                all.push(Self { controller, path: below.to_owned() });
            }
        }
        Ok(all)
    }
}

impl Group {
    /// The container's sub-cgroups that are meant; hierarchies that are not keep its own.
    ///
    /// # Errors
    /// When one is not there, or a controller has no hierarchy here.
    pub fn below(mut self, subs: &[SubCgroup]) -> Result<Self> {
        for sub in subs {
            let mut found = false;
            for dir in &mut self.dirs {
                let meant = match sub.controller.as_deref() {
                    None => true,
                    Some(name) => dir.place.has(name) || dir.place.has(&format!("name={name}")),
                };
                found |= meant;
                if !meant || sub.path.is_empty() {
                    continue;
                }
                let place = format!("{}/{}", dir.place.path, sub.path);
                dir.fd = dir::open_below(dir.as_fd(), &sub.path, libc::O_RDONLY)
                    .map_err(|error| Error::at(Code::E_OPTION, "--cgroup")(error.about(&place)))?;
                dir.place.path = place;
            }
            if !found {
                let name = sub.controller.as_deref().unwrap_or_default();
                return Err(Error::text(
                    Code::E_OPTION,
                    format!(
                        "--cgroup: no cgroup v1 hierarchy of the container has the controller {name:?}"
                    ),
                ));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str]) -> Option<Vec<(Option<String>, String)>> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let subs = SubCgroup::read(&options).ok()?;
        Some(subs.into_iter().map(|sub| (sub.controller, sub.path)).collect())
    }

    #[test]
    fn sub_cgroups_are_read_as_runc_does() {
        let some = |name: &str, path: &str| (Some(name.to_owned()), path.to_owned());
        assert_eq!(read(&[]), Some(vec![]));
        assert_eq!(read(&["/"]), Some(vec![(None, String::new())]));
        assert_eq!(read(&["/a/b"]), Some(vec![(None, "a/b".into())]));
        assert_eq!(read(&["cpu,cpuacct:a"]), Some(vec![some("cpu", "a"), some("cpuacct", "a")]));
        assert_eq!(read(&["cpu:a", "memory:b"]), Some(vec![some("cpu", "a"), some("memory", "b")]));
    }

    #[test]
    fn t23_sub_cgroups_that_lead_out_or_contradict_are_refused() {
        let bad: [&[&str]; 8] = [
            &["../x"],
            &["a/../../x"],
            &["cpu:.."],
            &["a//b"],
            &["a\nb"],
            &["a", "cpu:b"],
            &["cpu:a", "cpu:b"],
            &[":a"],
        ];
        for options in bad {
            assert_eq!(read(options), None, "{options:?}");
        }
    }
}
