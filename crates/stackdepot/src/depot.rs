//! The facade: a depot over a region that the caller hands in.
//!
//! Key type: [`Depot`], a small copyable view. It owns no protocol: it checks what the caller
//! asked for, calls the files that do, and counts refusals.

#[cfg(not(loom))]
use crate::config::Config;
#[cfg(loom)]
use crate::config::HashChoice;
use crate::error::{AttachError, ConfigError, FetchError, HoldError, SaveError};
use crate::fetch::Fetched;
use crate::handle::{Handle, Tick, WeakHandle};
use crate::hash::Hasher;
use crate::hold::Hold;
use crate::insert::Saved;
use crate::layout::{Line, MOST_PAYLOAD_WORDS, RUN_FRAMES, Region};
use crate::onto::Ancestor;
use crate::recover::Recovered;
use crate::runs::Runs;
use crate::stats::Stats;
use crate::sync::{FAULTS, Ordering};
use crate::walk::Walk;

/// A bounded store of deduplicated stacks, in memory that somebody else owns.
///
/// All methods take `&self`, from any thread, from signal handlers and malloc hooks: they take
/// no lock, allocate nothing, call nothing outside this crate, and end within a bounded number
/// of steps.
#[derive(Clone, Copy, Debug)]
pub struct Depot<'r> {
    pub(crate) region: Region<'r>,
    pub(crate) hasher: Hasher,
}

/// A stack held by a counted reference: give it back with [`Depot::put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Names the stack for ever.
    pub weak: WeakHandle,
    /// Names it in 32 bits until the `put`.
    pub handle: Handle,
}

/// A stack held by a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Names the stack for ever.
    pub weak: WeakHandle,
    /// Names it in 32 bits while the lease lasts.
    pub handle: Handle,
    /// The tick from which the lease counts: it lasts while `now - from <= lease_ticks`.
    pub from: Tick,
}

impl<'r> Depot<'r> {
    /// Finds or stores a stack, innermost frame first, and holds nothing: the answer names the
    /// stack for ever, but the stack may be evicted at any time.
    ///
    /// # Errors
    /// See [`SaveError`]; each refusal is counted.
    #[inline]
    pub fn save(&self, frames: &[u64]) -> Result<WeakHandle, SaveError> {
        self.save_as(frames, Hold::None).map(|saved| saved.weak)
    }

    /// Finds or stores a stack and takes a counted reference on it.
    ///
    /// # Errors
    /// See [`SaveError`]; each refusal is counted, and nothing is held then.
    #[inline]
    pub fn save_acquire(&self, frames: &[u64]) -> Result<Held, SaveError> {
        let Leased { weak, handle, .. } = self.save_held(frames, Hold::Reference)?;
        Ok(Held { weak, handle })
    }

    /// Finds or stores a stack and holds it by a lease; normally no write at all when the
    /// stack is stored and was leased in this tick.
    ///
    /// # Errors
    /// See [`SaveError`]; each refusal is counted.
    #[inline]
    pub fn save_lease(&self, frames: &[u64]) -> Result<Leased, SaveError> {
        self.save_held(frames, Hold::Lease)
    }

    /// Finds or stores a stack, and takes a counted reference and a lease.
    ///
    /// # Errors
    /// See [`SaveError`]; each refusal is counted, and nothing is held then.
    #[inline]
    pub fn save_acquire_lease(&self, frames: &[u64]) -> Result<Leased, SaveError> {
        self.save_held(frames, Hold::ReferenceAndLease)
    }

    /// Finds or stores a stack with any hold. `from` and `handle` mean something only as far
    /// as the hold goes.
    ///
    /// # Errors
    /// See [`SaveError`]; each refusal is counted.
    #[inline]
    pub fn save_held(&self, frames: &[u64], hold: Hold) -> Result<Leased, SaveError> {
        let saved = self.save_as(frames, hold)?;
        Ok(self.leased(saved))
    }

