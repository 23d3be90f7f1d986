//! One step of a walk: from a frame's registers to its caller's.

use super::rule::{Cfa, Rule, SavedBp};
use super::stack::{ADDRESS_LIMIT, StackReader};
use super::{End, Truncation, cache, gate, known, modules, table};

/// Farthest a frame pointer may lie from the stack pointer in code without tables.
const GUESS_BYTES: u64 = 0x4000;
/// Largest frame; a CFA farther away, or not above `sp`, is another stack.
pub const FRAME_BYTES_LIMIT: u64 = 1 << 30;
/// Stack switches (signal frames, split stacks) followed in one walk.
const SWITCH_LIMIT: u32 = 8;

/// The registers of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The return address into this frame.
    pub ip: u64,
    /// The stack pointer after the call returns.
    pub sp: u64,
    /// The frame pointer register.
    pub bp: u64,
}

/// A frame: its registers and where the step that led to it read them, for the memo.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The registers.
    pub registers: Registers,
    /// Where `bp` was read; 0 if it is the inner frame's. (`ip` is at `sp - 8`.)
    pub bp_at: u64,
    /// Where `sp` was read; 0 if it was computed. The word there equals `sp`.
    pub cfa_at: u64,
}

/// What a step led to.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The caller's frame.
    Caller,
    /// There is no caller: a rule says so, and will say so again.
    End,
    /// There is no caller: the return address, or the frame pointer that led to it, is 0.
    NoReturn,
    /// The walk cannot go on.
    Failed(Truncation),
}

impl Step {
    /// The end of the walk, if this step was none.
    #[inline]
    pub fn end(self) -> Option<End> {
        match self {
            Step::Caller => None,
            Step::End | Step::NoReturn => Some(End::Complete),
            Step::Failed(truncation) => Some(End::Truncated(truncation)),
        }
    }
}

/// The state of a walk that does not depend on the frame.
#[derive(Debug)]
pub struct Stepper {
    /// Reads the stack.
    pub stack: StackReader,
    epoch: u32,
    /// The registers come from a signal frame: `ip` is an instruction, not a return address.
    is_interrupted: bool,
    switches: u32,
}

impl Stepper {
    /// Starts at frames called from running code.
    #[inline]
    pub fn new(stack: StackReader, epoch: u32) -> Stepper {
        Stepper {
            stack,
            epoch,
            is_interrupted: false,
            switches: 0,
        }
    }

    /// The number of the set of modules that the walk is through.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether the walk has stayed on one stack, growing outward: only such may be memoised.
    #[inline]
    pub fn is_straight(&self) -> bool {
        self.switches == 0
    }

    /// Steps from `frame` to its caller, in place.
    pub fn step(&mut self, frame: &mut Frame) -> Step {
        let pc = frame
            .registers
            .ip
            .wrapping_sub(u64::from(!self.is_interrupted));
        self.is_interrupted = false;
        if pc >= ADDRESS_LIMIT {
            return Step::Failed(Truncation::NoTable);
        }
        let key = cache::Key::new(pc, self.epoch);
        self.apply(frame, cache::get(key), pc, key)
    }

    /// Applies a rule, or finds the missing one.
    fn apply(&mut self, frame: &mut Frame, word: u64, pc: u64, key: cache::Key) -> Step {
        let rule = match Rule::unpack(word) {
            Some(rule) => rule,
            None => match resolve(pc, key) {
                Ok(Some(rule)) => rule,
                Ok(None) => return self.guess(frame),
                Err(truncation) => return Step::Failed(truncation),
            },
        };
        match rule {
            Rule::Frame { cfa, bp } => self.frame(frame, cfa, bp),
            Rule::Signal => self.signal(frame),
            Rule::End => Step::End,
            Rule::Unsupported => Step::Failed(Truncation::Unsupported),
        }
    }

