//! Who called the allocator: a thread, through one family of functions.
//!
//! Key types: [`Caller`], the number that live table and ring keep as "thread", and [`Family`], in its
//! upper bits. What one family allocates only its own free gives back: a free by another one shows.
//! The bits of a caller: thread 22 (all that Linux gives out), family 2.

const THREAD_BITS: u32 = 22;
const THREAD_MASK: u32 = (1 << THREAD_BITS) - 1;

/// Functions that belong together, as the bits of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Family {
    /// `malloc`, `calloc`, `realloc`, the aligned forms, `free`; jemalloc's own too.
    C = 0,
    /// `operator new` and `operator delete`, all forms.
    New = 1 << THREAD_BITS,
    /// `operator new[]` and `operator delete[]`, all forms.
    NewArray = 2 << THREAD_BITS,
}

impl Family {
    /// The name of its allocating function.
    pub const fn alloc_name(self) -> &'static str {
        match self {
            Family::C => "malloc",
            Family::New => "operator new",
            Family::NewArray => "operator new[]",
        }
    }

    /// The name of its freeing function.
    pub const fn free_name(self) -> &'static str {
        match self {
            Family::C => "free",
            Family::New => "operator delete",
            Family::NewArray => "operator delete[]",
        }
    }
}

/// A thread and the family of functions that it called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller(u32);

impl Caller {
    /// A caller of its parts; longer thread numbers, which Linux does not have, are cut.
    #[inline]
    pub const fn new(thread: u32, family: Family) -> Caller {
        Caller(thread & THREAD_MASK | family as u32)
    }

    /// From a block or an event, which may hold anything.
    #[inline]
    pub const fn from_bits(bits: u32) -> Caller {
        Caller(bits)
    }

    /// As blocks and events keep it.
    #[inline]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The kernel's number of the thread.
    pub const fn thread(self) -> u32 {
        self.0 & THREAD_MASK
    }

    /// The functions that it called; `None` for what the recorder never writes.
    pub const fn family(self) -> Option<Family> {
        match self.0 >> THREAD_BITS {
            0 => Some(Family::C),
            1 => Some(Family::New),
            2 => Some(Family::NewArray),
            _ => None,
        }
    }

    /// Whether both called the same family.
    #[inline]
    pub const fn is_same_family(self, other: Caller) -> bool {
        self.0 ^ other.0 <= THREAD_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Family; 3] = [Family::C, Family::New, Family::NewArray];

    #[test]
    fn caller_comes_back_from_its_bits() {
        for family in ALL {
            for thread in [0, 1, 0x2a_aaaa, THREAD_MASK] {
                let caller = Caller::from_bits(Caller::new(thread, family).to_bits());
                assert_eq!((caller.thread(), caller.family()), (thread, Some(family)));
                assert!(caller.to_bits() < 1 << 24);
            }
        }
        assert_eq!(
            Caller::new(u32::MAX, Family::New).family(),
            Some(Family::New)
        );
        assert_eq!(Caller::from_bits(u32::MAX).family(), None);
    }

    #[test]
    fn only_equal_families_are_the_same() {
        for (first, second) in ALL
            .iter()
            .flat_map(|first| ALL.map(|second| (*first, second)))
        {
            let (a, b) = (Caller::new(7, first), Caller::new(THREAD_MASK, second));
            assert_eq!(a.is_same_family(b), first == second);
        }
    }
}
