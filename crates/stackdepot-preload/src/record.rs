//! The one place where an allocator call becomes a record: depot, payload, live table, ring.
//!
//! An alloc, after the real call: claim a place in the ring, take the stack, save it with a
//! reference and a lease, count it in the stack's payload, enter the block into the live table
//! (which takes the reference), fill the place. A free, before the real call: take the block out,
//! claim, save the free's stack with a lease, renew the lease of the alloc's stack, count, put the
//! reference, fill. The place comes first so that its tick is never younger than the leases.
//! Every call that changes what is allocated fills or loses exactly one place (a realloc two), so
//! that the ring's count is the count of the calls.

use stackdepot::cache::HoldCache;
use stackdepot::live::{Inserted, LiveBlock, Located, Removed};
use stackdepot::ring::{Event, EventKind, Place};
use stackdepot::{Depot, Hold, HoldError, Leased, SaveError, Tick, WeakHandle};
use stackdepot_region::caller::{Caller, Family};
use stackdepot_region::clock::tsc;
use stackdepot_region::counters::Counter;
use stackdepot_region::writer::RegionWriter;

use crate::check;
use crate::process::Recorder;
use crate::sampled;
use crate::thread::{Call, Frame, Outermost, Recording, meets_mark, passes_over};
use crate::unwind::{self, End, Walk};

/// The words of a stack's payload.
mod payload {
    /// Blocks; bytes in the next word.
    pub const ALLOCATED: usize = 0;
    /// Blocks; bytes in the next word.
    pub const FREED: usize = 2;
}

/// A block that a realloc took out of the record before the real call.
pub struct Resize {
    address: u64,
    removed: Removed,
    time: u64,
}

impl Outermost {
    /// The real function answered a new block.
    #[inline(always)]
    pub fn allocated(&self, address: usize, size: usize, family: Family) {
        let call = self.recording();
        if family != Family::C && self.is_recorded_inside(address) {
            return call.adopt_inner(address as u64, family);
        }
        allocated(call.recorder, call.frame, address, size, family);
    }

    /// The program gives a block back; the real function comes after.
    #[inline(always)]
    pub fn freed(&self, address: usize, family: Family) {
        let call = self.recording();
        freed(call.recorder, call.frame, address, family);
    }
}

/// An alloc in an outermost hook; its parts are handed over one by one, in registers.
#[inline(never)]
fn allocated(
    recorder: &'static Recorder,
    frame: &'static Frame,
    address: usize,
    size: usize,
    family: Family,
) {
    Recording::of_outermost(recorder, frame).allocated(address, size, family);
}

/// A free in an outermost hook.
#[inline(never)]
fn freed(recorder: &'static Recorder, frame: &'static Frame, address: usize, family: Family) {
    Recording::of_outermost(recorder, frame).freed(address, family);
}

impl Call {
    /// The real function answered a new block.
    pub fn allocated(&self, address: usize, size: usize, family: Family) {
        if family != Family::C && self.is_recorded_inside(address) {
            return self.recording().adopt_inner(address as u64, family);
        }
        self.note_inner_block(address);
        self.recording().allocated(address, size, family);
    }

    /// The program gives a block back; the real function comes after.
    pub fn freed(&self, address: usize, family: Family) {
        self.recording().freed(address, family);
    }
}

impl Recording {
    #[inline(always)]
    fn allocated(self, address: usize, size: usize, family: Family) {
        self.start();
        // Before the prefetch, for which the counter would wait.
        let time = tsc();
        let located = self.recorder.region.live.locate(address as u64);
        match self.buffer() {
            Some(buffer) => {
                let mut stack = self.capture(buffer);
                self.record_alloc(&mut stack, &located, size as u64, family, time);
            }
            None => self.with_stack_on_stack(move |stack| {
                self.record_alloc(stack, &located, size as u64, family, time);
            }),
        }
        self.stop();
    }

    #[inline(always)]
    fn freed(self, address: usize, family: Family) {
        self.start();
        // Before the prefetch, for which the counter would wait.
        let time = tsc();
        let located = self.recorder.region.live.locate(address as u64);
        if self.recorder.sampling.is_on() {
            self.freed_if_recorded(&located, family, time);
        } else if let Some(buffer) = self.buffer() {
            let mut stack = self.capture(buffer);
            self.free_with(&mut stack, &located, family, time);
        } else {
            self.with_stack_on_stack(move |stack| self.free_with(stack, &located, family, time));
        }
        self.stop();
    }

