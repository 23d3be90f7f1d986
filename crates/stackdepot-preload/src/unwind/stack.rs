//! Safe reads of stack words: which addresses may be read, proven before each read.
//!
//! Key type: [`StackRange`], a span of addresses known to be readable. The main thread's
//! stack is known from the start (`__libc_stack_end`). Any other stack is learnt page by page with a
//! system call that only tests readability: of a thread's own stack each page once, because it
//! stays as long as the thread; of others (coroutines, signal stacks), which may be unmapped at any
//! time, in each walk. [`crate::unwind::threads`] keeps the ranges. Garbage registers therefore end
//! a walk; they never crash the program.

#![allow(unsafe_code)] // reads foreign stack memory; makes one raw system call

use super::words::Word;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

const PAGE_BYTES: u64 = 4096;
/// User addresses lie below this.
pub const ADDRESS_LIMIT: u64 = 1 << 47;
/// Most pages between a known range and a new address that are tested to join the two.
const JOIN_PAGES: u64 = 16;
/// Most readability tests per walk.
const TEST_BUDGET: u32 = 64;
/// Most pages of a stack that may be gone that are tested before a walk: all that the last one needed.
const RETESTED_PAGES: u64 = 64;
/// Most pages of a thread's own stack that are tested at once: 8 MiB of them, each once.
const OWN_PAGES: u64 = 2048;

/// Where the main thread's stack ends (outer end), page-aligned; 0 until [`init`].
static MAIN_END: AtomicU64 = AtomicU64::new(0);
/// How far below its end the main thread's stack can reach: nothing else is mapped there.
static MAIN_BYTES: AtomicU64 = AtomicU64::new(0);

/// Notes where the main thread's stack lies: `stack_end` is glibc's `__libc_stack_end`,
/// `limit_bytes` the soft limit of the stack at start-up.
pub fn init(stack_end: u64, limit_bytes: u64) {
    let end = stack_end.saturating_add(PAGE_BYTES - 1) & !(PAGE_BYTES - 1);
    // The kernel keeps this much address space free below the stack; an unlimited stack puts
    // the mappings elsewhere altogether. Arguments and environment, up to a quarter of the
    // limit, lie above `stack_end` but count towards it.
    MAIN_BYTES.store((limit_bytes / 4 * 3).min(1 << 30), Ordering::Relaxed);
    // ORDERING: Release, with the Acquire in `StackRange::around`: carries MAIN_BYTES.
    MAIN_END.store(end, Ordering::Release);
}

/// Addresses `low..high`, every byte of which is readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackRange {
    /// First readable address.
    pub low: u64,
    /// End of the readable addresses.
    pub high: u64,
}

impl StackRange {
    /// Nothing is known.
    pub const EMPTY: StackRange = StackRange { low: 0, high: 0 };

    /// Whether `address` lies inside.
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        address >= self.low && address < self.high
    }

    /// Whether `address` is aligned and its word lies inside.
    #[inline]
    fn has_word(&self, address: u64) -> bool {
        is_word_of(address, self.low, self.high.wrapping_sub(self.low) >> 3)
    }

    /// The range from the page of `sp` to the end of the main stack, if `sp` lies there.
    #[inline]
    pub fn of_main(sp: u64) -> Option<StackRange> {
        // ORDERING: Acquire, with the Release in `init`.
        let end = MAIN_END.load(Ordering::Acquire);
        let below_bytes = end.wrapping_sub(sp);
        let is_main = below_bytes != 0 && below_bytes <= MAIN_BYTES.load(Ordering::Relaxed);
        is_main.then_some(StackRange {
            low: sp & !(PAGE_BYTES - 1),
            high: end,
        })
    }

    /// What can still be read of a stack that may be gone, from the page of `sp` outwards.
    pub fn retested_from(self, sp: u64) -> StackRange {
        let low = sp & !(PAGE_BYTES - 1);
        let end = self.high.min(low + RETESTED_PAGES * PAGE_BYTES);
        let mut high = low;
        while high < end && is_readable(high) {
            high += PAGE_BYTES;
        }
        match high == low {
            true => StackRange::EMPTY,
            false => StackRange { low, high },
        }
    }

    /// The range and all pages outwards of it up to the one before `end`; `None` unless all can be read.
    pub fn joined_to(self, end: u64) -> Option<StackRange> {
        let mut high = self.high;
        if end.saturating_sub(high) > OWN_PAGES * PAGE_BYTES {
            return None;
        }
        while high < end {
            if !is_readable(high) {
                return None;
            }
            high += PAGE_BYTES;
        }
        Some(StackRange { high, ..self })
    }

    /// Whether this is (part of) the main thread's stack, whose bounds need no learning.
    #[inline]
    pub fn is_main(&self) -> bool {
        self.high != 0 && self.high == MAIN_END.load(Ordering::Relaxed)
    }
}