    #[inline(always)]
    fn save_as(&self, frames: &[u64], hold: Hold) -> Result<Saved, SaveError> {
        if let Some(aes) = self.hasher.aes
            && !FAULTS
        {
            return crate::hit::save(aes, &self.region, &self.hasher, frames, hold);
        }
        self.region.save(&self.hasher, frames, hold)
    }

    /// [`Depot::save_held`] of a stack that its caller cut into full runs: `inner`, innermost first, and
    /// then `outermost`, which the caller may have filled up. For those who have no vector registers
    /// and no time to bring a stack into one piece.
    ///
    /// ```
    /// use stackdepot::{Config, Depot, Hold, Line};
    /// let mut memory = vec![Line::ZERO; 1024];
    /// let depot = Depot::new(&mut memory, &Config::new(65536)).unwrap();
    /// let frames: [u64; 20] = core::array::from_fn(|frame| 0x401000 + frame as u64 * 16);
    /// let (inner, outermost) = (&frames.as_chunks().0[..1], frames.last_chunk().unwrap());
    /// let saved = depot.save_runs(inner, outermost, Hold::None).unwrap();
    /// assert_eq!(depot.save_held(&frames, Hold::None), Ok(saved));
    /// ```
    ///
    /// # Errors
    /// See [`SaveError`]; each refusal is counted. `Disabled` also where the stack is longer than
    /// the depot's `max_frames`: it is not cut.
    #[inline(always)]
    pub fn save_runs(
        &self,
        inner: &[[u64; RUN_FRAMES]],
        outermost: &[u64; RUN_FRAMES],
        hold: Hold,
    ) -> Result<Leased, SaveError> {
        let runs = Runs { inner, outermost };
        let saved = self.region.save_runs(&self.hasher, runs, hold)?;
        Ok(self.leased(saved))
    }

    #[inline]
    fn leased(&self, saved: Saved) -> Leased {
        Leased {
            weak: saved.weak,
            handle: self.handle_of(saved.weak),
            from: saved.from,
        }
    }

    /// Saves all `frames` like [`Depot::save_held`], skipping the outermost ones that
    /// `ancestor` stands for. Those must be unchanged: the caller vouches for them.
    ///
    /// `trail[i]` receives the token of the node that holds the frames down to depth
    /// `10 * (i + 1)`, `None` if there is none. Entries above `ancestor` are left alone, and so
    /// are those deeper than the stack is: only tokens of depths that were part of the last stack
    /// saved with this trail stand for frames of it. A token that no longer fits costs a full save.
    ///
    /// ```
    /// use stackdepot::{Config, Depot, Hold, Line};
    /// let mut memory = vec![Line::ZERO; 1024];
    /// let depot = Depot::new(&mut memory, &Config::new(65536)).unwrap();
    /// let mut frames: Vec<u64> = (0..25).map(|frame| 0x401000 + frame * 16).collect();
    /// let mut trail = [None; 26];
    /// depot.save_onto(None, &frames, Hold::None, &mut trail).unwrap();
    /// frames[0] = 0x500000;
    /// let ancestor = trail[1];
    /// assert_eq!(ancestor.unwrap().depth(), 20);
    /// let onto = depot.save_onto(ancestor.as_ref(), &frames, Hold::None, &mut trail).unwrap();
    /// assert_eq!(onto.weak, depot.save(&frames).unwrap());
    /// ```
    ///
    /// # Errors
    /// See [`SaveError`]; each refusal is counted.
    #[inline]
    pub fn save_onto(
        &self,
        ancestor: Option<&Ancestor>,
        frames: &[u64],
        hold: Hold,
        trail: &mut [Option<Ancestor>],
    ) -> Result<Leased, SaveError> {
        let saved = self
            .region
            .save_onto(&self.hasher, ancestor, frames, hold, trail)?;
        Ok(self.leased(saved))
    }

