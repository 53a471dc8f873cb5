//! Staying with a process in the foreground: signals and terminal pass through, its end is ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::termios::Termios;

use crate::error::Result;
use crate::sd_notify::Proxy;
use crate::spawn::Created;
use crate::sys;
use crate::sys::process::Exit;

/// Blocks all signals, so that none is lost between the start of the process and [`Foreground::wait`].
/// The child resets its own mask.
#[derive(Debug)]
pub struct Foreground {
    signals: OwnedFd,
}

/// The caller's terminal in raw mode; gets its former mode back when dropped.
#[derive(Debug)]
struct RawTerminal {
    tty: OwnedFd,
    saved: Termios,
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = sys::tty::restore(self.tty.as_fd(), &self.saved) {
            crate::log::stderr_line(&format!("onggi: terminal: {error}"));
        }
    }
}

impl RawTerminal {
    /// The caller's terminal: the first of descriptors 2, 1, 0 that is one.
    fn find() -> Result<Option<Self>> {
        for number in [2, 1, 0] {
            let Some(fd) = sys::fs::inherited(number) else { continue };
            if sys::tty::size(fd).is_ok() {
                let tty = sys::fs::duplicate(fd)?;
                let saved = sys::tty::make_raw(tty.as_fd())?;
                return Ok(Some(Self { tty, saved }));
            }
        }
        Ok(None)
    }
}

impl Foreground {
    /// Starts watching signals.
    pub fn begin() -> Result<Self> {
        sys::process::block_signals()?;
        Ok(Self { signals: sys::process::signalfd()? })
    }

    /// Rows and columns of the caller's terminal, for a process that is to start with them.
    #[must_use]
    pub fn terminal_size() -> Option<(u16, u16)> {
        [2, 1, 0].into_iter().find_map(|number| sys::tty::size(sys::fs::inherited(number)?).ok())
    }

    /// Waits for the process' end, passing signals to it and copying its terminal, if it has one here;
    /// passes on that it is ready.
    pub fn wait(&self, process: &Created, proxy: Option<Proxy>) -> Result<Exit> {
        Ok(self.attend(process, None, proxy)?.unwrap_or(Exit::Code(1)))
    }

    /// The same with a deadline; `None` when that came first, and the process still runs.
    pub fn wait_until(&self, process: &Created, end: Option<Instant>) -> Result<Option<Exit>> {
        self.attend(process, end, None)
    }

