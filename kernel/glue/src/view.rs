// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Depots and rings as C sees them: opaque words that hold the core's own view.
//!
//! C owns the words and promises that they and the memory behind them live as long as they are
//! used; the core's views are plain copyable data, so nothing is ever dropped.
#![expect(unsafe_code, reason = "places Rust views in memory that C owns")]

use stackdepot::Depot;
use stackdepot::ring::{Events, Ring};

/// Words of `struct sdc_depot`.
const DEPOT_WORDS: usize = 64;
/// Words of `struct sdc_ring`.
const RING_WORDS: usize = 32;
/// Words of `struct sdc_cursor`.
const CURSOR_WORDS: usize = 32;

/// `struct sdc_depot`.
#[repr(C, align(64))]
pub struct DepotView([u64; DEPOT_WORDS]);

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

view!(DepotView, Depot<'static>);
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
                // SAFETY: the caller's promise; nobody writes the words after `set`.
                unsafe { &*core::ptr::from_ref(self).cast::<$held>() }
            }
        }
    };
}

read!(DepotView, Depot<'static>);
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