    /// Takes the block out and records the free.
    #[inline(always)]
    fn free_with(self, stack: &mut Walk<'_>, located: &Located<'_>, family: Family, time: u64) {
        let removed = self.take_out(located);
        self.record_free(stack, located.address(), family, time, &removed);
    }

    /// A free while most blocks are left out: one that is not known says nothing.
    #[cold]
    #[inline(never)]
    fn freed_if_recorded(self, located: &Located<'_>, family: Family, time: u64) {
        let removed = self.take_out(located);
        if let Removed::Block(_) = removed {
            let address = located.address();
            self.with_stack(|stack| self.record_free(stack, address, family, time, &removed));
        }
    }

    /// A realloc comes: the old block leaves the record, for another thread may be given its
    /// address before we hear the outcome.
    pub fn resizing(self, address: usize) -> Resize {
        self.start();
        let removed = self.take_out(&self.recorder.region.live.locate(address as u64));
        self.stop();
        Resize {
            address: address as u64,
            removed,
            time: tsc(),
        }
    }

    /// The realloc worked: a free and an alloc with the same stack.
    pub fn resized(self, old: Resize, address: usize, size: usize) {
        self.start();
        let time = tsc();
        let frees = self.is_told(&old.removed);
        let allocates = !passes_over(size) && meets_mark(self.recorder, size);
        if frees || allocates {
            self.with_stack(|stack| {
                if frees {
                    self.record_free(stack, old.address, Family::C, old.time, &old.removed);
                }
                if allocates {
                    let located = self.recorder.region.live.locate(address as u64);
                    self.record_alloc(stack, &located, size as u64, Family::C, time);
                }
            });
        }
        self.recorder
            .region
            .counters
            .add(Counter::Reallocs, self.shard(), 1);
        self.stop();
    }

    /// The realloc to no bytes freed the block.
    pub fn resized_to_nothing(self, old: Resize) {
        self.start();
        if self.is_told(&old.removed) {
            self.with_stack(|stack| {
                self.record_free(stack, old.address, Family::C, old.time, &old.removed)
            });
        }
        self.stop();
    }

    /// The realloc failed: the block is as it was.
    pub fn resize_failed(self, old: Resize) {
        self.start();
        if let Removed::Block(block) = old.removed {
            self.keep(&self.recorder.region.live.locate(old.address), &block);
        }
        self.stop();
    }

    /// Whether a free is recorded: with sampling only that of a recorded block.
    fn is_told(self, removed: &Removed) -> bool {
        !self.recorder.sampling.is_on() || matches!(removed, Removed::Block(_))
    }

    /// A call inside of an `operator new` recorded the block: a free asks for the outer function.
    #[cold]
    #[inline(never)]
    fn adopt_inner(self, address: u64, family: Family) {
        self.start();
        let located = self.recorder.region.live.locate(address);
        if let Removed::Block(block) = self.take_out(&located) {
            let caller = Caller::new(Caller::from_bits(block.thread).thread(), family);
            self.keep(
                &located,
                &LiveBlock {
                    thread: caller.to_bits(),
                    ..block
                },
            );
        }
        self.stop();
    }

    #[inline(always)]
    fn record_alloc(
        self,
        stack: &mut Walk<'_>,
        located: &Located<'_>,
        size: u64,
        family: Family,
        time: u64,
    ) {
        let region = &self.recorder.region;
        let address = located.address();
        let place = region.ring.claim(&region.depot, self.shard());
        let thread = self.caller(family).to_bits();
        let stack = self.save_counted(stack, &self.share(address, size, time));
        let block = LiveBlock {
            stack,
            size,
            thread,
            time,
        };
        self.keep(located, &block);
        let event = Event {
            time,
            thread,
            ..Event::new(EventKind::Alloc, address, size, stack)
        };
        self.fill(place, &event);
    }

