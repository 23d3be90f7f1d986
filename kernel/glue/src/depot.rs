// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Save, hold, fetch, put and count, with handles of 27 bits.
//!
//! Key type: the kernel's handle, the core's without its high [`EXTRA_BITS`] bits, which belong to
//! the caller. As many of the rest as the number of slots does not need carry the generation,
//! so most handles that outlived their stack are recognised: a fetch answers 0, a put is counted.
#![expect(
    unsafe_code,
    reason = "C functions: pointers that the C side vouches for"
)]

use crate::padded::{MOST_FRAMES, padded_length};
use crate::view::{DepotView, PaddedDepot};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use stackdepot::{Config, Depot, Handle, HashChoice, Hold, WeakHandle};

/// Bits of a handle that are the caller's.
const EXTRA_BITS: u32 = 5;
/// Bits of a handle that are ours.
const KEPT: u32 = u32::MAX >> EXTRA_BITS;

/// `struct sdc_config`.
#[repr(C)]
pub struct SdcConfig {
    bytes: u64,
    seed: u64,
    payload_words: u32,
    max_frames: u32,
    lease_ticks: u32,
    generation_limit: u32,
}

/// `struct sdc_stats`.
#[repr(C)]
pub struct SdcStats {
    region_bytes: u64,
    slots: u64,
    slot_bits: u64,
    nodes: u64,
    new_stacks: u64,
    evicted_stacks: u64,
    evicted_nodes: u64,
    full: u64,
    contended: u64,
    crowded: u64,
    saturated: u64,
    truncated: u64,
    wide_nodes: u64,
    worn_slots: u64,
    stale_puts: u64,
    stale_fetches: u64,
    windows: u64,
}

/// The handle as the kernel keeps it.
#[inline]
pub(crate) fn kept_bits(handle: Handle) -> u32 {
    handle.to_bits() & KEPT
}

#[inline]
fn weak_of(depot: &Depot<'_>, handle: u32) -> Option<WeakHandle> {
    depot.weak_of_bits(Handle::from_bits(handle & KEPT)?, KEPT)
}

/// Makes a depot in zeroed memory; 0, or -1 when a number is out of its limits.
///
/// # Safety
/// `view` is writable; `base` has `config.bytes` zeroed bytes, aligned to 64, that live as long
/// as the view and are touched by nobody else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_create(
    view: &mut DepotView,
    base: NonNull<u8>,
    config: &SdcConfig,
) -> i32 {
    let most_frames = config.max_frames as usize;
    if most_frames > MOST_FRAMES {
        return -1;
    }
    let config = Config {
        references: true,
        lease_ticks: config.lease_ticks,
        payload_words: config.payload_words,
        max_frames: padded_length(most_frames) as u32,
        seed: config.seed,
        generation_limit: config.generation_limit,
        hash: HashChoice::Portable,
        ..Config::new(config.bytes as usize)
    };
    // SAFETY: the caller's promise.
    match unsafe { Depot::create(base, &config) } {
        Ok(depot) => {
            view.set(PaddedDepot {
                depot,
                most_frames,
                truncated: AtomicU64::new(0),
                stale_fetches: AtomicU64::new(0),
            });
            0
        }
        Err(_) => -1,
    }
}

const fn hold_of(number: u32) -> Hold {
    match number {
        1 => Hold::Reference,
        2 => Hold::Lease,
        4 => Hold::Forever,
        _ => Hold::None,
    }
}

/// Finds or stores a stack and holds it; 0 when it was refused (counted). `hold`: 0 none, 1 a
/// reference, 2 a lease, 4 for ever.
///
/// # Safety
/// `view` was made by `sdc_create`; `frames` has `count` words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_save(
    view: &DepotView,
    frames: *const u64,
    count: u32,
    hold: u32,
) -> u32 {
    // SAFETY: the caller's promise.
    let (depot, frames) = unsafe {
        (
            view.get(),
            core::slice::from_raw_parts(frames, count as usize),
        )
    };
    let saved = depot.save(frames, hold_of(hold));
    saved.map_or(0, |saved| kept_bits(saved.handle))
}

/// Copies the stack of a handle to `out`, as much as `room` words take; answers how many frames
/// that is, 0 when the handle is recognised as stale (counted).
///
/// # Safety
/// `view` was made by `sdc_create`; `out` has room for `room` words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_fetch(view: &DepotView, handle: u32, out: *mut u64, room: u32) -> u32 {
    // SAFETY: the caller's promise.
    let (depot, out) = unsafe {
        (
            view.get(),
            core::slice::from_raw_parts_mut(out, room as usize),
        )
    };
    let Some(handle) = Handle::from_bits(handle & KEPT) else {
        return 0;
    };
    depot.fetch_held(handle, KEPT, out) as u32
}