    /// Takes any hold on a stored stack, as a save of it would: for callers that know a stack again
    /// without its frames.
    ///
    /// ```
    /// use stackdepot::{Config, Depot, Hold, HoldError, Line};
    /// let mut memory = vec![Line::ZERO; 1024];
    /// let config = Config { references: true, ..Config::new(65536) };
    /// let depot = Depot::new(&mut memory, &config).unwrap();
    /// let weak = depot.save(&[0x401000, 0x402000]).unwrap();
    /// let held = depot.hold(weak, Hold::Reference).unwrap();
    /// assert_eq!(depot.weak_of(held.handle), Some(weak));
    /// assert_eq!(depot.hold(weak, Hold::Lease), Err(HoldError::Disabled));
    /// ```
    ///
    /// # Errors
    /// `Evicted`, `Saturated`, `Contended`, or `Disabled`.
    #[inline(always)]
    pub fn hold(&self, weak: WeakHandle, hold: Hold) -> Result<Leased, HoldError> {
        let saved = self.region.hold(weak, hold)?;
        Ok(self.leased(saved))
    }

    /// Takes a counted reference on a stored stack.
    ///
    /// # Errors
    /// `Evicted`, `Saturated`, or `Disabled`.
    pub fn acquire(&self, weak: WeakHandle) -> Result<Handle, HoldError> {
        if !self.region.references {
            return Err(HoldError::Disabled);
        }
        self.region.acquire(weak)?;
        Ok(self.handle_of(weak))
    }

    /// Prolongs the lease of a stored stack to the whole of its duration, from the answered tick.
    ///
    /// # Errors
    /// `Evicted`, `Contended`, or `Disabled`.
    pub fn renew(&self, weak: WeakHandle) -> Result<Tick, HoldError> {
        self.region.renew(weak)
    }

    /// Gives one counted reference back. Never fails: a handle that names nothing held is
    /// ignored and counted.
    pub fn put(&self, handle: Handle) {
        self.region.put(handle, u32::MAX);
    }

    /// [`Depot::put`] of a handle that was stored without some of its high bits; see
    /// [`Depot::weak_of_bits`].
    #[inline]
    pub fn put_bits(&self, handle: Handle, kept: u32) {
        self.region.put(handle, kept);
    }

    /// The 32-bit name of a stack; meaningful while the stack is held.
    #[inline]
    pub fn handle_of(&self, weak: WeakHandle) -> Handle {
        self.region.handle_of(weak)
    }

    /// The lasting name behind a held handle; `None` when the handle is recognised as stale.
    #[inline]
    pub fn weak_of(&self, handle: Handle) -> Option<WeakHandle> {
        self.region.weak_of(handle)
    }

    /// [`Depot::weak_of`] for a handle that was stored without some of its high bits: only those in
    /// `kept` are compared. The bits of the slot's number must be among them.
    ///
    /// ```
    /// use stackdepot::{Config, Depot, Handle, Hold, Line};
    /// let mut memory = vec![Line::ZERO; 1024];
    /// let depot = Depot::new(&mut memory, &Config::new(65536)).unwrap();
    /// let saved = depot.save_held(&[0x401000], Hold::Forever).unwrap();
    /// let kept = u32::MAX >> 5;
    /// let stored = Handle::from_bits(saved.handle.to_bits() & kept).unwrap();
    /// assert_eq!(depot.weak_of_bits(stored, kept), Some(saved.weak));
    /// ```
    #[inline]
    pub fn weak_of_bits(&self, handle: Handle, kept: u32) -> Option<WeakHandle> {
        self.region.weak_of_bits(handle, kept)
    }

    /// Copies a stack out, innermost frame first, as much of it as `out` takes. What `out` held
    /// beyond the stack's frames may be overwritten.
    ///
    /// # Errors
    /// `Evicted`; `out` then holds nothing meaningful.
    #[inline]
    pub fn fetch(&self, weak: WeakHandle, out: &mut [u64]) -> Result<Fetched, FetchError> {
        self.region.fetch(weak, out)
    }

