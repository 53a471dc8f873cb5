//! The working directory, the program, and the last call.

use std::ffi::CString;
use std::os::fd::AsFd;

use super::Child;
use crate::error::{Code, Error, Result};
use crate::plan::process::DEFAULT_PATH;
use crate::sys;
use crate::sys::exec::CStrings;

/// Longest /etc/passwd that is searched for a home directory, in bytes.
const PASSWD_MAX: usize = 1 << 20;

/// The program, ready to run: nothing is allocated any more after this.
#[derive(Debug)]
pub struct Found {
    path: CString,
    argv: CStrings,
    envp: CStrings,
}

/// Changes to the working directory as root of the container, as runc and crun do: images have users whose
/// working directory only root may enter. Where root may not (a filesystem that knows only its owner), the
/// user tries again: [`cwd_of_user`].
pub fn cwd(child: &mut Child<'_>) -> Result<()> {
    match change_directory(child) {
        Err(error) if matches!(error.errno(), Some(libc::EACCES | libc::EPERM)) => {
            child.work.cwd_denied = true;
            Ok(())
        }
        result => result,
    }
}

/// Changes to the working directory as its user, where root could not.
pub fn cwd_of_user(child: &Child<'_>) -> Result<()> {
    if child.work.cwd_denied { change_directory(child) } else { Ok(()) }
}

/// Makes sure, too, that it is inside the container: a descriptor of the host reached through /proc/self/fd
/// would be outside of it (CVE-2024-21626).
fn change_directory(child: &Child<'_>) -> Result<()> {
    let process = child.process()?;
    sys::fs::chdir(&sys::cstr("chdir", &process.cwd)?)?;
    let inside = sys::fs::getcwd()?.starts_with(b"/");
    if !inside {
        let cwd = process.cwd.escape_debug();
        return Err(Error::text(Code::E_CWD, format!("{cwd} is outside of the container's root")));
    }
    Ok(())
}

/// Finds the program as execvp(3) would, with the rights it will have, so that a missing or forbidden
/// one fails create and not start.
pub fn find(child: &mut Child<'_>) -> Result<()> {
    let process = child.process()?;
    let mut env = process.env.clone();
    env.retain(|entry| entry != NO_HOME);
    env.extend(child.extra_env.iter().cloned());
    env.extend(child.work.home.take());
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let path = if name.contains('/') {
        judge(name)?;
        name.to_owned()
    } else {
        search(name, &env)?
    };
    child.work.program = Some(Found {
        path: sys::cstr("execve", path)?,
        argv: strings(&process.args)?,
        envp: strings(&env)?,
    });
    Ok(())
}

fn strings(list: &[String]) -> Result<CStrings> {
    let strings: sys::Result<Vec<_>> = list.iter().map(|text| sys::cstr("execve", text)).collect();
    Ok(CStrings::new(strings?))
}

/// A name without a slash, in the container's PATH.
fn search(name: &str, env: &[String]) -> Result<String> {
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    let mut forbidden = None;
    for directory in path.unwrap_or(DEFAULT_PATH).split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.errno == libc::EACCES => forbidden = Some(candidate),
            Err(_) => {}
        }
    }
    let shown = name.escape_debug();
    Err(Error::text(
        Code::E_PROGRAM,
        match forbidden {
            Some(_) => format!("exec: \"{shown}\": permission denied"),
            None => format!("exec: \"{shown}\": executable file not found in $PATH"),
        },
    ))
}

/// The texts by which engines choose exit status 126 or 127.
fn judge(path: &str) -> Result<()> {
    let shown = path.escape_debug();
    usable(path).map_err(|error| {
        Error::text(
            Code::E_PROGRAM,
            match error.errno {
                libc::EISDIR => format!("exec: \"{shown}\": is a directory: permission denied"),
                libc::EACCES => format!("exec: \"{shown}\": permission denied"),
                errno => format!("exec: \"{shown}\": stat {shown}: {}", sys::errno_words(errno)),
            },
        )
    })
}

/// Whether a path is a file that this process may run.
fn usable(path: &str) -> sys::Result<()> {
    let name = sys::cstr("stat", path)?;
    let stat = sys::fs::statat(sys::fs::CWD, &name, 0)?;
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => Err(sys::Error::new("stat", path, libc::EISDIR)),
        libc::S_IFREG => sys::fs::access(sys::fs::CWD, &name, libc::X_OK),
        _ => Err(sys::Error::new("stat", path, libc::EACCES)),
    }
}

/// The home directory that the container's /etc/passwd gives a uid, `/` without one. Only this field
/// is taken from there: who we are is decided by numbers alone (CVE-2016-3697).
fn home_of(uid: u32) -> Result<Option<String>> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    // A link to /proc/self/fd would lead out, by one of our own descriptors.
    let resolve = libc::RESOLVE_NO_MAGICLINKS;
    let file = match sys::fs::openat2(sys::fs::CWD, c"/etc/passwd", flags, 0, resolve) {
        Ok(file) => file,
        // An image without users, or with something odd in the file's place.
        Err(error)
            if matches!(
                error.errno,
                libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EACCES | libc::ENXIO
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if sys::fs::fstat(file.as_fd())?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(None);
    }
    match sys::fs::read_small(file.as_fd(), PASSWD_MAX) {
        Ok(bytes) => Ok(home_in(&String::from_utf8_lossy(&bytes), uid)),
        Err(error) if error.errno == libc::EFBIG => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// An empty one is none: docker counts on it, as with runc.
const NO_HOME: &str = "HOME=";

/// Finds the user's home directory, where the environment names none.
pub fn home(child: &mut Child<'_>) -> Result<()> {
    let process = child.process()?;
    let names_one = |entry: &String| entry.starts_with(NO_HOME) && entry != NO_HOME;
    if !process.env.iter().any(names_one) {
        let found = home_of(process.uid)?.unwrap_or_else(|| "/".into());
        child.work.home = Some(format!("HOME={found}"));
    }
    Ok(())
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.nth(2)?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        (found && home.starts_with('/') && !home.contains('\0')).then(|| home.to_owned())
    })
}

/// Becomes the program.
pub fn execve(child: &mut Child<'_>) -> Result<()> {
    let found = child
        .work
        .program
        .as_ref()
        .ok_or_else(|| Error::text(Code::E_INTERNAL, "no program was found"))?;
    if let Some(socket) = &child.socket {
        // exec: the parent may have died since the death signal was last armed.
        let events = sys::fs::poll(&[(socket.as_fd(), 0)], 0)?;
        if events.first().is_some_and(|events| events & libc::POLLHUP != 0) {
            sys::process::exit_now(1);
        }
        sys::process::set_pdeathsig(0)?;
    }
    let error = sys::exec::execve(&found.path, &found.argv, &found.envp);
    let shown = found.path.to_string_lossy().escape_debug().to_string();
    Err(Error::text(
        Code::E_PROGRAM,
        format!("exec: \"{shown}\": {}", sys::errno_text(error.errno)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_the_sixth_field_of_the_line_with_the_uid() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n1000:x:7:7::/wrong:\nu:x:1000:1000::/home/u:\n";
        assert_eq!(home_in(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, 1000).as_deref(), Some("/home/u"));
        assert_eq!(home_in(passwd, 5), None);
        assert_eq!(home_in("x:x:5:5", 5), None);
    }
}
