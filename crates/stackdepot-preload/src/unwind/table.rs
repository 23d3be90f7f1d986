//! Evaluates a module's call-frame information for one program counter into a [`Rule`].
//!
//! gimli finds and decodes the entries; the rows are evaluated here, because only the CFA,
//! the frame pointer and the return address matter, and gimli's own row keeps every register
//! (18 KiB of stack where a signal stack may have 8).

use super::expression::{self, Value};
use super::modules::LoadedModule;
use super::rule::{Cfa, Rule, SavedBp};
use gimli::{
    BaseAddresses, CallFrameInstruction, CallFrameInstructionIter, EhFrame, EhFrameHdr,
    EndianSlice, FrameDescriptionEntry, LittleEndian, Register, UnwindSection,
};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

const RBP: Register = Register(6);
const RSP: Register = Register(7);
const RIP: Register = Register(16);
const WORD_BYTES: i64 = 8;
/// Deepest nesting of remembered rows.
const REMEMBER_DEPTH: usize = 6;
/// Most instructions evaluated for one lookup.
const INSTRUCTION_LIMIT: u32 = 20_000;

/// Where a register of the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Unchanged,
    Undefined,
    /// At CFA + offset bytes.
    AtCfa(i64),
    /// At the address that an expression gave.
    At(Value),
    /// Anything that a rule cannot say.
    Other,
}

/// The three facts of one row.
#[derive(Clone, Copy, Debug)]
struct Row {
    cfa: Option<Value>,
    bp: Place,
    ip: Place,
}

const FIRST_ROW: Row = Row {
    cfa: None,
    bp: Place::Unchanged,
    ip: Place::Undefined,
};

/// The rule for `pc` in `module`, or `None` where the module has no entry for it.
///
/// Reads the module's tables: the caller holds them in place (see `gate`).
#[inline(never)]
pub fn rule_at(module: &LoadedModule, pc: u64) -> Option<Rule> {
    let tables = Tables::of(module)?;
    let fde = tables.fde(pc)?;
    if fde.is_signal_trampoline() {
        return Some(Rule::Signal);
    }
    let row = tables.row(&fde, pc).unwrap_or(FIRST_ROW);
    Some(rule_of(&row))
}

/// The two unwind sections of a module.
struct Tables<'a> {
    bases: BaseAddresses,
    header: Bytes<'a>,
    frames: EhFrame<Bytes<'a>>,
}

impl<'a> Tables<'a> {
    fn of(module: &'a LoadedModule) -> Option<Tables<'a>> {
        let header_at = module.unwind_header?;
        let header = Bytes::new(module.bytes_from(header_at)?, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame_hdr(header_at);
        let parsed = EhFrameHdr::from(header)
            .parse(&bases, WORD_BYTES as u8)
            .ok()?;
        let frames_at = parsed.eh_frame_ptr().direct().ok()?;
        let frames = EhFrame::from(Bytes::new(module.bytes_from(frames_at)?, LittleEndian));
        Some(Tables {
            bases: bases.set_eh_frame(frames_at),
            header,
            frames,
        })
    }

    fn fde(&self, pc: u64) -> Option<FrameDescriptionEntry<Bytes<'a>>> {
        let parsed = EhFrameHdr::from(self.header)
            .parse(&self.bases, WORD_BYTES as u8)
            .ok()?;
        let table = parsed.table()?;
        let entry = table.lookup(pc, &self.bases).ok()?;
        let offset = table.pointer_to_offset(entry).ok()?;
        let fde = self
            .frames
            .fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset)
            .ok()?;
        fde.contains(pc).then_some(fde)
    }

    /// Runs the entry's instructions up to `pc`.
    fn row(&self, fde: &FrameDescriptionEntry<Bytes<'a>>, pc: u64) -> Option<Row> {
        let cie = fde.cie();
        let mut machine = Machine {
            row: FIRST_ROW,
            initial: FIRST_ROW,
            remembered: [FIRST_ROW; REMEMBER_DEPTH],
            remembered_count: 0,
            code_factor: cie.code_alignment_factor(),
            data_factor: cie.data_alignment_factor(),
            location: fde.initial_address(),
            pc,
            instructions_left: INSTRUCTION_LIMIT,
        };
        machine.run(cie.instructions(&self.frames, &self.bases), &self.frames)?;
        machine.initial = machine.row;
        machine.run(fde.instructions(&self.frames, &self.bases), &self.frames)?;
        Some(machine.row)
    }
}

/// The state of one evaluation.
struct Machine {
    row: Row,
    initial: Row,
    remembered: [Row; REMEMBER_DEPTH],
    remembered_count: usize,
    code_factor: u64,
    data_factor: i64,
    location: u64,
    pc: u64,
    instructions_left: u32,
}