    /// [`Depot::fetch`] of a stack whose outermost run its caller filled up, by a handle that was stored
    /// without some of its high bits: by the run's outermost word `filler_count` says how many of
    /// its words are no frames. Answers how many are; what `out` held beyond them may be overwritten.
    /// `None`: the stack is gone, or it is one that only `fetch` can copy, as where `out` does not
    /// take its frames.
    ///
    /// ```
    /// use stackdepot::{Config, Depot, Hold, Line};
    /// let mut memory = vec![Line::ZERO; 1024];
    /// let depot = Depot::new(&mut memory, &Config::new(65536)).unwrap();
    /// let words = [0x401000, 0x402000, 0x403000, 0, 0, 0, 0, 0, 0, 0];
    /// let handle = depot.save_held(&words, Hold::Forever).unwrap().handle;
    /// let mut frames = [0; 3];
    /// let count = depot.fetch_filled(handle, !0, &mut frames, |word| if word == 0 { 7 } else { 0 });
    /// assert_eq!(count, Some(3));
    /// assert_eq!(frames, words[..3]);
    /// ```
    #[inline(always)]
    pub fn fetch_filled(
        &self,
        handle: Handle,
        kept: u32,
        out: &mut [u64],
        filler_count: impl Fn(u64) -> usize,
    ) -> Option<usize> {
        self.region.fetch_filled(handle, kept, out, filler_count)
    }

    /// Adds to one payload word of a stack that the caller holds by a counted reference
    /// (wrapping, so a negative number is added as its two's complement).
    #[inline]
    pub fn add_payload(&self, held: Handle, word: usize, delta: u64) {
        self.region.add_payload(held, word, &[delta]);
    }

    /// Adds to as many payload words as there are `deltas`, from `first_word` on; otherwise as
    /// [`Depot::add_payload`].
    #[inline]
    pub fn add_payload_words(&self, held: Handle, first_word: usize, deltas: &[u64]) {
        self.region.add_payload(held, first_word, deltas);
    }

    /// [`Depot::add_payload_words`] and [`Depot::put`] in one look at the stack's slot.
    ///
    /// ```
    /// use stackdepot::{Config, Depot, Line};
    /// let mut memory = vec![Line::ZERO; 1024];
    /// let config = Config { references: true, payload_words: 2, ..Config::new(65536) };
    /// let depot = Depot::new(&mut memory, &config).unwrap();
    /// let held = depot.save_acquire(&[0x401000]).unwrap();
    /// depot.put_with_payload(held.handle, 0, &[1, 4096]);
    /// assert_eq!(depot.payload(held.weak).unwrap(), [1, 4096, 0, 0]);
    /// assert_eq!(depot.walk().next().unwrap().references, 0);
    /// ```
    #[inline]
    pub fn put_with_payload(&self, held: Handle, first_word: usize, deltas: &[u64]) {
        self.region.put_with_payload(held, first_word, deltas);
    }

    /// [`Depot::hold`], and [`Depot::add_payload_words`] where that counts a reference, in one look at
    /// the stack's slot.
    ///
    /// ```
    /// use stackdepot::{Config, Depot, Hold, Line};
    /// let mut memory = vec![Line::ZERO; 1024];
    /// let config = Config { references: true, payload_words: 2, ..Config::new(65536) };
    /// let depot = Depot::new(&mut memory, &config).unwrap();
    /// let weak = depot.save(&[0x401000]).unwrap();
    /// depot.hold_with_payload(weak, Hold::Reference, 0, &[1, 4096]).unwrap();
    /// assert_eq!(depot.payload(weak).unwrap(), [1, 4096, 0, 0]);
    /// ```
    ///
    /// # Errors
    /// As for [`Depot::hold`]; nothing was added then.
    #[inline(always)]
    pub fn hold_with_payload(
        &self,
        weak: WeakHandle,
        hold: Hold,
        first_word: usize,
        deltas: &[u64],
    ) -> Result<Leased, HoldError> {
        let saved = self
            .region
            .hold_with_payload(weak, hold, first_word, deltas)?;
        Ok(self.leased(saved))
    }

