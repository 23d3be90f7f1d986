//! Where a replay happens: the memory, a fresh depot (and ring) in it, and how one event is played.
//!
//! Key types: [`Plan`] (what is replayed), [`Stage`] (the memory, used again for every pass) and
//! [`Set`] (the depot and ring of one pass, shared by all threads).

use stackdepot::ring::{Ring, RingConfig, ring_bytes};
use stackdepot::{Config, ConfigError, Depot, Line, SaveError, WeakHandle};
use stackdepot_corpus::{Corpus, Event};

use super::Hold;
use super::moment::ring_event;
use super::objects::{Object, Objects};
use crate::failure::Failure;

/// Bytes of a line of memory.
pub const LINE_BYTES: u64 = 64;

/// What is replayed, and how.
#[derive(Clone, Copy)]
pub struct Plan<'c> {
    pub corpus: &'c Corpus,
    pub threads: usize,
    pub hold: Hold,
    pub ring_events: u32,
}

impl Plan<'_> {
    /// Events of one thread.
    pub fn event_count(&self) -> usize {
        self.corpus.events().len()
    }

    /// The `ordinal`-th event that a thread plays: each starts at another point, and wraps.
    pub fn event(&self, thread: usize, ordinal: usize) -> Option<&Event> {
        let count = self.event_count();
        let start = thread * count / self.threads;
        self.corpus.events().get((start + ordinal) % count)
    }

    /// Whether a depot of this size is possible.
    pub fn check(&self, depot_bytes: u64) -> Result<(), Failure> {
        let geometry = config(self, depot_bytes)?.geometry();
        geometry.map(drop).map_err(|error| too(depot_bytes, &error))
    }

    /// The ring's configuration: one shard, so that "the newest N" is exact.
    fn ring_config(&self) -> RingConfig {
        RingConfig::new(self.ring_events)
    }

    /// Bytes of the ring: 0 where there is none.
    pub fn ring_bytes(&self) -> Result<usize, Failure> {
        match self.hold {
            Hold::Lease => ring_bytes(&self.ring_config()).map_err(|error| {
                Failure::new(format_args!("--ring {}: {error}", self.ring_events))
            }),
            Hold::None | Hold::Ref => Ok(0),
        }
    }
}

/// Memory for the depot and the ring of one pass after the other.
pub struct Stage {
    depot: Vec<Line>,
    ring: Vec<Line>,
}

impl Stage {
    /// Memory for depots of up to `depot_bytes`.
    pub fn new(plan: &Plan<'_>, depot_bytes: u64) -> Result<Stage, Failure> {
        // Refused before any memory is touched: a size with a typo must not eat the machine.
        plan.check(depot_bytes)?;
        let mut stage = Stage {
            depot: Vec::new(),
            ring: lines(plan.ring_bytes()? as u64)?,
        };
        stage.reserve(depot_bytes)?;
        Ok(stage)
    }

    /// Makes sure that depots of up to `depot_bytes` find room.
    pub fn reserve(&mut self, depot_bytes: u64) -> Result<(), Failure> {
        if (self.depot.len() as u64) < depot_bytes / LINE_BYTES {
            self.depot = lines(depot_bytes)?;
        }
        Ok(())
    }

    /// How many slots a depot of this size has; `None` where none is possible.
    pub fn slot_count(plan: &Plan<'_>, depot_bytes: u64) -> Option<u64> {
        Some(
            config(plan, depot_bytes)
                .ok()?
                .geometry()
                .ok()?
                .slot_count
                .into(),
        )
    }

