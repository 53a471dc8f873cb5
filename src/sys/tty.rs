//! Pseudo-terminals: ioctl_tty(2), termios(3).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::termios::{self, SetArg, Termios};

use super::{Error, Result, done, owned};

/// Unlocks a new pty master.
pub fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let zero: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const zero) };
    done(ret.into(), "ioctl", "TIOCSPTLCK")
}

/// The slave of a master, by `TIOCGPTPEER`: no path, so nobody can put another file there.
pub fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) };
    owned(ret.into(), "ioctl", "TIOCGPTPEER")
}

/// The N of `/dev/pts/N`.
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN fills one unsigned int.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) };
    done(ret.into(), "ioctl", "TIOCGPTN").map(|()| number)
}

/// Makes the terminal the controlling one of this session.
pub fn set_controlling(tty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the argument is a number.
    let ret = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY as _, 0) };
    done(ret.into(), "ioctl", "TIOCSCTTY")
}

/// Sets rows and columns.
pub fn set_size(tty: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    let ret = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) };
    done(ret.into(), "ioctl", "TIOCSWINSZ")
}

/// Rows and columns of a terminal.
pub fn size(tty: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills one winsize.
    let ret = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) };
    done(ret.into(), "ioctl", "TIOCGWINSZ").map(|()| (size.ws_row, size.ws_col))
}

/// Raw mode; returns what to give [`restore`].
pub fn make_raw(tty: BorrowedFd<'_>) -> Result<Termios> {
    let failed = |errno: nix::errno::Errno| Error::new("tcsetattr", "", errno as i32);
    let saved = termios::tcgetattr(tty).map_err(failed)?;
    let mut raw = saved.clone();
    termios::cfmakeraw(&mut raw);
    termios::tcsetattr(tty, SetArg::TCSANOW, &raw).map_err(failed)?;
    Ok(saved)
}

/// Gives a terminal its former mode back.
pub fn restore(tty: BorrowedFd<'_>, saved: &Termios) -> Result<()> {
    termios::tcsetattr(tty, SetArg::TCSANOW, saved)
        .map_err(|errno| Error::new("tcsetattr", "", errno as i32))
}
