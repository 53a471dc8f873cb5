//! What is wrong with a document whatever it is about: no JSON, duplicate names, too much of it, and
//! lists where the spec has objects.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::not_json;
use crate::error::{Code, Findings, Result};

/// Most members and items in the whole document.
const MAX_ENTRIES: usize = 100_000;

/// Rejects what no field of the spec can mean: wrong syntax, trailing text, duplicate names, too deep
/// (128, by `serde_json`) or too many entries. Costs some tens of microseconds and nothing of the heap.
/// False when there is a list where an object belongs.
pub fn scan(bytes: &[u8]) -> Result<bool> {
    let mut seen = Seen { entries: 0, odd: false };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Strict { seen: &mut seen, expected: Expected::Object }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(not_json)?;
    Ok(!seen.odd)
}

/// Walks a document without keeping it.
struct Strict<'a> {
    seen: &'a mut Seen,
    expected: Expected,
}

struct Seen {
    entries: usize,
    /// There was a list where an object belongs.
    odd: bool,
}

/// What a member of the spec has to be. Serde takes a list for a struct, its items for the members in
/// the order of their declaration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Object,
    /// A list without lists in it.
    Items,
    /// An object of objects, under names of the author's.
    Members,
    /// Serde knows, or nobody does.
    Any,
}

fn expected(name: &str) -> Expected {
    match name {
        "root" | "process" | "user" | "consoleSize" | "capabilities" | "scheduler"
        | "ioPriority" | "execCPUAffinity" | "hooks" | "linux" | "resources" | "memory" | "cpu"
        | "pids" | "blockIO" | "network" | "seccomp" | "intelRdt" | "personality"
        | "memoryPolicy" => Expected::Object,
        "timeOffsets" | "netDevices" | "rdma" => Expected::Members,
        "mounts"
        | "rlimits"
        | "prestart"
        | "createRuntime"
        | "createContainer"
        | "startContainer"
        | "poststart"
        | "poststop"
        | "namespaces"
        | "devices"
        | "uidMappings"
        | "gidMappings"
        | "hugepageLimits"
        | "priorities"
        | "weightDevice"
        | "throttleReadBpsDevice"
        | "throttleWriteBpsDevice"
        | "throttleReadIOPSDevice"
        | "throttleWriteIOPSDevice"
        | "syscalls"
        | "args" => Expected::Items,
        _ => Expected::Any,
    }
}

impl Expected {
    /// Of a member of this.
    fn member(self, name: &str) -> Self {
        match self {
            Self::Object => expected(name),
            Self::Members => Self::Object,
            _ => Self::Any,
        }
    }

    /// Of an item of this.
    fn item(self) -> Self {
        if self == Self::Items { Self::Object } else { Self::Any }
    }
}

/// Takes out every list that stands where an object belongs, as a problem.
pub fn no_lists_for_objects(value: &mut Value, findings: &mut Findings) {
    replace_lists(value, Expected::Object, "", findings);
}

fn replace_lists(value: &mut Value, wanted: Expected, pointer: &str, findings: &mut Findings) {
    match value {
        Value::Array(_) if wanted == Expected::Object => {
            let text = "invalid type: sequence, expected an object";
            findings.problem(Code::E_TYPE, pointer, text);
            *value = Value::Null;
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let at = format!("{pointer}/{index}");
                replace_lists(item, wanted.item(), &at, findings);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let at = format!("{pointer}/{}", crate::error::escape(name));
                replace_lists(member, wanted.member(name), &at, findings);
            }
        }
        _ => {}
    }
}

impl Strict<'_> {
    fn count<E: serde::de::Error>(&mut self) -> std::result::Result<(), E> {
        self.seen.entries += 1;
        if self.seen.entries > MAX_ENTRIES {
            return Err(E::custom(format_args!("more than {MAX_ENTRIES} entries")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> std::result::Result<(), A::Error> {
        self.seen.odd |= self.expected == Expected::Object;
        let expected = self.expected.item();
        while seq.next_element_seed(Strict { seen: self.seen, expected })?.is_some() {
            self.count()?;
        }
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<(), A::Error> {
        let mut seen = std::collections::BTreeSet::<std::borrow::Cow<'de, str>>::new();
        while let Some(Name(name)) = map.next_key()? {
            self.count()?;
            if seen.contains(&name) {
                return Err(serde::de::Error::custom(format_args!(
                    "duplicate member `{}`",
                    name.escape_debug()
                )));
            }
            let expected = self.expected.member(&name);
            seen.insert(name);
            map.next_value_seed(Strict { seen: self.seen, expected })?;
        }
        Ok(())
    }
}

/// A member name, borrowed where it has no escapes.
struct Name<'de>(std::borrow::Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(Name(name.into()))
            }
            fn visit_str<E>(self, name: &str) -> std::result::Result<Self::Value, E> {
                Ok(Name(name.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Visit)
    }
}
