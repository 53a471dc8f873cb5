//! Changes JSON documents at random but repeatably: for the fuzz target and for the unit tests.

use serde_json::{Map, Value, json};

/// xorshift64*: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From 0 to `limit` - 1; 0 of nothing.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }
}

/// Texts at which parsers of paths, numbers, lists and names have gone wrong.
const TEXTS: &[&str] = &[
    "",
    "/",
    ".",
    "..",
    "/..",
    "//",
    "/proc",
    "/proc/self/fd/7",
    "a\0b",
    "\n",
    "\u{202e}",
    "é",
    "-",
    "--",
    "-1",
    "0",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "0-",
    "0-4095",
    "0,0",
    "1-0",
    ":",
    "::",
    "a:b",
    "=",
    "%d",
    "%d%d",
    "%s",
    "bind",
    "rbind",
    "remount",
    "ro",
    "rro",
    "idmap",
    "ridmap",
    "size=x",
    "tmpcopyup",
    "tmpfs",
    "proc",
    "cgroup",
    "max",
    "2MB",
    "0KB",
    "net.ipv4.ip_forward",
    "kernel/../x",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_ERRNO",
    "CAP_SYS_ADMIN",
    "RLIMIT_NOFILE",
    "1.99.0",
    "user",
    "mount",
    "MB:0=10;1=70",
    "L3:0=f",
];

fn number(random: &mut Random) -> Value {
    let power = 1i128 << random.below(65);
    let around = power - 1 + random.below(3) as i128;
    let value = if random.below(3) == 0 { -around } else { around };
    match (u64::try_from(value), i64::try_from(value)) {
        (Ok(value), _) => json!(value),
        (_, Ok(value)) => json!(value),
        _ => json!(value as f64),
    }
}

fn fresh(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2 | 3 => number(random),
        4 => json!([]),
        5 => json!({}),
        6 => json!("x".repeat(1 << random.below(14))),
        _ => json!(TEXTS[random.below(TEXTS.len())]),
    }
}

/// How many values there are in a document, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// The `index`-th value of a document, depth first.
fn nth<'a>(value: &'a mut Value, index: &mut usize) -> Option<&'a mut Value> {
    if *index == 0 {
        return Some(value);
    }
    *index -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, index)),
        Value::Object(members) => members.values_mut().find_map(|member| nth(member, index)),
        _ => None,
    }
}

/// A value of the same type, mostly: a document whose types are wrong does not get past the parser.
fn alike(value: &Value, random: &mut Random) -> Value {
    match value {
        _ if random.below(16) == 0 => fresh(random),
        Value::Bool(value) => json!(!value),
        Value::Number(_) if random.below(2) == 0 => json!(random.below(5)),
        Value::Number(_) => number(random),
        Value::String(text) if random.below(4) == 0 => {
            json!(format!("{text}{}", TEXTS[random.below(TEXTS.len())]))
        }
        Value::String(_) => json!(TEXTS[random.below(TEXTS.len())]),
        other => other.clone(),
    }
}

/// One change: another value, one less, one twice, one from elsewhere in the document.
pub fn change(document: &mut Value, random: &mut Random) {
    let size = count(document);
    let elsewhere = nth(document, &mut random.below(size)).cloned().unwrap_or_default();
    let Some(place) = nth(document, &mut random.below(size)) else { return };
    let same = std::mem::discriminant(place) == std::mem::discriminant(&elsewhere);
    match (place, random.below(8)) {
        (Value::Array(items), 0 | 1) if !items.is_empty() => {
            let at = random.below(items.len());
            items.remove(at);
        }
        (Value::Array(items), 2 | 3) if !items.is_empty() => {
            let at = random.below(items.len());
            for _ in 0..=random.below(40) {
                items.push(alike(&items[at].clone(), random));
            }
        }
        (Value::Array(items), 4) if !items.is_empty() => {
            let (one, other) = (random.below(items.len()), random.below(items.len()));
            items.swap(one, other);
        }
        (Value::Object(members), 0) if !members.is_empty() => drop(take(members, random)),
        (Value::Object(members), 1) => {
            members.insert(TEXTS[random.below(TEXTS.len())].to_owned(), fresh(random));
        }
        (place, 2) if same => *place = elsewhere,
        (place, _) => *place = alike(place, random),
    }
}

fn take(members: &mut Map<String, Value>, random: &mut Random) -> Option<String> {
    let key = members.keys().nth(random.below(members.len())).cloned()?;
    members.remove(&key);
    Some(key)
}
