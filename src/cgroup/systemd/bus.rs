//! A connection to systemd: over the message bus, or straight to systemd where there is no bus.
//!
//! Every wait ends at the connection's deadline.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::super::dir::Pause;
use super::wire::{self, Call, Kind, Message, Writer};
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs, socket};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const DBUS: &str = "org.freedesktop.DBus";

/// Longest message that is taken, in bytes. Those that matter have a few hundred.
const LONGEST: usize = 1 << 20;
/// Longest line of the authentication.
const LONGEST_LINE: usize = 1 << 12;

/// Where a bus may be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    /// A path, or with a NUL in front a name of the abstract namespace (unix(7)).
    name: Vec<u8>,
    /// systemd itself listens there: no bus, no names, and all its signals come unasked.
    direct: bool,
}

/// An authenticated connection.
#[derive(Debug)]
pub struct Bus {
    socket: OwnedFd,
    name: String,
    direct: bool,
    end: Instant,
    deadline: Duration,
    serial: u32,
    /// Calls up to this one are to the bus itself.
    greeted: u32,
    output: Vec<u8>,
    input: Vec<u8>,
}

/// The bus of the system, or of the user.
fn addresses(user: bool) -> Result<Vec<Address>> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let variable = if user { "DBUS_SESSION_BUS_ADDRESS" } else { "DBUS_SYSTEM_BUS_ADDRESS" };
    if let Some(text) = set(variable) {
        let all = parse(&text);
        if all.is_empty() {
            return Err(Error::text(
                Code::E_SYSTEMD,
                format!("{variable}: {text:?} has no address of a socket"),
            ));
        }
        return Ok(all);
    }
    let (bus, private) = if user {
        let dir = set("XDG_RUNTIME_DIR").ok_or_else(|| {
            Error::text(
                Code::E_SYSTEMD,
                "no bus of the user's systemd: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set",
            )
        })?;
        (format!("{dir}/bus"), format!("{dir}/systemd/private"))
    } else {
        ("/run/dbus/system_bus_socket".to_owned(), "/run/systemd/private".to_owned())
    };
    Ok(vec![
        Address { name: bus.into_bytes(), direct: false },
        Address { name: private.into_bytes(), direct: true },
    ])
}

/// The sockets in a list of D-Bus addresses: `unix:path=/run/bus,guid=…;unix:abstract=name`.
fn parse(text: &str) -> Vec<Address> {
    let one = |address: &str| {
        let mut pairs = address.strip_prefix("unix:")?.split(',').filter_map(|p| p.split_once('='));
        pairs.find_map(|(key, value)| {
            let value = unescape(value)?;
            let name = match key {
                "path" => value,
                "abstract" => [&[0], value.as_slice()].concat(),
                _ => return None,
            };
            Some(Address { name, direct: false })
        })
    };
    text.split(';').filter_map(one).collect()
}

/// `%2f` is a byte.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        out.extend(part.get(2..)?.as_bytes());
    }
    Some(out)
}

impl Bus {
    /// Connects within `deadline`, which then holds for all that is done with the connection.
    ///
    /// # Errors
    /// `ENOENT` or `ECONNREFUSED` where nobody listens; and all else that can go wrong.
    pub fn connect(user: bool, deadline: Duration) -> Result<Self> {
        let end = Instant::now() + deadline;
        let mut failed = None;
        for address in addresses(user)? {
            match connect(&address, end) {
                Ok(socket) => {
                    let name = show(&address.name);
                    let mut bus = Self {
                        socket,
                        name,
                        direct: address.direct,
                        end,
                        deadline,
                        serial: 0,
                        greeted: 0,
                        output: Vec::new(),
                        input: Vec::new(),
                    };
                    bus.begin()?;
                    return Ok(bus);
                }
                // Nobody there; the bus's own error tells more than that of the way around it.
                Err(error) if is_absent(error.errno) => failed = failed.or(Some(error)),
                Err(error) => return Err(error.into()),
            }
        }
        let nothing = || sys::Error::new("connect", "bus", libc::ENOENT);
        Err(failed.unwrap_or_else(nothing).into())
    }