    /// [`Depot::renew`] and [`Depot::put_with_payload`] in one look at the stack's slot: the caller's
    /// counted reference becomes a lease, from the answered tick.
    ///
    /// ```
    /// use stackdepot::{Config, Depot, Line};
    /// let mut memory = vec![Line::ZERO; 1024];
    /// let config = Config {
    ///     references: true,
    ///     lease_ticks: 2,
    ///     payload_words: 2,
    ///     ..Config::new(65536)
    /// };
    /// let depot = Depot::new(&mut memory, &config).unwrap();
    /// let held = depot.save_acquire(&[0x401000]).unwrap();
    /// assert_eq!(depot.put_for_lease(held.weak, 0, &[1, 4096]), Ok(depot.now()));
    /// assert_eq!(depot.payload(held.weak).unwrap(), [1, 4096, 0, 0]);
    /// assert_eq!(depot.walk().next().unwrap().references, 0);
    /// ```
    ///
    /// # Errors
    /// Why there is no lease; the reference is given back all the same. A weak handle that names
    /// nothing held is counted as a stale put.
    #[inline(always)]
    pub fn put_for_lease(
        &self,
        held: WeakHandle,
        first_word: usize,
        deltas: &[u64],
    ) -> Result<Tick, HoldError> {
        self.region.put_for_lease(held, first_word, deltas)
    }

    /// Begins to bring what a [`renew`](Depot::renew), [`put`](Depot::put) or payload of that
    /// stack touches into the processor's cache. No other effect.
    #[inline]
    pub fn prefetch(&self, weak: WeakHandle) {
        self.region.prefetch(weak);
    }

    /// The payload words of a stack; those not configured are 0.
    ///
    /// # Errors
    /// `Evicted`.
    pub fn payload(&self, weak: WeakHandle) -> Result<[u64; MOST_PAYLOAD_WORDS], FetchError> {
        self.region.payload(weak)
    }

    /// The depot's clock.
    #[inline]
    pub fn now(&self) -> Tick {
        self.region.now()
    }

    /// Moves the clock, which ends the leases that are old enough.
    pub fn advance(&self, ticks: u32) {
        self.region.advance(ticks);
    }

    /// How many ticks a lease lasts beyond its own; 0 when leases are off.
    #[inline]
    pub fn lease_ticks(&self) -> u32 {
        self.region.lease_ticks
    }

    /// Stacks of more frames are cut.
    #[inline]
    pub fn max_frames(&self) -> usize {
        self.region.max_frames as usize
    }

    /// Bytes of the region that are in use; never more than the configuration allowed.
    #[inline]
    pub fn region_bytes(&self) -> usize {
        self.region.geometry.region_bytes
    }

    /// The depot's counters.
    pub fn stats(&self) -> Stats {
        self.region.stats()
    }

    /// Visits the saved stacks. Weakly consistent: a stack that is stored during the whole
    /// walk is visited once; one that comes or goes may be.
    pub fn walk(&self) -> Walk<'r> {
        self.walk_after(0)
    }

    /// [`Depot::walk`], beginning behind a slot: for walks that pause, and go on where the last
    /// stack's [`WeakHandle::slot`] says that they were.
    pub fn walk_after(&self, slot: u32) -> Walk<'r> {
        Walk::new(self.region, slot)
    }
}

#[cfg(loom)]
impl<'r> Depot<'r> {
    /// The depot in loom's memory.
    pub fn of(memory: &'r crate::layout::Memory) -> Depot<'r> {
        let region = memory.region();
        let hasher = Hasher::choose(
            HashChoice::Portable,
            region.header.seed.load(Ordering::Relaxed),
        );
        Depot { region, hasher }
    }
}

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "hands the caller's memory and promises on to layout.rs"
)]
mod real {
    use super::*;
    use core::ptr::NonNull;

