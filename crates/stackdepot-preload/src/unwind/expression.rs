//! A small symbolic evaluator for the DWARF expressions that occur in call-frame tables.
//!
//! A rule is cached per program counter, so `rip` is a constant here; that turns the long
//! expression of PLT stubs (`rsp + 8 + ((rip & 15) >= 11) * 8`) into a plain offset. What
//! remains, for realigned stacks, is one load relative to `rbp` or `rsp`.

use super::rule::Cfa;
use gimli::{EndianSlice, LittleEndian, Reader, constants};

/// The bytes of one expression.
pub type Bytes<'a> = EndianSlice<'a, LittleEndian>;

const RBP: u16 = 6;
const RSP: u16 = 7;
const RIP: u16 = 16;
/// Deepest operand stack; longer expressions are not understood.
const DEPTH: usize = 8;
/// Most operations looked at.
const OPERATION_LIMIT: u32 = 32;

/// A value known up to the two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// `bp + offset`.
    Bp(i64),
    /// `sp + offset`.
    Sp(i64),
    /// `*(bp + at) + offset`.
    DerefBp(i64, i64),
    /// `*(sp + at) + offset`.
    DerefSp(i64, i64),
}

impl Value {
    fn plus(self, add: i64) -> Value {
        match self {
            Value::Number(number) => Value::Number(number.wrapping_add(add as u64)),
            Value::Bp(offset) => Value::Bp(offset.wrapping_add(add)),
            Value::Sp(offset) => Value::Sp(offset.wrapping_add(add)),
            Value::DerefBp(at, offset) => Value::DerefBp(at, offset.wrapping_add(add)),
            Value::DerefSp(at, offset) => Value::DerefSp(at, offset.wrapping_add(add)),
        }
    }

    fn deref(self) -> Option<Value> {
        match self {
            Value::Bp(at) => Some(Value::DerefBp(at, 0)),
            Value::Sp(at) => Some(Value::DerefSp(at, 0)),
            _ => None,
        }
    }

    fn number(self) -> Option<u64> {
        match self {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    /// As a place for the CFA, where it is one that a rule can say.
    pub fn cfa(self) -> Option<Cfa> {
        Some(match self {
            Value::Bp(offset) => Cfa::Bp(offset.try_into().ok()?),
            Value::Sp(offset) => Cfa::Sp(offset.try_into().ok()?),
            Value::DerefBp(at, offset) => Cfa::DerefBp {
                at: at.try_into().ok()?,
                offset: offset.try_into().ok()?,
            },
            Value::DerefSp(at, offset) => Cfa::DerefSp {
                at: at.try_into().ok()?,
                offset: offset.try_into().ok()?,
            },
            Value::Number(_) => return None,
        })
    }
}

/// The operand stack.
struct Operands {
    values: [Value; DEPTH],
    count: usize,
}

impl Operands {
    fn push(&mut self, value: Value) -> Option<()> {
        *self.values.get_mut(self.count)? = value;
        self.count += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<Value> {
        self.count = self.count.checked_sub(1)?;
        self.values.get(self.count).copied()
    }
}

/// Evaluates `bytes` for the instruction at `pc`; `None` if it uses anything else.
pub fn evaluate(mut bytes: Bytes<'_>, pc: u64) -> Option<Value> {
    let mut operands = Operands {
        values: [Value::Number(0); DEPTH],
        count: 0,
    };
    for _ in 0..OPERATION_LIMIT {
        if bytes.is_empty() {
            return operands.pop();
        }
        let operation = constants::DwOp(bytes.read_u8().ok()?);
        let value = one(operation, &mut bytes, &mut operands, pc)?;
        operands.push(value)?;
    }
    None
}

fn one(
    operation: constants::DwOp,
    bytes: &mut Bytes<'_>,
    operands: &mut Operands,
    pc: u64,
) -> Option<Value> {
    Some(match operation {
        op if (constants::DW_OP_lit0.0..=constants::DW_OP_lit31.0).contains(&op.0) => {
            Value::Number(u64::from(op.0 - constants::DW_OP_lit0.0))
        }
        op if (constants::DW_OP_breg0.0..=constants::DW_OP_breg31.0).contains(&op.0) => {
            let offset = bytes.read_sleb128().ok()?;
            register(u16::from(op.0 - constants::DW_OP_breg0.0), pc)?.plus(offset)
        }
        constants::DW_OP_const1u => Value::Number(bytes.read_u8().ok()?.into()),
        constants::DW_OP_const1s => Value::Number(i64::from(bytes.read_i8().ok()?) as u64),
        constants::DW_OP_const2u => Value::Number(bytes.read_u16().ok()?.into()),
        constants::DW_OP_const2s => Value::Number(i64::from(bytes.read_i16().ok()?) as u64),
        constants::DW_OP_plus_uconst => {
            let add = bytes.read_uleb128().ok()?;
            operands.pop()?.plus(add as i64)
        }
        constants::DW_OP_deref => operands.pop()?.deref()?,
        constants::DW_OP_plus => {
            let (right, left) = (operands.pop()?, operands.pop()?);
            match (left.number(), right.number()) {
                (_, Some(number)) => left.plus(number as i64),
                (Some(number), None) => right.plus(number as i64),
                (None, None) => return None,
            }
        }
        constants::DW_OP_minus => {
            let number = operands.pop()?.number()?;
            operands.pop()?.plus((number as i64).wrapping_neg())
        }
        constants::DW_OP_and | constants::DW_OP_ge | constants::DW_OP_shl => {
            let right = operands.pop()?.number()?;
            let left = operands.pop()?.number()?;
            Value::Number(match operation {
                constants::DW_OP_and => left & right,
                constants::DW_OP_ge => u64::from(left as i64 >= right as i64),
                _ => left.checked_shl(u32::try_from(right).ok()?)?,
            })
        }
        _ => return None,
    })
}

fn register(number: u16, pc: u64) -> Option<Value> {
    match number {
        RBP => Some(Value::Bp(0)),
        RSP => Some(Value::Sp(0)),
        RIP => Some(Value::Number(pc)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Value, evaluate};
    use gimli::LittleEndian;

    fn run(bytes: &[u8], pc: u64) -> Option<Value> {
        evaluate(Bytes::new(bytes, LittleEndian), pc)
    }

    #[test]
    fn a_plt_stub_has_one_word_more_after_its_push() {
        // breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus
        let plt = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(run(&plt, 0x1020), Some(Value::Sp(8)));
        assert_eq!(run(&plt, 0x102b), Some(Value::Sp(16)));
    }

    #[test]
    fn a_realigned_stack_reads_its_saved_pointer() {
        assert_eq!(run(&[0x76, 0x78, 0x06], 0), Some(Value::DerefBp(-8, 0)));
        assert_eq!(
            run(&[0x76, 0x78, 0x06, 0x23, 16], 0),
            Some(Value::DerefBp(-8, 16))
        );
    }

    #[test]
    fn damaged_or_unknown_expressions_answer_none() {
        assert_eq!(run(&[0x77], 0), None);
        assert_eq!(run(&[0x06], 0), None);
        assert_eq!(run(&[0x22], 0), None);
        assert_eq!(run(&[0x70, 0], 0), None);
        assert_eq!(run(&[0xff], 0), None);
        assert_eq!(run(&[0x30; 9], 0), None);
        assert_eq!(run(&[], 0), None);
    }
}
