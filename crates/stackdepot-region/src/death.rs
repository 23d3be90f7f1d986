//! How the process died, if a signal ended it: noted in the header page by a signal handler.
//!
//! Key types: [`Death`], and [`DeathRecord`], its words as their writer sees them. One
//! thread writes them, once: it makes the state CLAIMED, notes the signal and the registers, and adds the
//! stack when it has one, for finding it may be cut short by another thread's death. Readers take
//! none of the numbers at their word.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::format::word_at;

/// Longer stacks are cut.
pub const DEATH_FRAMES: usize = 256;
/// General registers, in the order of [`REGISTER_NAMES`].
pub const REGISTER_COUNT: usize = 16;
/// Their names.
pub const REGISTER_NAMES: [&str; REGISTER_COUNT] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

const NONE: u64 = 0;
const CLAIMED: u64 = 1;
const NOTED: u64 = 2;
const WITH_STACK: u64 = 3;

/// What the instruction wanted with the memory at the faulting address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Access {
    /// To read it.
    Read = 1,
    /// To write it.
    Write = 2,
    /// To execute it.
    Execute = 3,
}

impl Access {
    /// From foreign bits.
    const fn from_bits(bits: u64) -> Option<Access> {
        match bits {
            1 => Some(Access::Read),
            2 => Some(Access::Write),
            3 => Some(Access::Execute),
            _ => None,
        }
    }
}

/// A death by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// The signal's number.
    pub signal: i32,
    /// Its `si_code`: positive from the kernel, else sent by a process.
    pub code: i32,
    /// The process that sent it; 0: none, or not known.
    pub sender: u32,
    /// The memory that could not be accessed, and how; `None` where it was not that, or where
    /// the processor does not tell.
    pub fault: Option<(u64, Access)>,
    /// The kernel's number of the thread that got the signal.
    pub thread: u32,
    /// When, by the time stamp counter.
    pub time: u64,
    /// The instruction that was being executed.
    pub pc: u64,
    /// The general registers there, in the order of [`REGISTER_NAMES`].
    pub registers: [u64; REGISTER_COUNT],
}

/// A death with its stack, as a file tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeathReport {
    /// The signal, and where it came.
    pub death: Death,
    /// Return addresses, innermost first; the first is one past `pc`. Empty: not known.
    pub frames: Vec<u64>,
}

/// The place of a death in the header page.
#[derive(Debug)]
#[repr(C)]
pub struct DeathRecord {
    state: AtomicU64,
    signal: AtomicU64,
    code: AtomicU64,
    sender: AtomicU64,
    address: AtomicU64,
    access: AtomicU64,
    thread: AtomicU64,
    time: AtomicU64,
    pc: AtomicU64,
    registers: [AtomicU64; REGISTER_COUNT],
    frame_count: AtomicU64,
    frames: [AtomicU64; DEATH_FRAMES],
}

impl DeathRecord {
    /// Notes a death, unless one was noted before; answers whether it did.
    pub fn note(&self, death: &Death) -> bool {
        let relaxed = Ordering::Relaxed;
        // ORDERING: Relaxed: only decides who writes; the words are published by the store below.
        let claim = self.state.compare_exchange(NONE, CLAIMED, relaxed, relaxed);
        if claim.is_err() {
            return false;
        }
        let (address, access) = death
            .fault
            .map_or((0, 0), |(address, access)| (address, access as u64));
        let words = [
            (&self.signal, death.signal as u64),
            (&self.code, death.code as u64),
            (&self.sender, death.sender.into()),
            (&self.address, address),
            (&self.access, access),
            (&self.thread, death.thread.into()),
            (&self.time, death.time),
            (&self.pc, death.pc),
        ];
        let registers = self.registers.iter().zip(death.registers);
        words
            .into_iter()
            .chain(registers)
            .for_each(|(place, word)| place.store(word, relaxed));
        // ORDERING: Release: who copies this state copies its words. Partner: readers copy the page
        // in one piece, after the process is gone.
        self.state.store(NOTED, Ordering::Release);
        true
    }

    /// Adds the stack; for who noted the death.
    pub fn add_stack(&self, frames: &[u64]) {
        let kept = frames.len().min(DEATH_FRAMES);
        for (place, frame) in self.frames.iter().zip(frames) {
            place.store(*frame, Ordering::Relaxed);
        }
        self.frame_count.store(kept as u64, Ordering::Relaxed);
        // ORDERING: Release: as in `note`.
        self.state.store(WITH_STACK, Ordering::Release);
    }

    /// Forgets the death of a former writer.
    pub fn clear(&self) {
        self.state.store(NONE, Ordering::Relaxed);
    }
}