    impl<'r> Depot<'r> {
        /// Makes a depot in ordinary memory of this process, which is zeroed.
        ///
        /// ```
        /// use stackdepot::{Config, Depot, Line};
        /// let mut memory = vec![Line::ZERO; 4096];
        /// let depot = Depot::new(&mut memory, &Config::new(4096 * 64))?;
        /// let weak = depot.save(&[0x401000, 0x402000]).unwrap();
        /// let mut frames = [0; 8];
        /// assert_eq!(depot.fetch(weak, &mut frames).unwrap().frame_count, 2);
        /// assert_eq!(frames[..2], [0x401000, 0x402000]);
        /// # Ok::<(), stackdepot::ConfigError>(())
        /// ```
        ///
        /// # Errors
        /// Names the field of the configuration that is out of its limits; `region_bytes` may
        /// not exceed the memory.
        pub fn new(memory: &'r mut [Line], config: &Config) -> Result<Depot<'r>, ConfigError> {
            let memory_bytes = size_of_val(memory);
            let least = Config {
                region_bytes: 0,
                ..*config
            }
            .geometry();
            if let Err(ConfigError::OutOfRange {
                field: "region_bytes",
                least,
                ..
            }) = least
            {
                ConfigError::check(
                    "region_bytes",
                    config.region_bytes as u64,
                    least,
                    memory_bytes as u64,
                )?;
            }
            memory.fill(Line::ZERO);
            // SAFETY: the slice is valid, aligned to 64, zeroed, at least `region_bytes` long
            // (checked), and borrowed exclusively for 'r.
            unsafe { Depot::create(NonNull::from(memory).cast(), config) }
        }

        /// Makes a depot in zero-filled memory, of which it touches only the header.
        ///
        /// # Errors
        /// Names the field of the configuration that is out of its limits.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `config.region_bytes` bytes during `'r`, all
        /// zero now, and during `'r` nobody accesses them but depots, readers of other
        /// processes, and atomically.
        pub unsafe fn create(base: NonNull<u8>, config: &Config) -> Result<Depot<'r>, ConfigError> {
            let hasher = Hasher::choose(config.hash, config.seed);
            // SAFETY: the caller's promise.
            let region = unsafe { Region::create(base, config, hasher.kind()) }?;
            Ok(Depot { region, hasher })
        }

        /// Opens a depot that this process (or the one it was forked from) made or reopened.
        ///
        /// # Errors
        /// See [`AttachError`].
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `region_bytes` bytes during `'r`, during
        /// which nobody accesses them but depots, readers of other processes, and atomically.
        pub unsafe fn attach(
            base: NonNull<u8>,
            region_bytes: usize,
        ) -> Result<Depot<'r>, AttachError> {
            // SAFETY: the caller's promise.
            let region = unsafe { Region::attach(base, region_bytes) }?;
            let hash_kind = region.header.hash_kind.load(Ordering::Relaxed);
            let hasher = Hasher::new(hash_kind, region.header.seed.load(Ordering::Relaxed));
            Ok(Depot {
                region,
                hasher: hasher.ok_or(AttachError::HashKind { found: hash_kind })?,
            })
        }

        /// Opens a depot whose writer is gone: frees what was in flight, recounts references.
        ///
        /// `live_holds` are the references that live on, one item each (the live table's);
        /// all others died with the old writer. Leases stay.
        ///
        /// # Errors
        /// See [`AttachError`].
        ///
        /// # Safety
        /// As for [`Depot::attach`], and no other writer has the region open.
        pub unsafe fn reopen(
            base: NonNull<u8>,
            region_bytes: usize,
            live_holds: impl IntoIterator<Item = WeakHandle>,
        ) -> Result<(Depot<'r>, Recovered), AttachError> {
            // SAFETY: the caller's promise.
            let depot = unsafe { Depot::attach(base, region_bytes) }?;
            let recovered = depot.region.recover(live_holds);
            Ok((depot, recovered))
        }
    }
}

#[cfg(all(test, loom))]
mod models;