/// One comparison for three: an unaligned address turns into a huge number of words.
#[inline(always)]
fn is_word_of(address: u64, low: u64, word_count: u64) -> bool {
    address.wrapping_sub(low).rotate_right(3) < word_count
}

/// The part of a stack that is known to be readable, at some moment of a walk.
#[derive(Clone, Copy, Debug)]
pub struct KnownStack {
    low: u64,
    word_count: u64,
}

impl KnownStack {
    /// The word at `address`, if it lies there.
    #[inline(always)]
    pub fn read(self, address: u64) -> Option<u64> {
        if !self.has_word(address) {
            return None;
        }
        // SAFETY: as in `StackReader::read`: made from its range, and used in the same walk.
        Some(unsafe { core::ptr::read_volatile(address as *const u64) })
    }

    /// Whether `address` is aligned and its word lies there.
    #[inline(always)]
    fn has_word(self, address: u64) -> bool {
        is_word_of(address, self.low, self.word_count)
    }

    /// How many of these return addresses, from the first on, lie right below the stack pointers of
    /// the same places; 0 if not all of these lie in the stack.
    ///
    /// # Safety
    /// The stack pointers are multiples of 8 and grow.
    #[inline(always)]
    pub unsafe fn count_equal_below(self, sps: &[u64], ips: &[u64]) -> usize {
        let has = |sp: Option<&u64>| sp.is_some_and(|sp| self.has_word(sp.wrapping_sub(8)));
        if !has(sps.first()) || !has(sps.last()) {
            return 0;
        }
        let differs = |sp: &u64, ip: &u64| {
            // SAFETY: as in `read`: between two aligned words of the stack, and aligned.
            let found = unsafe { core::ptr::read_volatile((*sp - 8) as *const u64) };
            found != *ip
        };
        // Nearly always all are equal: a loop over four at a time, and nothing to be kept for its end.
        let mut count = 0;
        let (sp_groups, sps_left) = sps.as_chunks::<4>();
        let (ip_groups, ips_left) = ips.as_chunks::<4>();
        for ([a, b, c, d], [e, f, g, h]) in sp_groups.iter().zip(ip_groups) {
            if differs(a, e) {
                return count;
            }
            if differs(b, f) {
                return count + 1;
            }
            if differs(c, g) {
                return count + 2;
            }
            if differs(d, h) {
                return count + 3;
            }
            count += 4;
        }
        for (sp, ip) in sps_left.iter().zip(ips_left) {
            if differs(sp, ip) {
                break;
            }
            count += 1;
        }
        count
    }

    /// Whether all of these words, innermost last, are what they were; `false` says nothing if not all
    /// of them lie in the stack.
    ///
    /// # Safety
    /// Their addresses are multiples of 8, each at most that of the one before.
    #[inline(always)]
    pub unsafe fn has_words(self, words: &[Word]) -> bool {
        let (Some(outermost), Some(innermost)) = (words.first(), words.last()) else {
            return true;
        };
        let differs = |word: &Word| {
            // SAFETY: as in `read`: between two aligned words of the stack, and aligned.
            let found = unsafe { core::ptr::read_volatile(word.address as *const u64) };
            found != word.value
        };
        if !self.has_word(outermost.address) || !self.has_word(innermost.address) {
            return false;
        }
        let (groups, left) = words.as_chunks::<4>();
        for [a, b, c, d] in groups {
            if differs(a) || differs(b) || differs(c) || differs(d) {
                return false;
            }
        }
        !left.iter().any(differs)
    }
}

/// Reader of the stack that a walk is on.
#[derive(Debug)]
pub struct StackReader {
    range: StackRange,
    tests_left: u32,
}

