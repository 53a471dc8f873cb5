//! From verdicts to instructions.
//!
//! Jumps in classic BPF go forward only, so the program is written from its end:
//! when a jump is written its targets already stand, and their distance is known.
//!
//! Per architecture the ranges become a balanced tree of comparisons, so that a
//! call costs about log2(ranges) instructions wherever its number lies. That also
//! decides the load time: the kernel runs the filter once per syscall number to
//! find those that are always allowed.

use super::profile::{Condition, Test};
use super::verdicts::{BAD_ARCH, Checks, Range, Section, Verdict};
use libc::sock_filter;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const GREATER_OR_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// How far a target may lie behind for a conditional jump, whose offsets have
/// eight bits; two less because the jump's other target may need a trampoline.
const REACH: usize = 253;

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Return(u32),
    /// The instruction that was written as the n-th, counted from the end.
    At(usize),
}

/// The program of these sections; the first one is found fastest.
pub(super) fn program(sections: &[Section]) -> Vec<sock_filter> {
    let mut code = Code::default();
    let mut entry = Target::Return(BAD_ARCH);
    let starts: Vec<Target> = sections.iter().map(|s| code.section(s)).collect();
    for (section, start) in sections.iter().zip(starts).rev() {
        entry = code.branch(EQUAL, section.audit, start, entry);
    }
    code.load(ARCH, entry);
    code.reversed.reverse();
    code.reversed
}

/// Whether the program can return this action.
pub(super) fn returns(program: &[sock_filter], action: u32) -> bool {
    program.iter().any(|i| i.code == RETURN && i.k & libc::SECCOMP_RET_ACTION_FULL == action)
}

/// A program under construction, last instruction first.
#[derive(Default)]
struct Code<'a> {
    reversed: Vec<sock_filter>,
    /// The newest copy of each return instruction.
    returns: Vec<(u32, usize)>,
    /// Argument checks already written; sections share equal ones.
    checks: Vec<(&'a Checks, Target)>,
}

impl<'a> Code<'a> {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> usize {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// How many instructions a jump would skip if it were written now.
    fn offset(&self, position: usize) -> usize {
        self.reversed.len() - 1 - position
    }

    /// The position of `target`, made reachable for a conditional jump.
    fn near(&mut self, target: Target) -> usize {
        match target {
            Target::At(position) if self.offset(position) > REACH => {
                let offset = self.offset(position);
                self.push(JUMP, 0, 0, offset as u32)
            }
            Target::At(position) => position,
            Target::Return(action) => self.near_return(action),
        }
    }

    /// Reuses a return that is in reach, else writes a copy: it is as short as a
    /// trampoline and saves the jump.
    fn near_return(&mut self, action: u32) -> usize {
        let known = self.returns.iter().position(|(a, _)| *a == action);
        match known.and_then(|i| self.returns.get(i)) {
            Some(&(_, position)) if self.offset(position) <= REACH => return position,
            _ => {}
        }
        let position = self.push(RETURN, 0, 0, action);
        match known.and_then(|i| self.returns.get_mut(i)) {
            Some(newest) => newest.1 = position,
            None => self.returns.push((action, position)),
        }
        position
    }

    /// A conditional jump. `near` keeps both offsets below 256.
    fn branch(&mut self, code: u16, operand: u32, yes: Target, no: Target) -> Target {
        let yes = self.near(yes);
        let no = self.near(no);
        let (yes, no) = (self.offset(yes), self.offset(no));
        Target::At(self.push(code, yes as u8, no as u8, operand))
    }

    /// Loads a word and goes on at `next`.
    fn load(&mut self, offset: u32, next: Target) -> Target {
        let next = match next {
            Target::At(position) => position,
            Target::Return(action) => self.near_return(action),
        };
        let distance = self.offset(next);
        if distance != 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
        Target::At(self.push(LOAD, 0, 0, offset))
    }

    fn section(&mut self, section: &'a Section) -> Target {
        let targets: Vec<(u32, Target)> =
            section.ranges.iter().map(|range| (range.start, self.verdict(range))).collect();
        match self.tree(&targets) {
            Target::At(root) => self.load(NUMBER, Target::At(root)),
            always @ Target::Return(_) => always,
        }
    }

    fn verdict(&mut self, range: &'a Range) -> Target {
        match &range.verdict {
            Verdict::Return(action) => Target::Return(*action),
            Verdict::Check(checks) => {
                if let Some((_, target)) = self.checks.iter().find(|(known, _)| *known == checks) {
                    return *target;
                }
                let target = self.checks(checks);
                self.checks.push((checks, target));
                target
            }
        }
    }

    /// The search tree for these ranges.
    fn tree(&mut self, ranges: &[(u32, Target)]) -> Target {
        match ranges {
            [] => Target::Return(BAD_ARCH),
            [(_, target)] => *target,
            // A single number inside a range: one comparison instead of two.
            [(_, around), (number, inside), (next, after)]
                if around == after && *next == number.wrapping_add(1) =>
            {
                self.branch(EQUAL, *number, *inside, *around)
            }
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let start = high.first().map_or(0, |(start, _)| *start);
                let right = self.tree(high);
                let left = self.tree(low);
                self.branch(GREATER_OR_EQUAL, start, right, left)
            }
        }
    }

    fn checks(&mut self, checks: &Checks) -> Target {
        let mut otherwise = Target::Return(checks.otherwise);
        for (action, conditions) in checks.rules.iter().rev() {
            let mut next = Target::Return(*action);
            for condition in conditions.iter().rev() {
                next = self.condition(condition, checks.wide, next, otherwise);
            }
            otherwise = next;
        }
        otherwise
    }

    fn condition(&mut self, c: &Condition, wide: bool, holds: Target, fails: Target) -> Target {
        let (yes, no) = if c.negate { (fails, holds) } else { (holds, fails) };
        let low = ARGS + 8 * c.arg;
        let high = low + 4;
        // Truncation is meant: this is how a 64-bit value is cut into two words.
        let (low_mask, high_mask) = (c.mask as u32, (c.mask >> 32) as u32);
        let (low_word, high_word) = (c.operand as u32, (c.operand >> 32) as u32);
        if c.test == Test::Equal {
            let mut next = yes;
            if low_mask != 0 {
                next = self.compare(low, low_mask, EQUAL, low_word, next, no);
            }
            if wide && high_mask != 0 {
                next = self.compare(high, high_mask, EQUAL, high_word, next, no);
            }
            return next;
        }
        let operator = if c.test == Test::Greater { GREATER } else { GREATER_OR_EQUAL };
        let next = self.compare(low, u32::MAX, operator, low_word, yes, no);
        if !wide {
            return next;
        }
        let same = self.branch(EQUAL, high_word, next, no);
        let greater = self.branch(GREATER, high_word, yes, same);
        self.load(high, greater)
    }

    /// Compares the masked word at `offset`.
    fn compare(
        &mut self,
        offset: u32,
        mask: u32,
        operator: u16,
        operand: u32,
        yes: Target,
        no: Target,
    ) -> Target {
        self.branch(operator, operand, yes, no);
        if mask != u32::MAX {
            self.push(AND, 0, 0, mask);
        }
        Target::At(self.push(LOAD, 0, 0, offset))
    }
}
