//! From a policy to verdicts: what happens to every syscall number of every ABI.
//!
//! For one number, libseccomp's order holds: the first unconditional rule beats
//! everything else; without one, the conditional rules are tried in the order of
//! the profile, and what none of them matches gets the default.

use super::abi::{self, Abi};
use super::profile::{Condition, Policy, Test};

const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// What libseccomp answers to architectures (and to x32) that are not listed.
pub(super) const BAD_ARCH: u32 = libc::SECCOMP_RET_KILL_THREAD;

/// All numbers of one `AUDIT_ARCH` value.
pub(super) struct Section {
    pub audit: u32,
    /// Ascending; each range goes on until the next, the first starts at 0.
    pub ranges: Vec<Range>,
}

/// A run of numbers with the same verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub start: u32,
    pub verdict: Verdict,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Return(u32),
    Check(Checks),
}

/// Conditional rules for one number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Checks {
    /// Whether the high words of arguments count.
    pub wide: bool,
    /// Tried in order; all conditions of one entry must hold.
    pub rules: Vec<(u32, Vec<Condition>)>,
    pub otherwise: u32,
}

/// The sections of a filter, the native one first.
pub(super) fn sections(policy: &Policy) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for abi in &policy.abis {
        if sections.iter().any(|s| s.audit == abi.audit) {
            continue;
        }
        let mut ranges = Vec::new();
        if abi.audit == abi::X86_64.audit {
            x86_64_and_x32(policy, &mut ranges);
        } else {
            abi_ranges(policy, abi, &mut ranges);
        }
        sections.push(Section { audit: abi.audit, ranges });
    }
    sections
}

/// Whether a call of the native ABI is allowed without conditions.
pub(super) fn allows(sections: &[Section], call: libc::c_long) -> bool {
    let Some(native) = abi::native() else { return false };
    let Ok(number) = u32::try_from(call) else { return false };
    let section = sections.iter().find(|section| section.audit == native.audit);
    let range =
        section.and_then(|section| section.ranges.iter().rev().find(|range| range.start <= number));
    range.is_some_and(|range| range.verdict == Verdict::Return(libc::SECCOMP_RET_ALLOW))
}

/// x86_64 and x32 share an `AUDIT_ARCH` value and are told apart by one bit.
fn x86_64_and_x32(policy: &Policy, ranges: &mut Vec<Range>) {
    if policy.abis.contains(&&abi::X86_64) {
        abi_ranges(policy, &abi::X86_64, ranges);
    } else {
        push(ranges, 0, Verdict::Return(BAD_ARCH));
    }
    if policy.abis.contains(&&abi::X32) {
        abi_ranges(policy, &abi::X32, ranges);
    } else {
        push(ranges, abi::X32_BIT, Verdict::Return(BAD_ARCH));
        // A tracer sets -1 to skip a call. It is no x32 call, although it has the
        // bit, and libseccomp gives it x86_64's default.
        push(ranges, u32::MAX, Verdict::Return(policy.default));
    }
}

/// One rule for one number.
struct Entry {
    number: u32,
    action: u32,
    conditions: Vec<Condition>,
}

fn abi_ranges(policy: &Policy, abi: &Abi, ranges: &mut Vec<Range>) {
    let (mut entries, newest) = entries(policy, abi);
    // Stable: rules for one number stay in the order of the profile.
    entries.sort_by_key(|e| e.number);
    push(ranges, abi.base, Verdict::Return(policy.default));
    for group in entries.chunk_by_mut(|a, b| a.number == b.number) {
        let Some(number) = group.first().map(|e| e.number) else { continue };
        push(ranges, number, verdict(policy, abi, group));
        if number < abi.last {
            push(ranges, number + 1, Verdict::Return(policy.default));
        }
    }
    if let Some(newest) = newest.filter(|&n| policy.newer_enosys && n < abi.last) {
        push(ranges, newest + 1, Verdict::Return(ENOSYS));
    }
}

/// The rules of the profile for this ABI, and the largest number it names.
fn entries(policy: &Policy, abi: &Abi) -> (Vec<Entry>, Option<u32>) {
    let mut entries = Vec::with_capacity(512);
    let mut newest = None;
    for rule in &policy.rules {
        for row in &rule.rows {
            let number = row.number(abi.column).map(|n| n + abi.base);
            let multiplexer = if abi.multiplexed { abi::multiplexer(row.name()) } else { None };
            newest = newest.max(number).max(multiplexer.map(|(number, _)| number));
            for conditions in &rule.alternatives {
                if let Some((number, call)) = multiplexer {
                    let conditions = multiplexed(conditions, call, abi.wide);
                    entries.push(Entry { number, action: rule.action, conditions });
                }
                if let Some(number) = number {
                    let conditions = effective(conditions, abi.wide);
                    entries.push(Entry { number, action: rule.action, conditions });
                }
            }
        }
    }
    (entries, newest)
}

/// Conditions as the ABI sees them: without high words on 32-bit ABIs, and
/// without those that always hold.
fn effective(conditions: &[Condition], wide: bool) -> Vec<Condition> {
    let seen = if wide { u64::MAX } else { u64::from(u32::MAX) };
    conditions
        .iter()
        .map(|c| Condition { mask: c.mask & seen, operand: c.operand & seen, ..*c })
        .filter(|c| c.mask != 0)
        .collect()
}

/// The conditions of a call that comes through `socketcall` or `ipc`.
///
/// The first argument says which call it is, so a condition on it is lost; the
/// others hold a pointer or other values than those of the direct call. A filter
/// cannot look behind the pointer. We keep what libseccomp makes of it: profiles
/// that need to be strict must not allow the multiplexers.
fn multiplexed(conditions: &[Condition], call: u32, wide: bool) -> Vec<Condition> {
    let mut result = effective(conditions, wide);
    result.retain(|c| c.arg != 0);
    let operand = u64::from(call);
    let mask = u64::from(u32::MAX);
    result.insert(0, Condition { arg: 0, test: Test::Equal, mask, operand, negate: false });
    result
}

/// The verdict for one number from all its rules.
fn verdict(policy: &Policy, abi: &Abi, group: &mut [Entry]) -> Verdict {
    if let Some(rule) = group.iter().find(|e| e.conditions.is_empty()) {
        return Verdict::Return(rule.action);
    }
    let mut rules: Vec<(u32, Vec<Condition>)> = Vec::with_capacity(group.len());
    for entry in group {
        let rule = (entry.action, std::mem::take(&mut entry.conditions));
        // Profiles are put together from parts, and parts repeat each other. One
        // that is too long anyway is not worth comparing.
        if rules.len() >= super::MAX_INSTRUCTIONS || !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Verdict::Check(Checks { wide: abi.wide, rules, otherwise: policy.default })
}

/// Appends a range, or extends the last one, or replaces an empty last one.
fn push(ranges: &mut Vec<Range>, start: u32, verdict: Verdict) {
    if ranges.last().is_some_and(|r| r.start == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|r| r.verdict != verdict) {
        ranges.push(Range { start, verdict });
    }
}