    fn attend(
        &self,
        process: &Created,
        end: Option<Instant>,
        mut proxy: Option<Proxy>,
    ) -> Result<Option<Exit>> {
        let raw = match &process.terminal {
            Some(_) => RawTerminal::find()?,
            None => None,
        };
        let mut relay = process.terminal.as_ref().map(Relay::new).transpose()?;
        loop {
            let mut fds =
                vec![(self.signals.as_fd(), libc::POLLIN), (process.pidfd.as_fd(), libc::POLLIN)];
            let always = fds.len();
            fds.extend(proxy.iter().map(|proxy| (proxy.readable(), libc::POLLIN)));
            if let Some(relay) = &relay {
                fds.extend(relay.interests()?);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let again = relay.as_ref().is_some_and(|relay| !relay.open).then_some(HUNG_UP);
            let millis = left.into_iter().chain(again).min().map_or(-1, |wait| {
                i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
            });
            let events = match sys::fs::poll(&fds, millis) {
                Err(error) if error.errno == libc::EINTR => continue,
                result => result?,
            };
            if events.first().is_some_and(|events| *events != 0) {
                self.signal(process, raw.as_ref(), relay.as_ref())?;
            }
            if events.get(always).is_some_and(|events| *events & libc::POLLIN != 0) {
                proxy = told(proxy);
            }
            if let Some(relay) = &mut relay {
                relay.copy()?;
            }
            if events.get(1).is_some_and(|events| *events != 0) {
                if let Some(relay) = &mut relay {
                    relay.drain()?;
                }
                return Ok(sys::process::wait(process.pidfd.as_fd(), true)?);
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    fn signal(
        &self,
        process: &Created,
        raw: Option<&RawTerminal>,
        relay: Option<&Relay<'_>>,
    ) -> Result<()> {
        match sys::process::read_signal(self.signals.as_fd())? {
            libc::SIGCHLD | libc::SIGURG => Ok(()),
            libc::SIGWINCH => match (raw, relay) {
                (Some(raw), Some(relay)) => resize(raw.tty.as_fd(), relay.master),
                _ => Ok(()),
            },
            signal => match sys::process::pidfd_send_signal(process.pidfd.as_fd(), signal) {
                // It has just ended.
                Err(error) if error.errno == libc::ESRCH => Ok(()),
                result => Ok(result?),
            },
        }
    }
}

/// The proxy, as long as it has not passed on what it waits for.
fn told(proxy: Option<Proxy>) -> Option<Proxy> {
    let waiting = proxy?;
    match waiting.pass_on() {
        Ok(false) => Some(waiting),
        Ok(true) => None,
        // The container runs on; who waits for it will see that it hears nothing.
        Err(error) => {
            crate::log::stderr_line(&format!("onggi: {error}"));
            None
        }
    }
}

fn resize(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let (rows, columns) = sys::tty::size(from)?;
    Ok(sys::tty::set_size(to, rows, columns)?)
}

/// Copies between the caller's stdin and stdout and a pty's master.
#[derive(Debug)]
struct Relay<'a> {
    master: BorrowedFd<'a>,
    stdin: Option<BorrowedFd<'a>>,
    stdout: Option<BorrowedFd<'a>>,
    /// Read from stdin, not yet taken by the pty.
    pending: Vec<u8>,
    /// Somebody has the other side open.
    open: bool,
}

/// How often a pty is looked at that nobody has open: systemd and getty hang theirs up and open it again, which
/// no event tells.
const HUNG_UP: Duration = Duration::from_millis(100);

/// Size of one copy, in bytes: the relay's memory stays bounded whatever either side does. A pipe that
/// is ready takes as much without blocking (`PIPE_BUF`).
const CHUNK: usize = 4096;

/// Whether a descriptor is ready now, or has nobody on its other side any more.
fn is_ready(fd: BorrowedFd<'_>, events: i16) -> Result<bool> {
    let found = sys::fs::poll(&[(fd, events)], 0)?;
    Ok(found.first().is_some_and(|found| *found != 0))
}

impl<'a> Relay<'a> {
    fn new(master: &'a OwnedFd) -> Result<Self> {
        sys::fs::set_nonblocking(master, true)?;
        Ok(Self {
            master: master.as_fd(),
            stdin: sys::fs::inherited(0),
            stdout: sys::fs::inherited(1),
            pending: Vec::new(),
            open: true,
        })
    }

    /// What to wait for. Output is read only when stdout takes it: were its write to block, no signal
    /// would get through, and the process' end would not be seen.
    fn interests(&self) -> Result<Vec<(BorrowedFd<'a>, i16)>> {
        let mut fds = Vec::with_capacity(3);
        if self.open {
            let writing = if self.pending.is_empty() { 0 } else { libc::POLLOUT };
            match self.stdout {
                Some(stdout) if !is_ready(stdout, libc::POLLOUT)? => {
                    fds.push((stdout, libc::POLLOUT));
                    if writing != 0 {
                        fds.push((self.master, writing));
                    }
                }
                _ => fds.push((self.master, libc::POLLIN | writing)),
            }
        }
        if let (true, Some(stdin)) = (self.pending.is_empty(), self.stdin) {
            fds.push((stdin, libc::POLLIN));
        }
        Ok(fds)
    }

    /// Copies what is there, in both directions, without blocking on the pty.
    fn copy(&mut self) -> Result<()> {
        if let (true, Some(stdin)) = (self.pending.is_empty(), self.stdin) {
            if is_ready(stdin, libc::POLLIN)? {
                let mut chunk = [0u8; CHUNK];
                match sys::fs::read(stdin, &mut chunk) {
                    // End of input: the terminal's end-of-file character, and no more reading.
                    Ok(0) => {
                        self.stdin = None;
                        self.pending = vec![4];
                    }
                    Ok(count) => {
                        self.pending = chunk.get(..count).unwrap_or_default().to_vec();
                    }
                    Err(error) if error.errno == libc::EAGAIN => {}
                    Err(_) => self.stdin = None,
                }
            }
        }
        if !self.pending.is_empty() && self.open {
            match sys::fs::write(self.master, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.errno == libc::EAGAIN => {}
                Err(error) if error.errno == libc::EIO => self.pending.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        match self.stdout {
            Some(stdout) if !is_ready(stdout, libc::POLLOUT)? => Ok(()),
            _ => self.output().map(|_| ()),
        }
    }

    /// One chunk of output; false when there is none now.
    fn output(&mut self) -> Result<bool> {
        let mut chunk = [0u8; CHUNK];
        let read = sys::fs::read(self.master, &mut chunk);
        // The last slave has been closed: EIO until somebody opens another one.
        self.open = !matches!(&read, Err(error) if error.errno == libc::EIO);
        match read {
            Ok(0) => Ok(false),
            Ok(count) => {
                if let Some(stdout) = self.stdout {
                    sys::fs::write_all(stdout, chunk.get(..count).unwrap_or_default())?;
                }
                Ok(true)
            }
            Err(error) if matches!(error.errno, libc::EAGAIN | libc::EIO) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything that was written before the process ended.
    fn drain(&mut self) -> Result<()> {
        while self.output()? {}
        Ok(())
    }
}