    /// SASL EXTERNAL without a name: who we are is what the kernel says, also from a user namespace.
    /// Then the greeting that a bus wants.
    fn begin(&mut self) -> Result<()> {
        self.output.extend(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        self.flush()?;
        for wanted in ["DATA", "OK"] {
            let line = self.line()?;
            if line.split(' ').next() != Some(wanted) {
                return Err(self.said(&format!("refuses us: {line:?}")));
            }
        }
        if !self.direct {
            self.greeted = self.queue(&bus_call("Hello", "", Writer::default()));
        }
        Ok(())
    }

    /// Asks for the signal that ends the jobs of a unit. systemd itself sends all signals anyway.
    pub fn watch_jobs(&mut self, unit: &str) {
        if self.direct {
            return;
        }
        let mut body = Writer::default();
        body.text(&format!(
            "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',\
             member='JobRemoved',arg2='{unit}'"
        ));
        self.greeted = self.queue(&bus_call("AddMatch", "s", body));
    }

    /// Queues a call of systemd's manager; its number.
    pub fn call(&mut self, member: &str, signature: &str, body: Writer) -> u32 {
        let destination = (!self.direct).then_some(SYSTEMD);
        let (path, interface) = (MANAGER_PATH, MANAGER);
        self.queue(&Call { destination, path, interface, member, signature, body })
    }

    fn queue(&mut self, call: &Call<'_>) -> u32 {
        self.serial += 1;
        self.output.extend(wire::encode(call, self.serial));
        self.serial
    }

    /// The next message, after all that is queued has been sent. Refusals of calls to the bus itself
    /// are errors here.
    pub fn receive(&mut self) -> Result<Message> {
        self.flush()?;
        while self.input.len() < wire::FIXED {
            self.fill()?;
        }
        let garbage = "sends what is no D-Bus message";
        let fixed = self.input.get(..wire::FIXED).and_then(|bytes| bytes.try_into().ok());
        let Some(length) = fixed.and_then(|fixed| wire::length(fixed, LONGEST)) else {
            return Err(self.said(garbage));
        };
        while self.input.len() < length {
            self.fill()?;
        }
        let rest = self.input.split_off(length);
        let bytes = std::mem::replace(&mut self.input, rest);
        let message = wire::decode(&bytes).ok_or_else(|| self.said(garbage))?;
        if message.kind == Kind::Error && message.reply_to <= self.greeted {
            return Err(self.said(&refusal(&message)));
        }
        Ok(message)
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.input.len() > LONGEST_LINE {
                return Err(self.said("does not speak D-Bus"));
            }
            self.fill()?;
        }
    }

    fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match socket::write_nosignal(self.socket.as_fd(), &self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.errno == libc::EAGAIN => self.wait(libc::POLLOUT)?,
                // Closed; what it has said before, and is still to be read, may tell why.
                Err(error) if is_closed(error.errno) => self.output.clear(),
                Err(error) => return Err(error.about(&self.name).into()),
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0u8; 4096];
        loop {
            match fs::read(self.socket.as_fd(), &mut chunk) {
                Ok(0) => return Err(self.said("closes the connection")),
                Ok(count) => {
                    self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if error.errno == libc::EAGAIN => self.wait(libc::POLLIN)?,
                Err(error) if is_closed(error.errno) => {
                    return Err(self.said("closes the connection"));
                }
                Err(error) => return Err(error.about(&self.name).into()),
            }
        }
    }

    fn wait(&self, events: i16) -> Result<()> {
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = format!("gives no answer within {} s", self.deadline.as_secs());
                return Err(self.said(&text));
            }
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
            match fs::poll(&[(self.socket.as_fd(), events)], millis) {
                Err(error) if error.errno == libc::EINTR => {}
                Ok(ready) if ready.iter().all(|events| *events == 0) => {}
                result => return Ok(result.map(drop)?),
            }
        }
    }

    fn said(&self, text: &str) -> Error {
        let who = if self.direct { "systemd" } else { "the bus" };
        Error::text(Code::E_SYSTEMD, format!("{who} at {} {text}", self.name))
    }
}

fn bus_call<'a>(member: &'a str, signature: &'a str, body: Writer) -> Call<'a> {
    let (path, interface) = ("/org/freedesktop/DBus", DBUS);
    Call { destination: Some(DBUS), path, interface, member, signature, body }
}

/// What a refusal says.
pub fn refusal(message: &Message) -> String {
    let text = message.texts.first().map_or("", |text| text.trim_end_matches('.'));
    if text.is_empty() { message.error.clone() } else { format!("{text} ({})", message.error) }
}

/// Nobody listens there.
pub fn is_absent(errno: i32) -> bool {
    matches!(errno, libc::ENOENT | libc::ECONNREFUSED)
}

fn is_closed(errno: i32) -> bool {
    matches!(errno, libc::EPIPE | libc::ECONNRESET)
}

fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace('\0', "@")
}

/// A full queue of a listener that accepts nobody is `EAGAIN`.
fn connect(address: &Address, end: Instant) -> sys::Result<OwnedFd> {
    let mut pause = Pause::until(end);
    loop {
        match socket::connect_nonblocking(&address.name) {
            Err(error) if error.errno == libc::EAGAIN && pause.sleep() => {}
            result => return result.map_err(|error| error.about(show(&address.name))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::expect_used, clippy::let_underscore_must_use, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dbus_addresses() {
        let names = |text: &str| -> Vec<String> {
            parse(text).iter().map(|address| show(&address.name)).collect()
        };
        assert_eq!(names("unix:path=/run/user/1000/bus"), ["/run/user/1000/bus"]);
        assert_eq!(names("unix:abstract=/tmp/dbus-x,guid=12"), ["@/tmp/dbus-x"]);
        assert_eq!(names("unix:guid=1,path=/a%20b;tcp:host=x;unix:path=/c"), ["/a b", "/c"]);
        assert_eq!(names("tcp:host=localhost"), [""; 0]);
        assert_eq!(names("unix:path=%zz"), [""; 0]);
        assert_eq!(names("unix:path=%2"), [""; 0]);
    }
}
