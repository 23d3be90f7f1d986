//! Atomics that can be made to fail: before the k-th operation of a thread something happens.
//!
//! Only under `--cfg stackdepot_fault`, for `tests/attack/fault.rs`: a thread arms itself with an
//! action, which then dies (unwinds) or does what a signal handler would do. Operations of the
//! action itself are not counted.

extern crate std;

use core::sync::atomic as real;
pub use real::Ordering;
use std::boxed::Box;
use std::cell::RefCell;

/// What happens before an operation.
type Action = Box<dyn FnOnce()>;

std::thread_local! {
    static ARMED: RefCell<Option<(u64, Action)>> = const { RefCell::new(None) };
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
                step();
                self.0.load(ordering)
            }

            pub fn store(&self, value: $word, ordering: Ordering) {
                step();
                self.0.store(value, ordering);
            }

            pub fn swap(&self, value: $word, ordering: Ordering) -> $word {
                step();
                self.0.swap(value, ordering)
            }

            pub fn compare_exchange(
                &self,
                seen: $word,
                new: $word,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$word, $word> {
                step();
                self.0.compare_exchange(seen, new, success, failure)
            }

            pub fn fetch_add(&self, value: $word, ordering: Ordering) -> $word {
                step();
                self.0.fetch_add(value, ordering)
            }

            pub fn fetch_sub(&self, value: $word, ordering: Ordering) -> $word {
                step();
                self.0.fetch_sub(value, ordering)
            }

            pub fn fetch_or(&self, value: $word, ordering: Ordering) -> $word {
                step();
                self.0.fetch_or(value, ordering)
            }

            pub fn fetch_xor(&self, value: $word, ordering: Ordering) -> $word {
                step();
                self.0.fetch_xor(value, ordering)
            }

            pub fn fetch_and(&self, value: $word, ordering: Ordering) -> $word {
                step();
                self.0.fetch_and(value, ordering)
            }

            pub fn fetch_max(&self, value: $word, ordering: Ordering) -> $word {
                step();
                self.0.fetch_max(value, ordering)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