    #[inline(always)]
    fn record_free(
        self,
        stack: &mut Walk<'_>,
        address: u64,
        family: Family,
        time: u64,
        removed: &Removed,
    ) {
        let region = &self.recorder.region;
        let place = region.ring.claim(&region.depot, self.shard());
        let caller = self.caller(family);
        let saved = self.save_leased(stack);
        let mut event = Event {
            time,
            thread: caller.to_bits(),
            ..Event::new(EventKind::Free, address, 0, saved)
        };
        match removed {
            Removed::Block(block) => {
                event.size = block.size;
                event.other_thread = block.thread;
                event.other_time = Some(block.time);
                if !caller.is_same_family(Caller::from_bits(block.thread)) {
                    event.kind = EventKind::MismatchedFree;
                    region.counters.count(Counter::FreesMismatched);
                }
                let share = self.share(address, block.size, block.time);
                event.other_stack = block
                    .stack
                    .filter(|held| self.put_for_lease(stack, *held, &share).is_ok());
            }
            Removed::Unsampled => {}
            Removed::Unknown => {
                if self.recorder.knows_every_block() {
                    event.kind = EventKind::UnknownFree;
                }
                region.counters.add(Counter::FreesUnknown, self.shard(), 1);
            }
        }
        self.fill(place, &event);
    }

    /// Saves a stack with a reference and a lease, and counts a block in its payload; one that the
    /// thread knows again only needs the hold.
    #[inline(always)]
    fn save_counted(self, stack: &mut Walk<'_>, share: &[u64; 2]) -> Option<WeakHandle> {
        let depot = &self.recorder.region.depot;
        let noted = WeakHandle::from_bits(stack.note());
        if noted != WeakHandle::from_bits(0) && self.hold_again(stack, noted, share).is_ok() {
            return Some(noted);
        }
        let saved = self.save_anew(stack, Hold::ReferenceAndLease)?;
        depot.add_payload_words(saved.handle, payload::ALLOCATED, share);
        Some(saved.weak)
    }

    /// Holds and counts a stack that the thread knows again, out of its cache if it has one.
    #[inline(always)]
    fn hold_again(
        self,
        stack: &Walk<'_>,
        noted: WeakHandle,
        share: &[u64; 2],
    ) -> Result<(), HoldError> {
        let depot = &self.recorder.region.depot;
        if let Some(cache) = self.cache(stack) {
            return cache.hold_with_payload(depot, noted, payload::ALLOCATED, share);
        }
        let hold = Hold::ReferenceAndLease;
        let held = depot.hold_with_payload(noted, hold, payload::ALLOCATED, share);
        held.map(|_| ())
    }

    /// The reference of a block that is freed becomes a lease, and the free is counted.
    #[inline(always)]
    fn put_for_lease(
        self,
        stack: &Walk<'_>,
        held: WeakHandle,
        share: &[u64; 2],
    ) -> Result<Tick, HoldError> {
        let depot = &self.recorder.region.depot;
        match self.cache(stack) {
            Some(cache) => cache.put_for_lease(depot, held, payload::FREED, share),
            None => depot.put_for_lease(held, payload::FREED, share),
        }
    }

