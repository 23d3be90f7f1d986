//! The step rule: how to get from one frame to its caller, packed into one word.
//!
//! Nearly every call site on x86-64 needs only three facts: where the caller's stack
//! pointer was (the CFA), that the return address lies just below it, and whether the frame
//! pointer was saved. [`Rule`] says that as a value, [`Rule::pack`] as the word which the
//! shared cache stores. What does not fit the word is [`Rule::Unsupported`].

/// Where the CFA, the caller's stack pointer, comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cfa {
    /// `sp + offset`.
    Sp(i32),
    /// `bp + offset`.
    Bp(i32),
    /// `*(bp + at) + offset`: functions that realign their stack keep the old one there.
    DerefBp {
        /// Offset of the word that is read, from `bp`.
        at: i16,
        /// Added to what was read.
        offset: i16,
    },
    /// `*(sp + at) + offset`.
    DerefSp {
        /// Offset of the word that is read, from `sp`.
        at: i16,
        /// Added to what was read.
        offset: i16,
    },
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedBp {
    /// Still in the register.
    Unchanged,
    /// In memory at CFA + 8 * the number.
    AtCfa(i16),
    /// In memory at the present `bp` + 8 * the number.
    AtBp(i16),
}

/// How to step out of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A usual frame; the return address is the word below the CFA.
    Frame {
        /// The caller's stack pointer.
        cfa: Cfa,
        /// The caller's frame pointer.
        bp: SavedBp,
    },
    /// The kernel's signal frame: the interrupted registers lie in the `ucontext` at `sp`.
    Signal,
    /// The outermost frame: its return address is undefined.
    End,
    /// There is call-frame information, but the word cannot say it.
    Unsupported,
}

const KIND_SP: u64 = 1;
const KIND_BP: u64 = 2;
const KIND_DEREF_BP: u64 = 3;
const KIND_DEREF_SP: u64 = 4;
const KIND_SIGNAL: u64 = 5;
const KIND_END: u64 = 6;
const KIND_UNSUPPORTED: u64 = 7;
const KIND_BITS: u64 = 0xf;

const BP_UNCHANGED: u64 = 0;
const BP_AT_CFA: u64 = 1;
const BP_AT_BP: u64 = 2;
const BP_KIND_SHIFT: u32 = 4;
const BP_OFFSET_SHIFT: u32 = 16;
const CFA_SHIFT: u32 = 32;

impl Rule {
    /// Packs the rule; never 0, which is the cache's empty word.
    ///
    /// | 63..32 | 31..16 | 5..4 | 3..0 |
    /// |---|---|---|---|
    /// | CFA offset, or `at` and `offset` | frame pointer's place in words | its kind | kind |
    #[inline]
    pub fn pack(self) -> u64 {
        let (cfa, bp) = match self {
            Rule::Frame { cfa, bp } => (cfa, bp),
            Rule::Signal => return KIND_SIGNAL,
            Rule::End => return KIND_END,
            Rule::Unsupported => return KIND_UNSUPPORTED,
        };
        let (kind, offset) = match cfa {
            Cfa::Sp(offset) => (KIND_SP, offset as u32),
            Cfa::Bp(offset) => (KIND_BP, offset as u32),
            Cfa::DerefBp { at, offset } => (KIND_DEREF_BP, pair(at, offset)),
            Cfa::DerefSp { at, offset } => (KIND_DEREF_SP, pair(at, offset)),
        };
        let (bp_kind, words) = match bp {
            SavedBp::Unchanged => (BP_UNCHANGED, 0),
            SavedBp::AtCfa(words) => (BP_AT_CFA, words),
            SavedBp::AtBp(words) => (BP_AT_BP, words),
        };
        kind | (bp_kind << BP_KIND_SHIFT)
            | (u64::from(words as u16) << BP_OFFSET_SHIFT)
            | (u64::from(offset) << CFA_SHIFT)
    }

    /// Unpacks what [`Rule::pack`] made; `None` for a word that no rule packs to.
    #[inline]
    pub fn unpack(word: u64) -> Option<Rule> {
        let offset = (word >> CFA_SHIFT) as u32;
        let (at, add) = (offset as u16 as i16, (offset >> 16) as u16 as i16);
        let cfa = match word & KIND_BITS {
            KIND_SP => Cfa::Sp(offset as i32),
            KIND_BP => Cfa::Bp(offset as i32),
            KIND_DEREF_BP => Cfa::DerefBp { at, offset: add },
            KIND_DEREF_SP => Cfa::DerefSp { at, offset: add },
            KIND_SIGNAL => return Some(Rule::Signal),
            KIND_END => return Some(Rule::End),
            KIND_UNSUPPORTED => return Some(Rule::Unsupported),
            _ => return None,
        };
        let words = (word >> BP_OFFSET_SHIFT) as u16 as i16;
        let bp = match (word >> BP_KIND_SHIFT) & 3 {
            BP_UNCHANGED => SavedBp::Unchanged,
            BP_AT_CFA => SavedBp::AtCfa(words),
            BP_AT_BP => SavedBp::AtBp(words),
            _ => return None,
        };
        Some(Rule::Frame { cfa, bp })
    }
}

fn pair(at: i16, offset: i16) -> u32 {
    u32::from(at as u16) | (u32::from(offset as u16) << 16)
}

#[cfg(test)]
mod tests {
    use super::{Cfa, Rule, SavedBp};

    #[test]
    fn every_rule_survives_packing() {
        let offsets = [i32::MIN, -8, 0, 8, 160, i32::MAX];
        let words = [i16::MIN, -2, -1, 0, 1, i16::MAX];
        for (&offset, &word) in offsets.iter().zip(words.iter().rev()) {
            for &other in &words {
                let cfas = [
                    Cfa::Sp(offset),
                    Cfa::Bp(offset),
                    Cfa::DerefBp {
                        at: word,
                        offset: other,
                    },
                    Cfa::DerefSp {
                        at: other,
                        offset: word,
                    },
                ];
                let bps = [
                    SavedBp::Unchanged,
                    SavedBp::AtCfa(word),
                    SavedBp::AtBp(other),
                ];
                for cfa in cfas {
                    for bp in bps {
                        let rule = Rule::Frame { cfa, bp };
                        assert_eq!(Rule::unpack(rule.pack()), Some(rule));
                    }
                }
            }
        }
        for rule in [Rule::Signal, Rule::End, Rule::Unsupported] {
            assert_eq!(Rule::unpack(rule.pack()), Some(rule));
        }
        assert_eq!(Rule::unpack(0), None);
    }
}