impl StackReader {
    /// A reader for the stack of which `known` is known so far, or nothing.
    #[inline]
    pub fn new(known: StackRange) -> StackReader {
        StackReader {
            range: known,
            tests_left: TEST_BUDGET,
        }
    }

    /// What is known to be readable by now.
    #[inline]
    pub fn range(&self) -> StackRange {
        self.range
    }

    /// The word at `address`, or `None` if it is unaligned or cannot be read.
    #[inline]
    pub fn read(&mut self, address: u64) -> Option<u64> {
        if !self.range.has_word(address) && (address & 7 != 0 || !self.learn(address)) {
            return None;
        }
        // SAFETY: the address is aligned and inside memory that is mapped readable: the main
        // stack from a live stack pointer up, pages of the thread's own stack that were tested, or
        // others that were tested in this walk. Volatile: the words belong to other code's frames.
        Some(unsafe { core::ptr::read_volatile(address as *const u64) })
    }

    /// What can be read without asking anybody.
    #[inline]
    pub fn known(&self) -> KnownStack {
        KnownStack {
            low: self.range.low,
            word_count: self.range.high.wrapping_sub(self.range.low) >> 3,
        }
    }

    /// Tries to make `address` part of the range, or to make a new range around it.
    #[cold]
    #[inline(never)]
    fn learn(&mut self, address: u64) -> bool {
        if !(PAGE_BYTES..ADDRESS_LIMIT).contains(&address) {
            return false;
        }
        let page = address & !(PAGE_BYTES - 1);
        if !self.test(page) {
            return false;
        }
        if let Some(main) = StackRange::of_main(address) {
            self.range = main;
            return true;
        }
        let span = PAGE_BYTES * JOIN_PAGES;
        if page >= self.range.high && page - self.range.high < span {
            while self.range.high < page && self.test(self.range.high) {
                self.range.high += PAGE_BYTES;
            }
            if self.range.high == page {
                self.range.high += PAGE_BYTES;
                return true;
            }
        } else if page < self.range.low && self.range.low - page <= span {
            while self.range.low > page && self.test(self.range.low - PAGE_BYTES) {
                self.range.low -= PAGE_BYTES;
            }
            if self.range.low == page {
                return true;
            }
        }
        self.range = StackRange {
            low: page,
            high: page + PAGE_BYTES,
        };
        true
    }

    fn test(&mut self, page: u64) -> bool {
        if self.tests_left == 0 {
            return false;
        }
        self.tests_left -= 1;
        is_readable(page)
    }
}

/// Asks the kernel whether the aligned word at `address` can be read.
///
/// `rt_sigprocmask` with an invalid operation copies the new mask in, then refuses: EFAULT
/// says unreadable, EINVAL readable, and nothing changes either way. It needs no descriptor
/// and sandboxes allow it. Made without libc, so that errno stays as the program left it.
fn is_readable(address: u64) -> bool {
    const RT_SIGPROCMASK: i64 = 14;
    const INVALID_OPERATION: i64 = -1;
    const EINVAL: i64 = 22;
    let result: i64;
    // SAFETY: the call neither reads nor writes our memory: the kernel copies 8 bytes from
    // `address` if it can, and the invalid operation makes it fail before any change.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") RT_SIGPROCMASK => result,
            in("rdi") INVALID_OPERATION,
            in("rsi") address,
            in("rdx") 0_u64,
            in("r10") 8_u64,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == -EINVAL
}

#[cfg(test)]
mod tests {
    use super::{StackRange, StackReader, is_readable};

    #[test]
    fn unreadable_addresses_are_told_from_readable_ones() {
        let word = 7_u64;
        assert!(is_readable(&raw const word as u64));
        assert!(!is_readable(0));
        assert!(!is_readable(0xffff_8000_0000_0000));
    }

    #[test]
    fn a_read_outside_any_mapping_answers_none() {
        let words = vec![3_u64; 1024];
        let start = words.as_ptr() as u64;
        let mut reader = StackReader::new(StackRange::EMPTY);
        assert_eq!(reader.read(start), Some(3));
        assert_eq!(reader.read(start + 4), None);
        assert_eq!(reader.read(u64::MAX - 7), None);
        assert_eq!(reader.read(0), None);
        assert_eq!(reader.read(start + 8 * 1023), Some(3));
    }
}