/// The lasting name of a handle that is held; 0 when it is recognised as stale.
///
/// # Safety
/// `view` was made by `sdc_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_weak(view: &DepotView, handle: u32) -> u64 {
    // SAFETY: the caller's promise.
    weak_of(unsafe { &view.get().depot }, handle).map_or(0, WeakHandle::to_bits)
}

/// `sdc_fetch` by a lasting name.
///
/// # Safety
/// As for `sdc_fetch`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_fetch_weak(
    view: &DepotView,
    weak: u64,
    out: *mut u64,
    room: u32,
) -> u32 {
    // SAFETY: the caller's promise.
    let (depot, out) = unsafe {
        (
            view.get(),
            core::slice::from_raw_parts_mut(out, room as usize),
        )
    };
    depot.fetch(WeakHandle::from_bits(weak), out) as u32
}

/// Gives a reference back. A handle that names nothing held is ignored and counted.
///
/// # Safety
/// `view` was made by `sdc_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_put(view: &DepotView, handle: u32) {
    // SAFETY: the caller's promise.
    let depot = unsafe { &view.get().depot };
    if let Some(handle) = Handle::from_bits(handle & KEPT) {
        depot.put_bits(handle, KEPT);
    }
}

/// Adds to the stack's number. The stack must be held by a reference, or for ever.
///
/// # Safety
/// `view` was made by `sdc_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_add(view: &DepotView, handle: u32, delta: u64) {
    // SAFETY: the caller's promise.
    let depot = unsafe { &view.get().depot };
    if let Some(weak) = weak_of(depot, handle) {
        depot.add_payload(depot.handle_of(weak), 0, delta);
    }
}

/// The stack's number; 0 when the handle is recognised as stale.
///
/// # Safety
/// `view` was made by `sdc_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_payload(view: &DepotView, handle: u32) -> u64 {
    // SAFETY: the caller's promise.
    let depot = unsafe { &view.get().depot };
    let payload = weak_of(depot, handle).and_then(|weak| depot.payload(weak).ok());
    payload.map_or(0, |[first, ..]| first)
}

/// The handle of the first saved stack in a slot after `slot`, and its number through `payload`;
/// 0 after the last. A stack that is stored all the time is met once.
///
/// # Safety
/// `view` was made by `sdc_create`; `slot` and `payload` are writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_next(view: &DepotView, slot: &mut u32, payload: &mut u64) -> u32 {
    // SAFETY: the caller's promise.
    let depot = unsafe { &view.get().depot };
    match depot.walk_after(*slot).next() {
        Some(walked) => {
            *slot = walked.weak.slot();
            [*payload, ..] = walked.payload;
            kept_bits(depot.handle_of(walked.weak))
        }
        None => 0,
    }
}

/// Moves the depot's clock.
///
/// # Safety
/// `view` was made by `sdc_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_advance(view: &DepotView, ticks: u32) {
    // SAFETY: the caller's promise.
    unsafe { view.get() }.depot.advance(ticks);
}

/// Reads the counters.
///
/// # Safety
/// `view` was made by `sdc_create`; `stats` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sdc_stats(view: &DepotView, stats: &mut SdcStats) {
    // SAFETY: the caller's promise.
    let PaddedDepot {
        depot,
        truncated,
        stale_fetches,
        ..
    } = unsafe { view.get() };
    let counted = depot.stats();
    *stats = SdcStats {
        region_bytes: depot.region_bytes() as u64,
        slots: counted.slot_count,
        slot_bits: u64::from(u64::BITS - counted.slot_count.leading_zeros()),
        nodes: counted.node_count,
        new_stacks: counted.new_stacks,
        evicted_stacks: counted.evicted_stacks,
        evicted_nodes: counted.evicted_nodes,
        full: counted.full,
        contended: counted.contended,
        crowded: counted.crowded,
        saturated: counted.saturated,
        // ORDERING: a statistic.
        truncated: truncated.load(Ordering::Relaxed),
        wide_nodes: counted.wide_nodes,
        worn_slots: counted.worn_slots,
        stale_puts: counted.stale_puts,
        // ORDERING: a statistic.
        stale_fetches: stale_fetches.load(Ordering::Relaxed),
        windows: counted.windows,
    };
}
