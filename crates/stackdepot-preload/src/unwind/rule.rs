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

/// A plain frame: nearly all are. The next two bits are only its own.
const PLAIN: u64 = 1;
const PLAIN_BASE_IS_BP: u64 = 2;
const PLAIN_BP_IS_SAVED: u64 = 4;

// The kinds of all other words are even.
const KIND_SP: u64 = 2;
const KIND_BP: u64 = 4;
const KIND_DEREF_BP: u64 = 6;
const KIND_DEREF_SP: u64 = 8;
const KIND_SIGNAL: u64 = 10;
const KIND_END: u64 = 12;
const KIND_UNSUPPORTED: u64 = 14;
const KIND_BITS: u64 = 0xf;

const BP_UNCHANGED: u64 = 0;
const BP_AT_CFA: u64 = 1;
const BP_AT_BP: u64 = 2;
const BP_KIND_SHIFT: u32 = 4;
const BP_OFFSET_SHIFT: u32 = 16;
const CFA_SHIFT: u32 = 32;

/// A packed rule of the usual form, `sp` or `bp` plus an offset and `bp` unchanged or below
/// the CFA, to be applied without a branch on what it says.
#[derive(Clone, Copy, Debug)]
pub struct Plain(u64);

impl Plain {
    /// The word as a plain rule, if it is one.
    #[inline]
    pub fn of(word: u64) -> Option<Plain> {
        (word & PLAIN != 0).then_some(Plain(word))
    }

    /// How far the caller's stack pointer lies above what it is counted from, in bytes.
    #[inline]
    pub fn cfa_offset(self) -> i64 {
        i64::from((self.0 >> CFA_SHIFT) as i32)
    }

    /// Whether the CFA is counted from `bp`.
    #[inline]
    pub fn is_base_bp(self) -> bool {
        self.0 & PLAIN_BASE_IS_BP != 0
    }

    /// Whether `bp` was saved.
    #[inline]
    pub fn is_bp_saved(self) -> bool {
        self.0 & PLAIN_BP_IS_SAVED != 0
    }

    /// Where `bp` was saved, if it was, from the CFA.
    #[inline]
    pub fn bp_offset(self) -> i64 {
        i64::from((self.0 >> BP_OFFSET_SHIFT) as u16 as i16) * 8
    }
}

impl Rule {
    /// Packs the rule; never 0, which is the cache's empty word.
    ///
    /// | 63..32 | 31..16 | 5..4 | 3..0 |
    /// |---|---|---|---|
    /// | CFA offset, or `at` and `offset` | frame pointer's place in words | its kind | kind, or flags of a plain one |
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
        let offsets =
            (u64::from(words as u16) << BP_OFFSET_SHIFT) | (u64::from(offset) << CFA_SHIFT);
        let saved = match bp {
            SavedBp::Unchanged => 0,
            _ => PLAIN_BP_IS_SAVED,
        };
        // Of a plain frame the place of `bp` lies within the frame: readable where that is.
        let is_within = match (kind, bp_kind) {
            (_, BP_UNCHANGED) => true,
            (KIND_SP, _) => words < 0 && (offset as i32).saturating_add(i32::from(words) * 8) >= 0,
            _ => words == -2,
        };
        match (kind, bp_kind) {
            (KIND_SP, BP_UNCHANGED | BP_AT_CFA) if is_within => PLAIN | saved | offsets,
            (KIND_BP, BP_UNCHANGED | BP_AT_CFA) if is_within => {
                PLAIN | PLAIN_BASE_IS_BP | saved | offsets
            }
            _ => kind | (bp_kind << BP_KIND_SHIFT) | offsets,
        }
    }

    /// Unpacks what [`Rule::pack`] made; `None` for a word that no rule packs to.
    pub fn unpack(word: u64) -> Option<Rule> {
        let offset = (word >> CFA_SHIFT) as u32;
        let words = (word >> BP_OFFSET_SHIFT) as u16 as i16;
        if let Some(plain) = Plain::of(word) {
            let is_bp = word & PLAIN_BASE_IS_BP != 0;
            let cfa = if is_bp {
                Cfa::Bp(offset as i32)
            } else {
                Cfa::Sp(offset as i32)
            };
            let bp = if plain.is_bp_saved() {
                SavedBp::AtCfa(words)
            } else {
                SavedBp::Unchanged
            };
            return Some(Rule::Frame { cfa, bp });
        }
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
