//! `linux.cgroupsPath` in the form `slice:prefix:name`. Pure.

/// Longest name of a unit in bytes (`UNIT_NAME_MAX` less its NUL).
const NAME_MAX: usize = 255;

/// A scope and the slice it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `a-b.slice`
    pub slice: String,
    /// `prefix-name.scope`
    pub unit: String,
}

/// Reads `slice:prefix:name` as runc does. An empty slice is `system.slice`, for a user's systemd
/// `user.slice`; absent altogether, the scope is `onggi-ID.scope`.
pub fn read(config: Option<&str>, id: &str, user: bool) -> Result<Scope, String> {
    let default = if user { "user.slice" } else { "system.slice" };
    let (slice, unit) = match config.filter(|path| !path.is_empty()) {
        None => (default, format!("onggi-{id}.scope")),
        Some(path) => {
            let parts: Vec<&str> = path.split(':').collect();
            let [slice, prefix, name] = parts.as_slice() else {
                return Err(format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                     got {path:?} instead"
                ));
            };
            if name.is_empty() {
                return Err(format!("{path:?} has no name after the prefix"));
            }
            if name.strip_suffix(".slice").is_some() {
                return Err(format!("{name:?} is a slice, which holds no processes"));
            }
            let slice = if slice.is_empty() { default } else { slice };
            (slice, format!("{prefix}-{name}.scope"))
        }
    };
    check(&unit)?;
    check(slice)?;
    expand(slice)?;
    Ok(Scope { slice: slice.to_owned(), unit })
}

/// systemd.unit(5): ASCII letters, digits, `:-_.\` and `@`.
pub fn check(name: &str) -> Result<(), String> {
    let good = |one: char| one.is_ascii_alphanumeric() || ":-_.\\@".contains(one);
    if let Some(bad) = name.chars().find(|one| !good(*one)) {
        return Err(format!("{name:?}: {bad:?} cannot be in the name of a systemd unit"));
    }
    if name.len() > NAME_MAX {
        return Err(format!("{name:?}: longer than {NAME_MAX} bytes"));
    }
    Ok(())
}

/// The directory of a slice: `a-b.slice` is `a.slice/a-b.slice`, `-.slice` is the root (empty).
pub fn expand(slice: &str) -> Result<String, String> {
    let invalid = || format!("invalid slice name: {slice}");
    let name = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if name == "-" {
        return Ok(String::new());
    }
    let mut path = Vec::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path.join("/"))
}

/// Where the cgroup of a scope is expected, below the mount point. `own` is the runtime's own cgroup:
/// a user's systemd is found by it, or else where logind puts it for that uid.
pub fn expected(scope: &Scope, user: bool, own: &str, uid: u32) -> String {
    let below = match expand(&scope.slice) {
        Ok(slice) if !slice.is_empty() => format!("{slice}/{}", scope.unit),
        _ => scope.unit.clone(),
    };
    if !user {
        return below;
    }
    let manager = own
        .find("/user@")
        .and_then(|at| Some(at + own.get(at..)?.find(".service")? + ".service".len()))
        .and_then(|end| own.get(..end));
    match manager {
        Some(manager) => format!("{}/{below}", manager.trim_start_matches('/')),
        None => format!("user.slice/user-{uid}.slice/user@{uid}.service/{below}"),
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::expect_used, clippy::let_underscore_must_use, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn scope(path: &str) -> Result<(String, String), String> {
        read(Some(path), "c1", false).map(|scope| (scope.slice, scope.unit))
    }

    #[test]
    fn systemd_path_slice_prefix_name() {
        let good = |slice: &str, unit: &str| Ok((slice.to_owned(), unit.to_owned()));
        assert_eq!(scope("machine.slice:libpod:c1"), good("machine.slice", "libpod-c1.scope"));
        assert_eq!(scope("a-b.slice:cri:c1"), good("a-b.slice", "cri-c1.scope"));
        assert_eq!(scope(":docker:c1"), good("system.slice", "docker-c1.scope"));
        assert_eq!(scope("-.slice::c1"), good("-.slice", "-c1.scope"));
        assert_eq!(scope(""), good("system.slice", "onggi-c1.scope"));
        let user = read(None, "c1", true).map(|scope| scope.slice);
        assert_eq!(user, Ok("user.slice".to_owned()));
    }

    #[test]
    fn systemd_path_that_is_none_is_refused() {
        for (path, why) in [
            ("/docker/c1", "to be of format \"slice:prefix:name\""),
            ("a.slice:b:c:d", "to be of format"),
            ("a.slice:b:", "no name"),
            ("a.slice:b:c.slice", "is a slice"),
            ("a:b:c", "invalid slice name: a"),
            ("a--b.slice:b:c", "invalid slice name"),
            ("-a.slice:b:c", "invalid slice name"),
            (".slice:b:c", "invalid slice name"),
            ("a/b.slice:b:c", "'/' cannot be in the name"),
            ("a.slice:b:c/../d", "'/' cannot be in the name"),
            ("a.slice:b:c\nd", "'\\n' cannot be in the name"),
            ("a.slice:b:c+d", "'+' cannot be in the name"),
        ] {
            let error = scope(path).expect_err(path);
            assert!(error.contains(why), "{path}: {error}");
        }
        let long = format!("a.slice:b:{}", "c".repeat(250));
        assert!(scope(&long).is_err_and(|error| error.contains("longer than 255")));
    }

    #[test]
    fn systemd_slices_nest_by_their_dashes() {
        assert_eq!(expand("a-b-c.slice"), Ok("a.slice/a-b.slice/a-b-c.slice".to_owned()));
        assert_eq!(expand("-.slice"), Ok(String::new()));
    }

    #[test]
    fn systemd_cgroup_is_expected_below_its_manager() {
        let scope = Scope { slice: "a-b.slice".into(), unit: "x.scope".into() };
        let below = "a.slice/a-b.slice/x.scope";
        assert_eq!(expected(&scope, false, "/user.slice", 0), below);
        let manager = "user.slice/user-7.slice/user@7.service";
        let own = format!("/{manager}/app.slice/run-1.service");
        assert_eq!(expected(&scope, true, &own, 1), format!("{manager}/{below}"));
        let session = "/user.slice/user-7.slice/session-1.scope";
        assert_eq!(expected(&scope, true, session, 7), format!("{manager}/{below}"));
    }
}