/// The death that the bytes of a record tell of; `None` when there was none, or no sane one.
pub fn parse(bytes: &[u8]) -> Option<DeathReport> {
    let word = |offset: usize| word_at(bytes, offset);
    let state = word(offset_of!(DeathRecord, state))?;
    if !matches!(state, NOTED | WITH_STACK) {
        return None;
    }
    let address = word(offset_of!(DeathRecord, address))?;
    let access = Access::from_bits(word(offset_of!(DeathRecord, access))?);
    let mut registers = [0; REGISTER_COUNT];
    for (index, register) in registers.iter_mut().enumerate() {
        *register = word(offset_of!(DeathRecord, registers) + index * 8)?;
    }
    let death = Death {
        signal: word(offset_of!(DeathRecord, signal))? as i32,
        code: word(offset_of!(DeathRecord, code))? as i32,
        sender: word(offset_of!(DeathRecord, sender))? as u32,
        fault: access.map(|access| (address, access)),
        thread: word(offset_of!(DeathRecord, thread))? as u32,
        time: word(offset_of!(DeathRecord, time))?,
        pc: word(offset_of!(DeathRecord, pc))?,
        registers,
    };
    let frames = match state {
        WITH_STACK => frames(bytes),
        _ => Vec::new(),
    };
    Some(DeathReport { death, frames })
}

fn frames(bytes: &[u8]) -> Vec<u64> {
    let frame_count = word_at(bytes, offset_of!(DeathRecord, frame_count)).unwrap_or(0);
    let kept = frame_count.min(DEATH_FRAMES as u64) as usize;
    let frame = |index| word_at(bytes, offset_of!(DeathRecord, frames) + index * 8);
    (0..kept).map_while(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> DeathRecord {
        DeathRecord {
            state: AtomicU64::new(NONE),
            signal: AtomicU64::new(0),
            code: AtomicU64::new(0),
            sender: AtomicU64::new(0),
            address: AtomicU64::new(0),
            access: AtomicU64::new(0),
            thread: AtomicU64::new(0),
            time: AtomicU64::new(0),
            pc: AtomicU64::new(0),
            registers: [const { AtomicU64::new(0) }; REGISTER_COUNT],
            frame_count: AtomicU64::new(0),
            frames: [const { AtomicU64::new(0) }; DEATH_FRAMES],
        }
    }

    /// The words as they lie in a file.
    fn bytes_of(record: &DeathRecord) -> Vec<u8> {
        let words = [
            &record.state,
            &record.signal,
            &record.code,
            &record.sender,
            &record.address,
            &record.access,
            &record.thread,
            &record.time,
            &record.pc,
        ];
        let all = words.into_iter().chain(&record.registers);
        let all = all.chain([&record.frame_count]).chain(&record.frames);
        all.flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect()
    }

    fn death() -> Death {
        Death {
            signal: libc::SIGSEGV,
            code: -6,
            sender: 77,
            fault: Some((0xffff_8000_0000_0010, Access::Write)),
            thread: u32::MAX,
            time: u64::MAX,
            pc: 0x1234,
            registers: core::array::from_fn(|index| index as u64 + 100),
        }
    }

    #[test]
    fn death_comes_back_from_its_words_and_is_noted_once() {
        let record = record();
        assert_eq!(size_of::<DeathRecord>(), bytes_of(&record).len());
        assert_eq!(parse(&bytes_of(&record)), None);
        let death = death();
        assert!(record.note(&death));
        let without = parse(&bytes_of(&record)).unwrap();
        assert_eq!((without.death, without.frames), (death, vec![]));
        let frames: Vec<u64> = (1..=300).collect();
        record.add_stack(&frames);
        let found = parse(&bytes_of(&record)).unwrap();
        assert_eq!(found.death, death);
        assert_eq!(found.frames, frames[..DEATH_FRAMES]);
        assert!(!record.note(&death));
        record.clear();
        assert_eq!(parse(&bytes_of(&record)), None);
    }

    #[test]
    fn any_bytes_are_a_death_or_none() {
        for byte in 0..=255 {
            let mut bytes = vec![byte; size_of::<DeathRecord>()];
            assert_eq!(parse(&bytes), None);
            bytes[..8].copy_from_slice(&WITH_STACK.to_le_bytes());
            let death = parse(&bytes).unwrap();
            assert!(death.frames.len() <= DEATH_FRAMES);
            for length in (0..bytes.len()).step_by(8) {
                let cut = parse(&bytes[..length]);
                assert!(cut.is_none_or(|cut| cut.frames.len() <= death.frames.len()));
            }
        }
    }
}
