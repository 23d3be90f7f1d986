//! Atomics that can be made to fail, and watched: before the k-th operation of a thread something
//! happens, or all of its operations are written down.
//!
//! Only under `--cfg stackdepot_fault`. For `tests/attack/fault.rs` a thread arms itself with an
//! action, which then dies (unwinds) or does what a signal handler would do; operations of the
//! action itself are not counted. `tests/hostile` watches which words a save looks at and writes.

extern crate std;

use core::sync::atomic as real;
pub use real::Ordering;
use std::boxed::Box;
use std::cell::RefCell;
use std::vec::Vec;

/// What happens before an operation.
type Action = Box<dyn FnOnce()>;

/// One operation on a shared word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where the word lies.
    pub address: usize,
    /// Whether it may change the word, and so takes the line from others: all but loads.
    pub is_write: bool,
}

std::thread_local! {
    static ARMED: RefCell<Option<(u64, Action)>> = const { RefCell::new(None) };
    static WATCHED: RefCell<Option<Vec<Access>>> = const { RefCell::new(None) };
}

/// Writes down this thread's operations from now on.
pub fn watch() {
    WATCHED.set(Some(Vec::new()));
}

/// Ends the watch; answers the operations in their order, without fences.
pub fn watched() -> Vec<Access> {
    WATCHED.take().unwrap_or_default()
}

fn access<T>(word: &T, is_write: bool) {
    step();
    WATCHED.with_borrow_mut(|watched| {
        if let Some(accesses) = watched {
            let address = core::ptr::from_ref(word).addr();
            accesses.push(Access { address, is_write });
        }
    });
}

/// Lets `action` happen right before this thread's operation number `operation` (from 1) from now on.
pub fn arm(operation: u64, action: Action) {
    ARMED.set(Some((operation, action)));
}

/// Disarms this thread; answers whether the action did not happen: there were fewer operations.
pub fn disarm() -> bool {
    ARMED.take().is_some()
}

fn step() {
    let due = ARMED.with_borrow_mut(|armed| {
        let (left, _) = armed.as_mut()?;
        *left -= 1;
        if *left == 0 { armed.take() } else { None }
    });
    if let Some((_, action)) = due {
        action();
    }
}

/// A fence that counts as an operation.
pub fn fence(ordering: Ordering) {
    step();
    real::fence(ordering);
}

/// One of the two atomics, each operation of which counts.
macro_rules! atomic {
    ($name:ident, $word:ty) => {
        /// An atomic word whose operations count.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(real::$name);

        #[allow(missing_docs, reason = "as in core::sync::atomic")]
        impl $name {
            pub const fn new(value: $word) -> $name {
                $name(real::$name::new(value))
            }

            pub fn load(&self, ordering: Ordering) -> $word {
                access(&self.0, false);
                self.0.load(ordering)
            }

            pub fn store(&self, value: $word, ordering: Ordering) {
                access(&self.0, true);
                self.0.store(value, ordering);
            }

            pub fn swap(&self, value: $word, ordering: Ordering) -> $word {
                access(&self.0, true);
                self.0.swap(value, ordering)
            }

            pub fn compare_exchange(
                &self,
                seen: $word,
                new: $word,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$word, $word> {
                access(&self.0, true);
                self.0.compare_exchange(seen, new, success, failure)
            }

            pub fn fetch_add(&self, value: $word, ordering: Ordering) -> $word {
                access(&self.0, true);
                self.0.fetch_add(value, ordering)
            }

            pub fn fetch_sub(&self, value: $word, ordering: Ordering) -> $word {
                access(&self.0, true);
                self.0.fetch_sub(value, ordering)
            }

            pub fn fetch_or(&self, value: $word, ordering: Ordering) -> $word {
                access(&self.0, true);
                self.0.fetch_or(value, ordering)
            }

            pub fn fetch_xor(&self, value: $word, ordering: Ordering) -> $word {
                access(&self.0, true);
                self.0.fetch_xor(value, ordering)
            }

            pub fn fetch_and(&self, value: $word, ordering: Ordering) -> $word {
                access(&self.0, true);
                self.0.fetch_and(value, ordering)
            }

            pub fn fetch_max(&self, value: $word, ordering: Ordering) -> $word {
                access(&self.0, true);
                self.0.fetch_max(value, ordering)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
