//! Device rules: what the config's list means, and as writes to the v1 files.

use std::collections::BTreeSet;
use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::plan::{Options, Write};
use crate::error::{At, Code, Findings};

/// Which accesses a rule is about; the bits are those of the BPF context (`BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(pub u8);

impl Access {
    /// mknod(2).
    pub const MKNOD: Self = Self(1);
    /// Opening for reading.
    pub const READ: Self = Self(2);
    /// Opening for writing.
    pub const WRITE: Self = Self(4);
    /// All three.
    pub const ALL: Self = Self(7);

    fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match letter {
                'm' => Self::MKNOD.0,
                'r' => Self::READ.0,
                'w' => Self::WRITE.0,
                _ => return None,
            };
        }
        (bits != 0).then_some(Self(bits))
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            f.write_str(if self.0 & bit.0 != 0 { letter } else { "" })?;
        }
        Ok(())
    }
}

/// Which devices a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// One rule. For each access the last rule that matches decides; `None` matches every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Block, character or both.
    pub kind: DeviceKind,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// The accesses.
    pub access: Access,
}

impl DeviceRule {
    const fn new(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { allow: true, kind, major, minor, access }
    }

    /// Whether it is about every access to every device.
    pub(super) fn is_everything(&self) -> bool {
        self.kind == DeviceKind::All
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == Access::ALL
    }

    /// Whether every device of `other` is one of ours.
    fn covers(&self, other: &Self) -> bool {
        let number = |ours: Option<u32>, theirs: Option<u32>| ours.is_none() || ours == theirs;
        (self.kind == DeviceKind::All || self.kind == other.kind)
            && number(self.major, other.major)
            && number(self.minor, other.minor)
    }

    /// Whether nothing is left for `other`, an earlier rule, to decide.
    pub(super) fn decides_all_of(&self, other: &Self) -> bool {
        self.covers(other) && other.access.0 & !self.access.0 == 0
    }

    /// Whether some device is both of `other` and ours.
    fn meets(&self, other: &Self) -> bool {
        let number = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        (self.kind == other.kind || self.kind == DeviceKind::All || other.kind == DeviceKind::All)
            && number(self.major, other.major)
            && number(self.minor, other.minor)
    }
}

impl fmt::Display for DeviceRule {
    /// `allow c 1:3 rwm`; without the first word it is what the v1 files take.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |one| one.to_string());
        let kind = match self.kind {
            DeviceKind::All => "a",
            DeviceKind::Block => "b",
            DeviceKind::Char => "c",
        };
        let (major, minor) = (number(self.major), number(self.minor));
        if !f.alternate() {
            f.write_str(if self.allow { "allow " } else { "deny " })?;
        }
        write!(f, "{kind} {major}:{minor} {}", self.access)
    }
}

/// Devices every container may use: spec, "Default Devices", and the terminals behind `/dev/pts`.
const DEFAULT: [DeviceRule; 9] = [
    character(1, Some(3)), // null
    character(1, Some(5)), // zero
    character(1, Some(7)), // full
    character(1, Some(8)), // random
    character(1, Some(9)), // urandom
    character(5, Some(0)), // tty
    character(5, Some(1)), // console
    character(5, Some(2)), // ptmx
    character(136, None),  // pts/*
];

/// See [`Options::no_mknod`].
const ANY_MKNOD: [DeviceRule; 2] = [
    DeviceRule::new(DeviceKind::Char, None, None, Access::MKNOD),
    DeviceRule::new(DeviceKind::Block, None, None, Access::MKNOD),
];

const fn character(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule::new(DeviceKind::Char, Some(major), minor, Access::ALL)
}

/// Why [`v1_writes`] fails.
pub(super) const V1_CANNOT: &str =
    "takes away a part of an earlier, wider rule: cgroup v1 cannot express that";

/// A rule and the JSON pointer it comes from.
pub(super) type RuleAt = (DeviceRule, At);

/// All rules of a container in order: deny everything, the config's list, then what every container
/// may use. The last part cannot be denied by the config; runc and crun do the same, and engines'
/// lists count on it.
pub(super) fn rules(
    config: &[LinuxDeviceCgroup],
    options: &Options,
    findings: &mut Findings,
) -> Vec<RuleAt> {
    const AT: &str = "/linux/resources/devices";
    let deny =
        DeviceRule { allow: false, ..DeviceRule::new(DeviceKind::All, None, None, Access::ALL) };
    let mut rules = vec![(deny, At::of(AT))];
    for (index, rule) in config.iter().enumerate() {
        let at = At::item(AT, index);
        match read_rule(rule) {
            Ok(rule) => rules.push((rule, at)),
            Err((leaf, text)) => findings.problem(Code::E_DEVICE_RULE, at.leaf(leaf), text),
        }
    }
    let mknod = if options.no_mknod { &[][..] } else { &ANY_MKNOD };
    rules.extend(DEFAULT.iter().chain(mknod).map(|rule| (*rule, At::of(AT))));
    rules
}

