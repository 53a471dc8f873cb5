//! D-Bus messages as bytes (D-Bus specification, "Message Protocol"). Pure.
//!
//! Only what a client of systemd's manager needs: calls with texts, booleans, numbers and lists of
//! them, in this machine's byte order; of what comes in, the header, and bodies that are texts.

/// What a property or an argument can be; each has one D-Bus type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `t`
    U64(u64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `au`
    U32s(Vec<u32>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
    /// `a(st)`
    Numbers(Vec<(String, u64)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Bytes(_) => "ay",
            Self::U32s(_) => "au",
            Self::Pairs(_) => "a(ss)",
            Self::Numbers(_) => "a(st)",
        }
    }
}

/// Bytes in the making; alignment counts from their start.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_ne_bytes());
    }

    fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    /// Appends a text.
    pub fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// Appends a boolean.
    pub fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    fn signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// An array: its length in bytes, the padding of its first element (not counted), the elements.
    fn array<T>(&mut self, align: usize, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        for item in items {
            self.align(align);
            write(self, item);
        }
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::I32(value) => self.u32(value.cast_unsigned()),
            Value::U64(value) => self.u64(*value),
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, texts, |out, text| out.text(text)),
            Value::Bytes(bytes) => self.array(1, bytes, |out, byte| out.bytes.push(*byte)),
            Value::U32s(numbers) => self.numbers(numbers),
            Value::Pairs(pairs) => self.array(8, pairs, |out, (a, b)| {
                out.text(a);
                out.text(b);
            }),
            Value::Numbers(pairs) => self.array(8, pairs, |out, (text, number)| {
                out.text(text);
                out.u64(*number);
            }),
        }
    }

    /// Appends `a(sv)`.
    pub fn properties(&mut self, properties: &[super::Property]) {
        self.array(8, properties, |out, property| {
            out.text(&property.name);
            out.variant(&property.value);
        });
    }

    /// Appends `au`.
    pub fn numbers(&mut self, numbers: &[u32]) {
        self.array(4, numbers, |out, number| out.u32(*number));
    }

    /// Appends `a(sa(sv))` without elements: no further units.
    pub fn nothing(&mut self) {
        self.array::<()>(8, &[], |_, ()| {});
    }
}

/// A method call to be sent.
#[derive(Debug)]
pub struct Call<'a> {
    /// Who shall answer; none on a connection without a bus in between.
    pub destination: Option<&'a str>,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// The types of the body.
    pub signature: &'a str,
    /// The body.
    pub body: Writer,
}

// Header fields (D-Bus specification, "Header Fields").
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// This machine's byte order, as the first byte of a message says it.
const ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

/// Bytes of a header before its fields' content.
pub const FIXED: usize = 16;

/// The bytes of a call.
pub fn encode(call: &Call<'_>, serial: u32) -> Vec<u8> {
    let mut out = Writer { bytes: vec![ORDER, 1, 0, 1] };
    out.length(call.body.bytes.len());
    out.u32(serial);
    let mut fields =
        vec![(PATH, "o", call.path), (INTERFACE, "s", call.interface), (MEMBER, "s", call.member)];
    fields.extend(call.destination.map(|name| (DESTINATION, "s", name)));
    fields.push((SIGNATURE, "g", call.signature));
    fields.retain(|(_, _, value)| !value.is_empty());
    out.array(8, &fields, |out, (code, signature, value)| {
        out.bytes.push(*code);
        out.signature(signature);
        if *signature == "g" { out.signature(value) } else { out.text(value) }
    });
    out.align(8);
    out.bytes.extend(&call.body.bytes);
    out.bytes
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The answer to a call.
    Return,
    /// The refusal of a call.
    Error,
    /// Something happened.
    Signal,
    /// Anything else.
    Other,
}

/// A message that came in.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Which call it answers.
    pub reply_to: u32,
    /// The method or signal.
    pub member: String,
    /// The error's name.
    pub error: String,
    /// The texts and object paths of the body; numbers are left out.
    pub texts: Vec<String>,
}

