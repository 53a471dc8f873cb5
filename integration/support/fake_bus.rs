//! A bus with a systemd on it, as a test wants them: late, wrong, silent, or doing the real thing.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Bundle, host};

/// A call that came in.
pub struct Request {
    pub member: String,
    pub bytes: Vec<u8>,
    serial: u32,
}

impl Request {
    /// The one process of `PIDs`: its name, the signature `au`, the array's length, the number.
    pub fn pid(&self) -> i32 {
        let name = b"PIDs\0";
        let at = self.bytes.windows(name.len()).position(|window| window == name).unwrap();
        let signature = at + name.len();
        assert_eq!(&self.bytes[signature..signature + 4], b"\x02au\0");
        // Alignment counts from the start of the message: its body is aligned to 8.
        let length = (signature + 4).next_multiple_of(4);
        number(&self.bytes, length + 4) as i32
    }

    pub fn has(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The other side of a connection.
pub struct Peer {
    stream: UnixStream,
}

impl Peer {
    /// Answers a call with an object path, or with nothing.
    pub fn reply(&self, request: &Request, object: Option<&str>) {
        let body = object.map(text).unwrap_or_default();
        self.send(2, request.serial, &[], object.map_or("", |_| "o"), &body);
    }

    /// Refuses a call.
    pub fn refuse(&self, request: &Request, name: &str, message: &str) {
        self.send(3, request.serial, &[(4, name)], "s", &text(message));
    }

    /// Tells how a job has ended.
    pub fn job_removed(&self, job: &str, unit: &str, result: &str) {
        let mut body = 7u32.to_le_bytes().to_vec();
        for one in [job, unit, result] {
            body.resize(body.len().next_multiple_of(4), 0);
            body.extend(text(one));
        }
        self.send(4, 0, &[(3, "JobRemoved")], "uoss", &body);
    }

    /// Sends bytes as they are.
    pub fn raw(&self, bytes: &[u8]) {
        let _ = (&self.stream).write_all(bytes);
    }

    /// Waits for the first bytes of the other side.
    pub fn hear(&self) {
        let _ = (&self.stream).read(&mut [0u8; 512]);
    }

    fn send(&self, kind: u8, answers: u32, fields: &[(u8, &str)], signature: &str, body: &[u8]) {
        let mut header = Vec::new();
        if answers != 0 {
            header.extend(b"\x05\x01u\0");
            header.extend(answers.to_le_bytes());
        }
        for (code, value) in fields {
            header.resize(header.len().next_multiple_of(8), 0);
            header.extend([*code, 1, b's', 0]);
            header.extend(text(value));
        }
        if !signature.is_empty() {
            header.resize(header.len().next_multiple_of(8), 0);
            header.extend([8, 1, b'g', 0, signature.len() as u8]);
            header.extend(signature.as_bytes());
            header.push(0);
        }
        let mut message = vec![b'l', kind, 0, 1];
        for number in [body.len() as u32, 99, header.len() as u32] {
            message.extend(number.to_le_bytes());
        }
        message.extend(header);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        self.raw(&message);
    }

    fn receive(&self) -> Option<Request> {
        let mut stream = &self.stream;
        let mut bytes = vec![0u8; 16];
        stream.read_exact(&mut bytes).ok()?;
        let fields = (16 + number(&bytes, 12) as usize).next_multiple_of(8);
        bytes.resize(fields + number(&bytes, 4) as usize, 0);
        stream.read_exact(&mut bytes[16..]).ok()?;
        let serial = number(&bytes, 8);
        // The field with the code 3 and a text.
        let mut at = 16;
        let mut member = String::new();
        while at + 8 < fields {
            if bytes[at..].starts_with(b"\x03\x01s\0") {
                let length = number(&bytes, at + 4) as usize;
                member = String::from_utf8_lossy(&bytes[at + 8..at + 8 + length]).into_owned();
                break;
            }
            at += 8;
        }
        Some(Request { member, bytes, serial })
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_le_bytes(), text.as_bytes(), &[0]].concat()
}

/// A bus at a socket in a bundle's directory.
pub struct FakeBus {
    path: PathBuf,
    calls: Arc<Mutex<Vec<String>>>,
}

impl FakeBus {
    /// One that answers every call but those to the bus itself by `answer`.
    pub fn new(
        bundle: &Bundle,
        answer: impl Fn(&Peer, &Request) + Send + Sync + 'static,
    ) -> FakeBus {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let noted = calls.clone();
        FakeBus::raw_with(bundle, calls, move |peer| {
            let mut hello = [0u8; 512];
            let mut seen = Vec::new();
            while !seen.ends_with(b"BEGIN\r\n") {
                match (&peer.stream).read(&mut hello[..1]) {
                    Ok(1) => seen.push(hello[0]),
                    _ => return,
                }
            }
            assert_eq!(seen, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
            peer.raw(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n");
            while let Some(request) = peer.receive() {
                match request.member.as_str() {
                    "Hello" | "AddMatch" => peer.reply(&request, None),
                    member => {
                        noted.lock().unwrap().push(member.to_string());
                        answer(&peer, &request);
                    }
                }
            }
        })
    }

    /// One that gets nothing but the connection.
    pub fn raw(bundle: &Bundle, serve: impl Fn(Peer) + Send + Sync + 'static) -> FakeBus {
        FakeBus::raw_with(bundle, Arc::default(), serve)
    }

    fn raw_with(
        bundle: &Bundle,
        calls: Arc<Mutex<Vec<String>>>,
        serve: impl Fn(Peer) + Send + Sync + 'static,
    ) -> FakeBus {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = bundle.dir().join(format!("bus-{number}"));
        let listener = UnixListener::bind(&path).unwrap();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = serve.clone();
                thread::spawn(move || serve(Peer { stream }));
            }
        });
        FakeBus { path, calls }
    }

    /// For `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.path.display())
    }

    /// The calls so far, without those to the bus itself.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What systemd does for a scope in the root slice: its cgroup in the hierarchies it keeps, with the
/// process in it.
pub fn make_scope(unit: &str, pid: i32) {
    for root in systemd_roots() {
        std::fs::create_dir_all(root.join(unit)).unwrap();
        std::fs::write(root.join(unit).join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

/// And when it ends.
pub fn remove_scope(unit: &str) {
    for root in systemd_roots() {
        let _ = std::fs::remove_dir(root.join(unit));
    }
}

fn systemd_roots() -> Vec<PathBuf> {
    if host::is_v2() {
        return vec![host::CGROUP_ROOT.into()];
    }
    let unified =
        host::hierarchies().into_iter().filter(|root| root.join("cgroup.controllers").exists());
    host::v1_dir("name=systemd").into_iter().chain(unified).collect()
}