fn read_rule(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, (&'static str, String)> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => DeviceKind::All,
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        Some(LinuxDeviceType::C) => DeviceKind::Char,
        Some(other) => {
            return Err(("/type", format!("\"{}\" is none of a, b, c", other.as_str())));
        }
    };
    // Numbers the kernel's dev_t (12 + 20 bits) cannot hold would make a rule that never matches.
    let number = |number: Option<i64>, max: u32, leaf| match number {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) if number <= max => Ok(Some(number)),
            _ => Err((leaf, format!("{number} is not -1 or from 0 to {max}"))),
        },
    };
    let major = number(rule.major(), 0xfff, "/major")?;
    let minor = number(rule.minor(), 0xf_ffff, "/minor")?;
    // Absent means all, as with the other members. Empty is a mistake: runc refuses it, too.
    let access = match rule.access() {
        None => Access::ALL,
        Some(text) => Access::parse(text)
            .ok_or_else(|| ("/access", format!("{text:?} is not made of r, w and m")))?,
    };
    Ok(DeviceRule { allow: rule.allow(), kind, major, minor, access })
}

/// The same rules for v1, where the kernel does not keep order: it has one default and a set of
/// exceptions to it, and silently ignores the removal of a part of an exception. So the set is worked
/// out here. `Err`: the pointer of a rule that no set expresses.
pub(super) fn v1_writes(rules: &[RuleAt]) -> Result<Vec<Write>, At> {
    let (default, exceptions) = exceptions(rules, true)?;
    let (reset, file) =
        if default { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
    let mut writes = vec![Write::new("devices", reset, "a", "/linux/resources/devices")];
    let mut seen = BTreeSet::new();
    for (rule, at) in &exceptions {
        let value = format!("{rule:#}");
        if seen.insert(value.clone()) {
            writes.push(Write::new("devices", file, value, &at.to_string()));
        }
    }
    Ok(writes)
}

/// The same rules as a list of what is allowed, for systemd: whether everything is, or else which
/// devices of one kind each. It may hold more than the rules allow, never less.
pub(super) fn allowed(rules: &[DeviceRule]) -> (bool, Vec<DeviceRule>) {
    // systemd knows no rule with a minor number alone.
    let narrow = |rule: &DeviceRule| rule.major.is_none() && rule.minor.is_some();
    let rules: Vec<RuleAt> = rules
        .iter()
        .filter(|rule| rule.allow || !narrow(rule))
        .map(|rule| if narrow(rule) { DeviceRule { minor: None, ..*rule } } else { *rule })
        .map(|rule| (rule, At::of("")))
        .collect();
    match exceptions(&rules, false) {
        Ok((false, exceptions)) => (false, exceptions.into_iter().map(|(rule, _)| rule).collect()),
        _ => (true, Vec::new()),
    }
}

/// The default and the exceptions to it. What no exceptions express is an error if they are to be
/// exact, and else left out where it narrows them.
fn exceptions(rules: &[RuleAt], exact: bool) -> Result<(bool, Vec<RuleAt>), At> {
    let mut default = false;
    let mut exceptions: Vec<RuleAt> = Vec::new();
    for (rule, at) in rules {
        if rule.is_everything() {
            default = rule.allow;
            exceptions.clear();
            continue;
        }
        // "a" in the files always means everything, so a narrower rule is written for each kind.
        let kinds: &[DeviceKind] = match rule.kind {
            DeviceKind::All => &[DeviceKind::Block, DeviceKind::Char],
            DeviceKind::Block => &[DeviceKind::Block],
            DeviceKind::Char => &[DeviceKind::Char],
        };
        for kind in kinds {
            let rule = DeviceRule { kind: *kind, ..*rule };
            if rule.allow == default {
                remove_exception(&mut exceptions, &rule, exact.then_some(*at))?;
            } else {
                add_exception(&mut exceptions, rule, *at);
            }
        }
    }
    Ok((default, exceptions))
}

/// The kernel wants one exception to hold all bits of an access, so the bits of wider exceptions are
/// added to the narrower ones (`c 1:* r` and `c 1:3 w` must allow opening 1:3 for both). mknod(2) is
/// an access of its own, so its bit stays where the config has it.
fn add_exception(exceptions: &mut Vec<RuleAt>, mut rule: DeviceRule, at: At) {
    const OPENING: u8 = Access::READ.0 | Access::WRITE.0;
    for (other, _) in exceptions.iter_mut() {
        let same = other.covers(&rule) && rule.covers(other);
        let bits = if same { Access::ALL.0 } else { OPENING };
        if rule.covers(other) && (same || other.access.0 & OPENING != 0) {
            other.access.0 |= rule.access.0 & bits;
        }
        if other.covers(&rule) && rule.access.0 & OPENING != 0 {
            rule.access.0 |= other.access.0 & bits;
        }
    }
    let same = |other: &DeviceRule| other.covers(&rule) && rule.covers(other);
    if !exceptions.iter().any(|(other, _)| same(other)) {
        exceptions.push((rule, at));
    }
}

fn remove_exception(
    exceptions: &mut Vec<RuleAt>,
    rule: &DeviceRule,
    exact: Option<At>,
) -> Result<(), At> {
    for (other, _) in exceptions.iter_mut() {
        if other.access.0 & rule.access.0 == 0 {
            continue;
        }
        if rule.covers(other) {
            other.access.0 &= !rule.access.0;
        } else if let (true, Some(at)) = (rule.meets(other), exact) {
            return Err(at);
        }
    }
    exceptions.retain(|(other, _)| other.access.0 != 0);
    Ok(())
}