/// How long the message is that begins with these 16 bytes; `None` when it is none of ours.
pub fn length(fixed: &[u8; FIXED], limit: usize) -> Option<usize> {
    let number = |at: usize| {
        let bytes: [u8; 4] = fixed.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    if fixed[0] != ORDER || fixed[3] != 1 {
        return None;
    }
    let header = number(12)?.checked_add(FIXED)?.checked_next_multiple_of(8)?;
    header.checked_add(number(4)?).filter(|length| *length <= limit)
}

/// Reads a whole message; `None` when it is malformed.
pub fn decode(bytes: &[u8]) -> Option<Message> {
    let mut header = Reader { bytes, at: 4 };
    let body_length = usize::try_from(header.u32()?).ok()?;
    header.u32()?;
    let fields_end = usize::try_from(header.u32()?).ok()?.checked_add(FIXED)?;
    let mut message = Message {
        kind: match bytes.get(1)? {
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        },
        reply_to: 0,
        member: String::new(),
        error: String::new(),
        texts: Vec::new(),
    };
    let mut signature = String::new();
    while header.at < fields_end {
        header.align(8);
        let code = header.u8()?;
        match (code, header.signature()?.as_str()) {
            (REPLY_SERIAL, "u") => message.reply_to = header.u32()?,
            (SIGNATURE, "g") => signature = header.signature()?,
            (MEMBER, "s") => message.member = header.text()?,
            (ERROR_NAME, "s") => message.error = header.text()?,
            (_, "s" | "o") => drop(header.text()?),
            (_, "g") => drop(header.signature()?),
            (_, "u") => drop(header.u32()?),
            _ => return None,
        }
    }
    let body_at = fields_end.next_multiple_of(8);
    if body_at.checked_add(body_length)? != bytes.len() {
        return None;
    }
    let mut body = Reader { bytes: bytes.get(body_at..)?, at: 0 };
    for one in signature.chars() {
        match one {
            's' | 'o' => message.texts.push(body.text()?),
            'u' | 'i' | 'b' => drop(body.u32()?),
            // What follows is of no interest here.
            _ => break,
        }
    }
    Some(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// Bytes of a text, then its NUL.
    fn string(&mut self, length: usize) -> Option<String> {
        let bytes = self.take(length.checked_add(1)?)?;
        let (end, text) = bytes.split_last()?;
        if *end != 0 {
            return None;
        }
        String::from_utf8(text.to_vec()).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.string(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.u8()?);
        self.string(length)
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::expect_used, clippy::let_underscore_must_use, clippy::unwrap_used)]
mod tests {
    use super::super::Property;
    use super::*;

    fn property(name: &str, value: Value) -> Property {
        Property { name: name.to_owned(), value, at: String::new() }
    }

    /// The bytes that the specification's rules give, worked out by hand.
    #[test]
    #[cfg(target_endian = "little")]
    fn dbus_bytes_of_a_call_are_fixed() {
        let mut body = Writer::default();
        body.text("x");
        let call = Call {
            destination: Some("d.e"),
            path: "/p",
            interface: "i.j",
            member: "M",
            signature: "s",
            body,
        };
        let mut wanted: Vec<u8> = b"l\x01\x00\x01\x06\0\0\0\x07\0\0\0\x47\0\0\0".to_vec();
        wanted.extend(b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0");
        wanted.extend(b"\x02\x01s\0\x03\0\0\0i.j\0\0\0\0\0");
        wanted.extend(b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0");
        wanted.extend(b"\x06\x01s\0\x03\0\0\0d.e\0\0\0\0\0");
        wanted.extend(b"\x08\x01g\0\x01s\0\0");
        wanted.extend(b"\x01\0\0\0x\0");
        // The fields end at 16 + 0x47; the body starts at the next multiple of 8.
        let got = encode(&call, 7);
        assert_eq!(got, wanted);
        assert_eq!(length(got[..16].try_into().expect("16"), 1 << 20), Some(got.len()));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn dbus_bytes_of_every_value_are_fixed() {
        let bytes = |value: Value| {
            let mut out = Writer::default();
            out.variant(&value);
            out.bytes
        };
        assert_eq!(bytes(Value::Bool(true)), b"\x01b\0\0\x01\0\0\0");
        assert_eq!(bytes(Value::I32(-1)), b"\x01i\0\0\xff\xff\xff\xff");
        assert_eq!(bytes(Value::U64(3)), b"\x01t\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        assert_eq!(bytes(Value::Text("ab".into())), b"\x01s\0\0\x02\0\0\0ab\0");
        assert_eq!(
            bytes(Value::Texts(vec!["a".into(), "b".into()])),
            b"\x02as\0\x0e\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0"
        );
        assert_eq!(bytes(Value::Bytes(vec![5, 6])), b"\x02ay\0\x02\0\0\0\x05\x06");
        assert_eq!(bytes(Value::U32s(vec![9])), b"\x02au\0\x04\0\0\0\x09\0\0\0");
        // An element of 8 bytes' alignment: the padding before the first one does not count.
        assert_eq!(
            bytes(Value::Pairs(vec![("a".into(), "b".into())])),
            b"\x05a(ss)\0\0\x0e\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0"
        );
        assert_eq!(
            bytes(Value::Numbers(vec![("a".into(), 1)])),
            b"\x05a(st)\0\0\x10\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn dbus_what_is_written_is_read() {
        let mut body = Writer::default();
        body.text("unit");
        body.bool(true);
        body.properties(&[property("A", Value::U64(1)), property("B", Value::Bool(false))]);
        let call = Call {
            destination: None,
            path: "/p",
            interface: "i.j",
            member: "Member",
            signature: "sba(sv)",
            body,
        };
        let message = decode(&encode(&call, 1)).expect("a message");
        assert_eq!(message.member, "Member");
        assert_eq!(message.texts, ["unit"]);
    }

    /// Every prefix and every flipped byte of a message: refused or read, never a panic.
    #[test]
    fn dbus_garbage_is_refused() {
        let mut body = Writer::default();
        body.text("unit");
        let call = Call {
            destination: Some("d.e"),
            path: "/p",
            interface: "i.j",
            member: "M",
            signature: "s",
            body,
        };
        let good = encode(&call, 1);
        for end in 0..good.len() {
            assert_eq!(decode(&good[..end]), None, "{end}");
        }
        for at in 0..good.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let _ = decode(&bad);
                let fixed = bad[..16].try_into().expect("16");
                assert!(length(fixed, 1 << 20).is_none_or(|length| length <= 1 << 20));
            }
        }
    }
}