    fn frame(&mut self, frame: &mut Frame, cfa: Cfa, bp: SavedBp) -> Step {
        let inner = frame.registers;
        let found = match cfa {
            Cfa::Sp(offset) => Some((add(inner.sp, offset), 0)),
            Cfa::Bp(offset) => Some((add(inner.bp, offset), 0)),
            Cfa::DerefBp { at, offset } => self.deref(inner.bp, at, offset),
            Cfa::DerefSp { at, offset } => self.deref(inner.sp, at, offset),
        };
        let Some((sp, cfa_at)) = found else {
            return Step::Failed(Truncation::BadStack);
        };
        if sp.wrapping_sub(inner.sp).wrapping_sub(1) >= FRAME_BYTES_LIMIT && !self.switch() {
            return Step::Failed(Truncation::BadStack);
        }
        let bp_at = match bp {
            SavedBp::Unchanged => 0,
            SavedBp::AtCfa(words) => add(sp, i32::from(words) * 8),
            SavedBp::AtBp(words) => add(inner.bp, i32::from(words) * 8),
        };
        self.caller(frame, sp, bp_at, cfa_at)
    }

    /// Reads a CFA that lies in memory. One with an offset cannot be checked again by the
    /// memo, which compares the word with `sp`: it counts as a switch.
    fn deref(&mut self, base: u64, at: i16, offset: i16) -> Option<(u64, u64)> {
        let cfa_at = add(base, i32::from(at));
        let word = self.stack.read(cfa_at)?;
        if offset != 0 && !self.switch() {
            return None;
        }
        Some((add(word, i32::from(offset)), cfa_at))
    }

    fn caller(&mut self, frame: &mut Frame, sp: u64, bp_at: u64, cfa_at: u64) -> Step {
        let ip = self.stack.read(sp.wrapping_sub(8));
        let bp = if bp_at == 0 {
            Some(frame.registers.bp)
        } else {
            self.stack.read(bp_at)
        };
        let (Some(ip), Some(bp)) = (ip, bp) else {
            return Step::Failed(Truncation::BadStack);
        };
        *frame = Frame {
            registers: Registers { ip, sp, bp },
            bp_at,
            cfa_at,
        };
        if ip == 0 {
            Step::NoReturn
        } else {
            Step::Caller
        }
    }

    /// Steps through the kernel's signal frame: `sp` points at the `ucontext`.
    fn signal(&mut self, frame: &mut Frame) -> Step {
        const BP_AT: i32 = 120;
        const SP_AT: i32 = 160;
        const IP_AT: i32 = 168;
        let mut read = |offset| self.stack.read(add(frame.registers.sp, offset));
        let (Some(bp), Some(sp), Some(ip)) = (read(BP_AT), read(SP_AT), read(IP_AT)) else {
            return Step::Failed(Truncation::BadStack);
        };
        if !self.switch() {
            return Step::Failed(Truncation::BadStack);
        }
        self.is_interrupted = true;
        *frame = Frame {
            registers: Registers { ip, sp, bp },
            bp_at: 0,
            cfa_at: 0,
        };
        if ip == 0 {
            Step::NoReturn
        } else {
            Step::Caller
        }
    }

    /// Steps by the frame pointer where there is no table, if it looks like one.
    #[cold]
    fn guess(&mut self, frame: &mut Frame) -> Step {
        let Registers { sp, bp, .. } = frame.registers;
        if bp == 0 {
            return Step::NoReturn;
        }
        if bp < sp || bp - sp > GUESS_BYTES {
            return Step::Failed(Truncation::NoTable);
        }
        match self.caller(frame, bp.wrapping_add(16), bp, 0) {
            Step::Failed(_) => Step::Failed(Truncation::NoTable),
            step => step,
        }
    }

    #[cold]
    fn switch(&mut self) -> bool {
        self.switches += 1;
        self.switches <= SWITCH_LIMIT
    }
}

#[inline]
fn add(base: u64, offset: i32) -> u64 {
    base.wrapping_add_signed(i64::from(offset))
}

/// Reads the tables for `pc` and caches the rule. `Ok(None)`: there are none.
#[cold]
#[inline(never)]
fn resolve(pc: u64, key: cache::Key) -> Result<Option<Rule>, Truncation> {
    let Some(_access) = gate::read_tables() else {
        return Err(Truncation::Closing);
    };
    let Some(module) = modules::find(pc) else {
        return Ok(None);
    };
    known::note(&module);
    let rule = table::rule_at(&module, pc);
    if let Some(rule) = rule {
        cache::put(key, rule.pack());
    }
    Ok(rule)
}