    /// A fresh depot of `depot_bytes`, and a fresh ring.
    pub fn set(&mut self, plan: &Plan<'_>, depot_bytes: u64) -> Result<Set<'_>, Failure> {
        self.reserve(depot_bytes)?;
        let config = config(plan, depot_bytes)?;
        let lines = self
            .depot
            .get_mut(..(depot_bytes / LINE_BYTES) as usize)
            .unwrap_or_default();
        let depot = Depot::new(lines, &config).map_err(|error| too(depot_bytes, &error))?;
        let ring = match plan.hold {
            Hold::Lease => Some(Ring::new(&mut self.ring, &plan.ring_config()).map_err(
                |error| Failure::new(format_args!("--ring {}: {error}", plan.ring_events)),
            )?),
            Hold::None | Hold::Ref => None,
        };
        Ok(Set {
            depot,
            ring,
            hold: plan.hold,
        })
    }
}

/// The depot and the ring of one pass, shared by all its threads.
pub struct Set<'r> {
    pub depot: Depot<'r>,
    pub ring: Option<Ring<'r>>,
    hold: Hold,
}

impl Set<'_> {
    /// Plays one event as the plan's hold says; `released` sees an object before its put.
    pub fn play(
        &self,
        plan: &Plan<'_>,
        objects: &mut Objects,
        thread: usize,
        ordinal: usize,
        released: impl FnMut(&Object),
    ) -> Result<WeakHandle, SaveError> {
        let Some(event) = plan.event(thread, ordinal) else {
            return Err(SaveError::Empty);
        };
        let frames = plan.corpus.stack(event.stack);
        match self.hold {
            Hold::None => self.depot.save(frames),
            Hold::Lease => self.play_leased(event, frames, thread, ordinal),
            Hold::Ref => self.play_referenced(event, frames, objects, released),
        }
    }

    /// Leases the stack for as long as its event is in the ring; failed saves are events too.
    fn play_leased(
        &self,
        event: &Event,
        frames: &[u64],
        thread: usize,
        ordinal: usize,
    ) -> Result<WeakHandle, SaveError> {
        let Some(ring) = &self.ring else {
            return Err(SaveError::Disabled);
        };
        // The place first: the lease then covers the event's whole time in the ring.
        let place = ring.claim(&self.depot, 0);
        let saved = self.depot.save_lease(frames).map(|leased| leased.weak);
        ring.fill(place, &ring_event(event, saved.ok(), thread, ordinal));
        saved
    }

    /// An alloc saves and holds, and ends what was in its slot; a free saves, then puts.
    fn play_referenced(
        &self,
        event: &Event,
        frames: &[u64],
        objects: &mut Objects,
        mut released: impl FnMut(&Object),
    ) -> Result<WeakHandle, SaveError> {
        let (answer, object) = if event.is_alloc {
            let held = self.depot.save_acquire(frames);
            let object = held.ok().map(|held| Object {
                weak: held.weak,
                handle: held.handle,
                stack: event.stack,
            });
            (held.map(|held| held.weak), object)
        } else {
            (self.depot.save(frames), None)
        };
        if let Some(old) = objects.replace(event.slot, object) {
            released(&old);
            self.depot.put(old.handle);
        }
        answer
    }
}

fn config(plan: &Plan<'_>, depot_bytes: u64) -> Result<Config, Failure> {
    let region_bytes = usize::try_from(depot_bytes).map_err(|_| {
        Failure::new(format_args!(
            "--bytes {depot_bytes} is more than this machine can address"
        ))
    })?;
    let lease_ticks = if plan.hold == Hold::Lease {
        plan.ring_config().lease_ticks()
    } else {
        0
    };
    Ok(Config {
        references: plan.hold == Hold::Ref,
        lease_ticks,
        ..Config::new(region_bytes)
    })
}

fn too(depot_bytes: u64, error: &ConfigError) -> Failure {
    Failure::new(format_args!("--bytes {depot_bytes}: {error}"))
}

/// Zeroed memory of `bytes`, rounded down to whole lines.
fn lines(bytes: u64) -> Result<Vec<Line>, Failure> {
    let count = (bytes / LINE_BYTES) as usize;
    let mut lines = Vec::new();
    lines
        .try_reserve_exact(count)
        .map_err(|_| Failure::new(format_args!("there is no memory for {bytes} bytes")))?;
    lines.resize(count, Line::ZERO);
    Ok(lines)
}