impl Machine {
    /// `None`: the instructions are damaged or use what we do not know.
    fn run<'a>(
        &mut self,
        mut instructions: CallFrameInstructionIter<'_, Bytes<'a>>,
        frames: &EhFrame<Bytes<'a>>,
    ) -> Option<()> {
        while let Some(instruction) = instructions.next().ok()? {
            self.instructions_left = self.instructions_left.checked_sub(1)?;
            if !self.step(&instruction, frames)? {
                break;
            }
        }
        Some(())
    }

    /// Applies one instruction; `Some(false)` once the row for `pc` is complete.
    fn step<'a>(
        &mut self,
        instruction: &CallFrameInstruction<usize>,
        frames: &EhFrame<Bytes<'a>>,
    ) -> Option<bool> {
        use CallFrameInstruction as I;
        match *instruction {
            I::SetLoc { address } => return Some(self.advance_to(address)),
            I::AdvanceLoc { delta } => {
                let bytes = u64::from(delta).wrapping_mul(self.code_factor);
                return Some(self.advance_to(self.location.wrapping_add(bytes)));
            }
            I::DefCfa { register, offset } => self.row.cfa = base(register, offset as i64),
            I::DefCfaSf {
                register,
                factored_offset,
            } => {
                self.row.cfa = base(register, factored_offset.wrapping_mul(self.data_factor));
            }
            I::DefCfaRegister { register } => {
                self.row.cfa = self.row.cfa.and_then(|cfa| base(register, offset_of(cfa)?));
            }
            I::DefCfaOffset { offset } => self.set_cfa_offset(offset as i64),
            I::DefCfaOffsetSf { factored_offset } => {
                self.set_cfa_offset(factored_offset.wrapping_mul(self.data_factor));
            }
            I::DefCfaExpression { expression } => {
                let bytes = expression.get(frames).ok()?.0;
                self.row.cfa = expression::evaluate(bytes, self.pc);
            }
            I::Undefined { register } => self.set(register, Place::Undefined),
            I::SameValue { register } => self.set(register, Place::Unchanged),
            I::Offset {
                register,
                factored_offset,
            } => {
                let bytes = (factored_offset as i64).wrapping_mul(self.data_factor);
                self.set(register, Place::AtCfa(bytes));
            }
            I::OffsetExtendedSf {
                register,
                factored_offset,
            } => {
                self.set(
                    register,
                    Place::AtCfa(factored_offset.wrapping_mul(self.data_factor)),
                );
            }
            I::Expression {
                register,
                expression,
            } => {
                let bytes = expression.get(frames).ok()?.0;
                let value = expression::evaluate(bytes, self.pc);
                self.set(register, value.map_or(Place::Other, Place::At));
            }
            I::ValOffset { register, .. }
            | I::ValOffsetSf { register, .. }
            | I::ValExpression { register, .. }
            | I::Register {
                dest_register: register,
                ..
            } => self.set(register, Place::Other),
            I::Restore { register } => self.restore(register),
            I::RememberState => {
                *self.remembered.get_mut(self.remembered_count)? = self.row;
                self.remembered_count += 1;
            }
            I::RestoreState => {
                self.remembered_count = self.remembered_count.checked_sub(1)?;
                self.row = *self.remembered.get(self.remembered_count)?;
            }
            I::ArgsSize { .. } | I::Nop => {}
            _ => return None,
        }
        Some(true)
    }

    /// Whether the instructions after this place still apply to `pc`.
    fn advance_to(&mut self, location: u64) -> bool {
        self.location = location;
        location <= self.pc
    }

    fn set_cfa_offset(&mut self, offset: i64) {
        self.row.cfa = match self.row.cfa {
            Some(Value::Bp(_)) => Some(Value::Bp(offset)),
            Some(Value::Sp(_)) => Some(Value::Sp(offset)),
            other => other,
        };
    }

    fn set(&mut self, register: Register, place: Place) {
        match register {
            RBP => self.row.bp = place,
            RIP => self.row.ip = place,
            _ => {}
        }
    }

    fn restore(&mut self, register: Register) {
        match register {
            RBP => self.row.bp = self.initial.bp,
            RIP => self.row.ip = self.initial.ip,
            _ => {}
        }
    }
}

fn base(register: Register, offset: i64) -> Option<Value> {
    match register {
        RBP => Some(Value::Bp(offset)),
        RSP => Some(Value::Sp(offset)),
        _ => None,
    }
}

fn offset_of(cfa: Value) -> Option<i64> {
    match cfa {
        Value::Bp(offset) | Value::Sp(offset) => Some(offset),
        _ => None,
    }
}

/// The rule that a row says, if one word can.
fn rule_of(row: &Row) -> Rule {
    match row.ip {
        Place::AtCfa(offset) if offset == -WORD_BYTES => {}
        Place::Undefined => {
            // An undefined return address ends the stack; a row without any CFA is damage.
            return if row.cfa.is_some() {
                Rule::End
            } else {
                Rule::Unsupported
            };
        }
        _ => return Rule::Unsupported,
    }
    let Some(cfa) = row.cfa.and_then(Value::cfa) else {
        return Rule::Unsupported;
    };
    let bp = match row.bp {
        Place::Unchanged | Place::Undefined => Some(SavedBp::Unchanged),
        Place::AtCfa(bytes) => words(bytes).map(SavedBp::AtCfa),
        Place::At(Value::Bp(bytes)) => words(bytes).map(SavedBp::AtBp),
        Place::At(place) => relative_to_cfa(place, cfa)
            .and_then(words)
            .map(SavedBp::AtCfa),
        Place::Other => None,
    };
    bp.map_or(Rule::Unsupported, |bp| Rule::Frame { cfa, bp })
}

/// A place given from `sp`, told from a CFA that is given from `sp` too.
fn relative_to_cfa(place: Value, cfa: Cfa) -> Option<i64> {
    match (place, cfa) {
        (Value::Sp(at), Cfa::Sp(offset)) => at.checked_sub(i64::from(offset)),
        _ => None,
    }
}

fn words(bytes: i64) -> Option<i16> {
    if bytes % WORD_BYTES != 0 {
        return None;
    }
    (bytes / WORD_BYTES).try_into().ok()
}