    /// What the thread holds in advance, for as long as its walk keeps handlers and others out.
    #[inline(always)]
    fn cache(self, stack: &Walk<'_>) -> Option<HoldCache<'static>> {
        self.recorder.region.caches.get(stack.thread_number()?)
    }

    /// Saves a stack with a lease only.
    #[inline(always)]
    fn save_leased(self, stack: &mut Walk<'_>) -> Option<WeakHandle> {
        let depot = &self.recorder.region.depot;
        let noted = WeakHandle::from_bits(stack.note());
        if noted != WeakHandle::from_bits(0) && depot.hold(noted, Hold::Lease).is_ok() {
            return Some(noted);
        }
        Some(self.save_anew(stack, Hold::Lease)?.weak)
    }

    /// A stack that the thread does not know again.
    #[inline(always)]
    fn save_anew(self, stack: &mut Walk<'_>, hold: Hold) -> Option<Leased> {
        let saved = save(&self.recorder.region, stack.frames(), hold)?;
        stack.set_note(saved.weak.to_bits());
        Some(saved)
    }

    /// Takes a block out of the live table; what its stack needs comes while the free's stack is
    /// saved.
    #[inline(always)]
    fn take_out(self, located: &Located<'_>) -> Removed {
        let region = &self.recorder.region;
        let removed = region.live.remove_at(located);
        if let Removed::Block(block) = removed {
            if let Some(stack) = block.stack {
                region.depot.prefetch(stack);
            }
            if self.recorder.sampling.is_on() {
                sampled::remove(located.address());
            }
        }
        removed
    }

    /// Enters a block, with its reference, into the live table, and settles what came back.
    #[inline(always)]
    fn keep(self, located: &Located<'_>, block: &LiveBlock) {
        let inserted = self.recorder.region.live.insert_at(located, block);
        if self.recorder.sampling.is_on() {
            sampled::settle(located.address(), &inserted);
        }
        if inserted != Inserted::Stored {
            self.settle(located.address(), block, inserted);
        }
    }

    /// Gives back the references that an insert did not take, or released.
    #[cold]
    #[inline(never)]
    fn settle(self, address: u64, block: &LiveBlock, inserted: Inserted) {
        let region = &self.recorder.region;
        match inserted {
            Inserted::Stored => {}
            Inserted::Replaced(unseen) => self.release(address, &unseen),
            Inserted::PushedOut(other) => put(&region.depot, other.stack),
            Inserted::Unsampled => put(&region.depot, block.stack),
            Inserted::UnsampledReplaced(unseen) => {
                put(&region.depot, block.stack);
                self.release(address, &unseen);
            }
            Inserted::Contended => {
                put(&region.depot, block.stack);
                region.counters.count(Counter::LiveTableFull);
            }
        }
    }

    /// The free of a block was not seen: it counts as freed and gives its reference back.
    fn release(self, address: u64, block: &LiveBlock) {
        let Some(stack) = block.stack else { return };
        let depot = &self.recorder.region.depot;
        let share = self.share(address, block.size, block.time);
        depot.put_with_payload(depot.handle_of(stack), payload::FREED, &share);
    }

    /// Blocks and bytes that a block adds to its stack's payload, the same at its alloc and its free.
    #[inline]
    fn share(self, address: u64, size: u64, time: u64) -> [u64; 2] {
        if !self.recorder.sampling.is_on() {
            return [1, size];
        }
        let random = (address ^ time.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let share = self.recorder.sampling.share(size, random);
        [share.count, share.bytes]
    }

    #[inline(always)]
    fn fill(self, place: Place, event: &Event) {
        // A lapped event is counted by the ring itself.
        self.recorder.region.ring.fill(place, event);
    }

    /// The thread's scratch memory, if it has some.
    #[inline(always)]
    #[allow(unsafe_code)] // uses the thread's own buffer
    fn buffer(self) -> Option<&'static mut [u64]> {
        // SAFETY: every caller is between start and stop of the recording, and calls this once.
        unsafe { self.frame_buffer() }
    }

    /// The stack of the hook's caller, in the thread's scratch memory if it has some.
    #[inline]
    fn with_stack(self, record: impl FnOnce(&mut Walk<'_>)) {
        match self.buffer() {
            Some(buffer) => record(&mut self.capture(buffer)),
            None => self.with_stack_on_stack(record),
        }
    }

    #[cold]
    #[inline(never)]
    fn with_stack_on_stack(self, record: impl FnOnce(&mut Walk<'_>)) {
        record(&mut self.capture(&mut [0; crate::scratch::FRAME_ROOM]));
    }

    #[inline(always)]
    fn capture<'b>(self, buffer: &'b mut [u64]) -> Walk<'b> {
        let walk = unwind::capture(self.registers(), self.unwinder(), buffer);
        if walk.end != End::Complete {
            self.count_incomplete(walk.end);
        }
        if self.recorder.check_interval != 0 {
            check::compare(self.recorder, self.frame, walk.frames(), walk.end);
        }
        walk
    }

    #[cold]
    #[inline(never)]
    fn count_incomplete(self, end: End) {
        let counter = match end {
            End::LimitReached => Counter::Truncated,
            _ => Counter::UnwindFailed,
        };
        self.recorder.region.counters.add(counter, self.shard(), 1);
    }
}

fn put(depot: &Depot<'_>, stack: Option<WeakHandle>) {
    if let Some(stack) = stack {
        depot.put(depot.handle_of(stack));
    }
}

/// Saves a stack; a refused save is counted by its reason.
#[inline(never)]
fn save(region: &RegionWriter, frames: &[u64], hold: Hold) -> Option<Leased> {
    let error = match region.depot.save_held(frames, hold) {
        Ok(saved) => return Some(saved),
        Err(error) => error,
    };
    region.counters.count(match error {
        SaveError::Full => Counter::SaveFull,
        SaveError::Contended => Counter::SaveContended,
        SaveError::Crowded => Counter::SaveCrowded,
        SaveError::Saturated => Counter::SaveSaturated,
        SaveError::Empty | SaveError::Disabled => Counter::UnwindFailed,
    });
    None
}
