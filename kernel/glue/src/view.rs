// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Depots and rings as C sees them: opaque words that hold the core's own view.
//!
//! C owns the words and promises that they and the memory behind them live as long as they are
//! used; the core's views are plain copyable data, so nothing is ever dropped.
#![expect(unsafe_code, reason = "places Rust views in memory that C owns")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::padded::{MOST_WORDS, OutermostRun, Runs, filler_count, frame_count};
use stackdepot::ring::{Events, Ring};
use stackdepot::{Depot, Handle, Hold, Leased, WeakHandle};

/// Words of `struct sdc_depot`.
const DEPOT_WORDS: usize = 64;
/// Words of `struct sdc_ring`.
const RING_WORDS: usize = 32;
/// Words of `struct sdc_cursor`.
const CURSOR_WORDS: usize = 32;

/// A depot whose stacks are filled up (`padded.rs`).
pub struct PaddedDepot {
    /// The depot; what is saved in it and fetched from it by others is filled up.
    pub depot: Depot<'static>,
    /// Most frames of a stack, at most `padded::MOST_FRAMES`.
    pub most_frames: usize,
    /// Stacks that were longer.
    pub truncated: AtomicU64,
    /// Fetches by handles that were recognised as stale.
    pub stale_fetches: AtomicU64,
}

impl PaddedDepot {
    /// Finds or stores a stack and holds it; `None` when it was refused (counted), or empty.
    #[inline(always)]
    pub fn save(&self, frames: &[u64], hold: Hold) -> Option<Leased> {
        if frames.len() > self.most_frames {
            return self.save_cut(frames, hold);
        }
        let mut room = OutermostRun::new();
        let Runs { inner, outermost } = room.cut(frames, false)?;
        self.depot.save_runs(inner, outermost, hold).ok()
    }

    #[cold]
    #[inline(never)]
    fn save_cut(&self, frames: &[u64], hold: Hold) -> Option<Leased> {
        // ORDERING: a statistic.
        self.truncated.fetch_add(1, Ordering::Relaxed);
        let mut room = OutermostRun::new();
        let Runs { inner, outermost } = room.cut(frames.get(..self.most_frames)?, true)?;
        self.depot.save_runs(inner, outermost, hold).ok()
    }

    /// Copies a held stack out, as much as `out` takes; answers how many frames that is, 0 when the handle
    /// is recognised as stale (counted).
    #[inline(always)]
    pub fn fetch_held(&self, handle: Handle, kept: u32, out: &mut [u64]) -> usize {
        let fetched = self.depot.fetch_filled(handle, kept, out, filler_count);
        fetched.unwrap_or_else(|| self.fetch_other(handle, kept, out))
    }

    #[cold]
    #[inline(never)]
    fn fetch_other(&self, handle: Handle, kept: u32, out: &mut [u64]) -> usize {
        let weak = self.depot.weak_of_bits(handle, kept);
        let count = weak.map_or(0, |weak| self.fetch(weak, out));
        if count == 0 {
            // ORDERING: a statistic.
            self.stale_fetches.fetch_add(1, Ordering::Relaxed);
        }
        count.min(out.len())
    }

    /// Copies a stack out, as much as `out` takes, and may overwrite the rest of `out`; answers how
    /// many frames it has, 0 when it is gone.
    pub fn fetch(&self, weak: WeakHandle, out: &mut [u64]) -> usize {
        let Ok(fetched) = self.depot.fetch(weak, out) else {
            return 0;
        };
        let length = fetched.frame_count;
        match length.checked_sub(1).and_then(|last| out.get(last)) {
            Some(outermost) => frame_count(length, *outermost),
            None => self.fetch_short(weak, out),
        }
    }

    /// The same where `out` does not take the outermost word.
    #[cold]
    #[inline(never)]
    fn fetch_short(&self, weak: WeakHandle, out: &mut [u64]) -> usize {
        let mut words = [0; MOST_WORDS];
        let Ok(fetched) = self.depot.fetch(weak, &mut words) else {
            return 0;
        };
        let length = fetched.frame_count;
        let outermost = length.checked_sub(1).and_then(|last| words.get(last));
        let count = frame_count(length, outermost.copied().unwrap_or(0));
        for (place, frame) in out.iter_mut().zip(words).take(count) {
            *place = frame;
        }
        count
    }
}

/// `struct sdc_depot`.
#[repr(C, align(64))]
pub struct DepotView(UnsafeCell<[u64; DEPOT_WORDS]>);

/// `struct sdc_ring`: the ring and the depot behind it.
#[repr(C, align(64))]
pub struct RingView([u64; RING_WORDS]);

/// `struct sdc_cursor`: how far a reader of the ring is.
#[repr(C, align(8))]
pub struct CursorView([u64; CURSOR_WORDS]);

macro_rules! view {
    ($view:ty, $held:ty) => {
        const _: () = assert!(
            size_of::<$held>() <= size_of::<$view>() && align_of::<$held>() <= align_of::<$view>()
        );

        impl $view {
            /// Puts the core's view into the words.
            pub fn set(&mut self, held: $held) {
                // SAFETY: large and aligned enough (asserted above), and exclusively borrowed.
                unsafe { core::ptr::from_mut(self).cast::<$held>().write(held) }
            }
        }
    };
}

view!(DepotView, PaddedDepot);
view!(RingView, Ring<'static>);
view!(CursorView, Events<'static>);

macro_rules! read {
    ($view:ty, $held:ty) => {
        impl $view {
            /// The core's view.
            ///
            /// # Safety
            /// `set` was called before.
            #[inline(always)]
            pub unsafe fn get(&self) -> &$held {
                // SAFETY: the caller's promise; the words hold it from `set` on.
                unsafe { &*core::ptr::from_ref(self).cast::<$held>() }
            }
        }
    };
}

read!(DepotView, PaddedDepot);
read!(RingView, Ring<'static>);

impl CursorView {
    /// The reader, to be moved on.
    ///
    /// # Safety
    /// `set` was called before.
    pub unsafe fn get_mut(&mut self) -> &mut Events<'static> {
        // SAFETY: the caller's promise, and the exclusive borrow.
        unsafe { &mut *core::ptr::from_mut(self).cast::<Events<'static>>() }
    }
}
