//! The rules that a thread used last: small enough for the nearest cache, and one word each.
//!
//! Key types: [`QuickRules`] and [`Quick`], a plain rule in 17 bits. What does not fit them is
//! only in the shared cache.

use super::rule::Plain;

/// Rules of a thread; 8 bytes each.
const RULE_COUNT: usize = 1 << RULE_BITS;
const RULE_BITS: u32 = 10;
/// An odd multiplier that spreads neighbouring program counters (2^64 / golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// | 16..12 | 11..1 | 0 |
/// |---|---|---|
/// | words from the CFA down to the saved `bp`; 0: it is not saved | words from the base up to the CFA | whether the base is `bp` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quick(u64);

const BASE_IS_BP: u64 = 1;
const CFA_SHIFT: u32 = 1;
const CFA_BITS: u32 = 11;
const SAVED_SHIFT: u32 = CFA_SHIFT + CFA_BITS;
const SAVED_BITS: u32 = 5;
const QUICK_BITS: u32 = SAVED_SHIFT + SAVED_BITS;

impl Quick {
    /// A plain rule, if it is as usual as most are.
    pub fn of(rule: Plain) -> Option<Quick> {
        let words = |bytes: i64| (bytes & 7 == 0).then_some((bytes >> 3) as u64);
        let cfa = words(rule.cfa_offset()).filter(|words| *words < 1 << CFA_BITS)?;
        let saved = match rule.is_bp_saved() {
            true => words(-rule.bp_offset()).filter(|words| *words < 1 << SAVED_BITS)?,
            false => 0,
        };
        Some(Quick(
            saved << SAVED_SHIFT | cfa << CFA_SHIFT | u64::from(rule.is_base_bp()),
        ))
    }

    /// The caller's stack pointer, from what it is counted from.
    #[inline(always)]
    pub fn cfa(self, base: u64) -> u64 {
        base.wrapping_add((self.0 >> CFA_SHIFT & ((1 << CFA_BITS) - 1)) * 8)
    }

    /// Whether the CFA is counted from `bp`.
    #[inline(always)]
    pub fn is_base_bp(self) -> bool {
        self.0 & BASE_IS_BP != 0
    }

    /// Whether `bp` was saved.
    #[inline(always)]
    pub fn is_bp_saved(self) -> bool {
        self.0 >> SAVED_SHIFT != 0
    }

    /// Where `bp` was saved, if it was.
    #[inline(always)]
    pub fn bp_at(self, cfa: u64) -> u64 {
        cfa.wrapping_sub((self.0 >> SAVED_SHIFT) * 8)
    }
}

/// Rules by program counter; all zeros is a valid table without any.
#[derive(Debug)]
pub struct QuickRules([u64; RULE_COUNT]);

impl QuickRules {
    /// Without rules.
    pub const EMPTY: QuickRules = QuickRules([0; RULE_COUNT]);

    #[inline(always)]
    fn place(pc: u64) -> usize {
        (pc.wrapping_mul(SPREAD) >> (64 - RULE_BITS)) as usize
    }

    /// The rule of a program counter below 2^47, if it is there. (Of 0, where there is no code, it
    /// may be a rule that leads nowhere.)
    #[inline(always)]
    pub fn get(&self, pc: u64) -> Option<Quick> {
        let difference = self.0.get(Self::place(pc))? ^ pc << QUICK_BITS;
        (difference >> QUICK_BITS == 0).then_some(Quick(difference))
    }

    /// Adds the rule of a program counter below 2^47.
    pub fn put(&mut self, pc: u64, rule: Quick) {
        if let Some(place) = self.0.get_mut(Self::place(pc)) {
            *place = pc << QUICK_BITS | rule.0;
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Quick, QuickRules};
    use crate::unwind::rule::{Cfa, Plain, Rule, SavedBp};

    #[test]
    fn a_quick_rule_says_what_the_plain_one_says() {
        let mut count = 0;
        let offsets = [-8, 0, 4, 8, 16, 160, 16376, 16384, i32::MAX];
        let saved = [-1, -2, -6, -31, -32, 0, 3].map(SavedBp::AtCfa);
        for offset in offsets {
            for cfa in [Cfa::Sp(offset), Cfa::Bp(offset)] {
                for bp in saved.into_iter().chain([SavedBp::Unchanged]) {
                    let Some(plain) = Plain::of(Rule::Frame { cfa, bp }.pack()) else {
                        continue;
                    };
                    let Some(quick) = Quick::of(plain) else {
                        continue;
                    };
                    count += 1;
                    assert_eq!(quick.is_base_bp(), matches!(cfa, Cfa::Bp(_)));
                    assert_eq!(quick.is_bp_saved(), plain.is_bp_saved());
                    assert_eq!(quick.cfa(1 << 40), (1 << 40) + offset as u64);
                    if let SavedBp::AtCfa(words) = bp {
                        let at = (1_u64 << 40).wrapping_add_signed(i64::from(words) * 8);
                        assert_eq!(quick.bp_at(1 << 40), at);
                    }
                }
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn a_rule_is_found_by_its_own_program_counter_only() {
        let mut rules = QuickRules::EMPTY;
        let rule = Quick(0x1_2345 & 0x1_ffff);
        let pc = 0x7fff_1234_5678;
        assert_eq!(rules.get(pc), None);
        rules.put(pc, rule);
        assert_eq!(rules.get(pc), Some(rule));
        let mut others = (1..1 << 20).map(|step| pc + step).chain([1, pc ^ 1 << 46]);
        assert!(others.all(|other| rules.get(other).is_none()));
        rules.clear();
        assert_eq!(rules.get(pc), None);
    }
}
