// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The ring of the newest events, whose stacks the depot keeps by leases.
//!
//! A push takes a place, saves the stack under a lease, fills the place; a reader copies the
//! stack and then asks whether the lease still lasted, so that it never shows another stack.
#![expect(
    unsafe_code,
    reason = "C functions: pointers that the C side vouches for"
)]

use crate::view::{CursorView, DepotView, RingView};
use core::ptr::NonNull;
use stackdepot::ring::{Event, EventKind, Pushed, Ring, RingConfig, ring_bytes};
use stackdepot::{Hold, WeakHandle};

/// `struct sdc_event`.
#[repr(C)]
pub struct SdcEvent {
    address: u64,
    size: u64,
    time: u64,
    stack: u64,
    thread: u32,
    kind: u32,
}

/// What became of a push: `SDC_PUSHED`, `SDC_NO_STACK`, `SDC_LAPPED`.
#[repr(u32)]
pub enum SdcPushed {
    /// The event is in the ring with its stack.
    Yes = 0,
    /// It is there without, for the save was refused.
    NoStack = 1,
    /// It came a whole lap late and is dropped.
    Lapped = 2,
}

/// The bytes of a ring; 0 when the number of events is out of its limits.
#[unsafe(no_mangle)]
pub extern "C" fn sdc_ring_bytes(events: u32) -> u64 {
    ring_bytes(&RingConfig::new(events)).map_or(0, |bytes| bytes as u64)
}

/// The ticks of a lease that the depot behind such a ring must have.
#[unsafe(no_mangle)]
pub extern "C" fn sdc_ring_lease_ticks(events: u32) -> u32 {
    RingConfig::new(events).lease_ticks()
}

/// Makes a ring in zeroed memory; 0, or -1 when a number is out of its limits.
///
/// # Safety
/// `view` is writable; `base` has `sdc_ring_bytes(events)` zeroed bytes, aligned to 64, that live
/// as long as the view and are touched by nobody else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_ring_create(
    view: &mut RingView,
    base: NonNull<u8>,
    events: u32,
) -> i32 {
    // SAFETY: the caller's promise.
    match unsafe { Ring::create(base, &RingConfig::new(events)) } {
        Ok(ring) => {
            view.set(ring);
            0
        }
        Err(_) => -1,
    }
}

/// Puts an event and its stack into the ring. `event.stack` is not looked at.
///
/// # Safety
/// Both views were made before; `frames` has `count` words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_ring_push(
    ring: &RingView,
    depot: &DepotView,
    event: &SdcEvent,
    frames: *const u64,
    count: u32,
) -> SdcPushed {
    // SAFETY: the caller's promise.
    let (ring, depot, frames) = unsafe {
        (
            ring.get(),
            depot.get(),
            core::slice::from_raw_parts(frames, count as usize),
        )
    };
    let place = ring.claim(&depot.depot, 0);
    let stack = depot.save(frames, Hold::Lease).map(|leased| leased.weak);
    let kind = if event.kind == EventKind::Free as u32 {
        EventKind::Free
    } else {
        EventKind::Alloc
    };
    let filled = Event {
        time: event.time,
        thread: event.thread,
        ..Event::new(kind, event.address, event.size, stack)
    };
    match ring.fill(place, &filled) {
        Pushed::Lapped => SdcPushed::Lapped,
        _ if stack.is_none() => SdcPushed::NoStack,
        _ => SdcPushed::Yes,
    }
}

/// Begins to read the ring, newest event first.
///
/// # Safety
/// `ring` was made before; `cursor` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_ring_begin(ring: &RingView, cursor: &mut CursorView) {
    // SAFETY: the caller's promise.
    cursor.set(unsafe { ring.get() }.events());
}

/// The next event, and its stack copied to `out`; answers the number of its frames, 0 when it has
/// no stack (any more), -1 after the last event.
///
/// # Safety
/// All views were made before, `cursor` by `sdc_ring_begin` of this ring; `out` has room for
/// `room` words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_ring_next(
    ring: &RingView,
    depot: &DepotView,
    cursor: &mut CursorView,
    event: &mut SdcEvent,
    out: *mut u64,
    room: u32,
) -> i32 {
    // SAFETY: the caller's promise.
    let (ring, depot, events, out) = unsafe {
        (
            ring.get(),
            depot.get(),
            cursor.get_mut(),
            core::slice::from_raw_parts_mut(out, room as usize),
        )
    };
    let Some(found) = events.next() else {
        return -1;
    };
    *event = SdcEvent {
        address: found.address,
        size: found.size,
        time: found.time,
        stack: found.stack.map_or(0, WeakHandle::to_bits),
        thread: found.thread,
        kind: found.kind as u32,
    };
    match found.stack.map(|stack| depot.fetch(stack, out)) {
        Some(count) if ring.still_leased(&depot.depot, &found) => count as i32,
        _ => 0,
    }
}
