//! Scenes for the attackers that interrupt one operation everywhere: a world that was used for a
//! while, the operations that are interrupted, and what a handler does in between.
//!
//! A [`Scene`] is copied for every place of interruption, so each starts from the same bytes.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use stackdepot::ring::RingConfig;
use stackdepot::{Depot, Handle, Held, MOST_FRAMES, RUN_FRAMES, SaveError, WeakHandle};

use crate::audit::{Image, check_found_again, check_nothing_leaked};
use crate::memory::{Copied, Shared};
use crate::stacks::{Known, Random, Seen, Stack, filler, look};
use crate::world::{Shape, World, address_of};

/// Stacks that are saved before the interruption.
const WARM: u64 = 160;
/// Stacks that anybody saves; those above `WARM` are new to the operation.
const VARIETY: u64 = 2000;
/// The last one saved before: it is there, and not held.
const FRESH: u64 = 300;
/// New to a full region: the second has frames of more windows than one node names.
pub const MISSING: u64 = 1006;
pub const MISSING_WIDE: u64 = 1178;
/// Held before, during and after.
const HELD: [u64; 3] = [7, 33, 301];
/// Blocks that are live before the interruption.
const LIVE: [u64; 12] = [40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51];

/// Of these, in the hold cache before the interruption.
const CACHED: u64 = 42;
/// Comes into the hold cache during the operation.
const FREQUENT: u64 = 54;

/// Slots that one death may keep until the reopen: of a save, a hold on a chain of three and the
/// node with its extra slot in the making; of a free besides, the hold of the block that it has
/// taken out, on a chain of four and an extra slot.
const LOST_BY_DEATH: u64 = 10;

/// An operation that can be interrupted anywhere.
#[derive(Clone, Copy)]
pub struct Operation {
    pub name: &'static str,
    /// Whether slots are free, or must be evicted.
    pub is_roomy: bool,
    pub run: fn(&Scene) -> Result<(), String>,
}

const fn in_full(name: &'static str, run: fn(&Scene) -> Result<(), String>) -> Operation {
    Operation {
        name,
        is_roomy: false,
        run,
    }
}

/// Everything that writes to shared words.
pub const OPERATIONS: [Operation; 15] = [
    in_full("save hit", |scene| scene.save(FRESH)),
    in_full("save hit with a reference", |scene| {
        scene.save_and_put(HELD[0])
    }),
    in_full("save hit with a lease", |scene| scene.save_leased(FRESH)),
    in_full("save of an inner node", |scene| {
        scene.save_and_put(inner_id())
    }),
    Operation {
        name: "save miss",
        is_roomy: true,
        run: |scene| scene.save_and_put(1000),
    },
    in_full("evicting miss", |scene| scene.save_and_put(MISSING)),
    in_full("evicting miss of a wide stack", |scene| {
        scene.save_and_put(MISSING_WIDE)
    }),
    in_full("acquire and put", Scene::acquire_and_put),
    in_full("renew", Scene::renew),
    in_full("alloc", Scene::alloc_new),
    in_full("alloc by name", Scene::alloc_by_name),
    in_full("free", |scene| {
        refusable(scene.world.free(0, 1012, address_of(LIVE[11], 1)))
    }),
    in_full(
        "allocs and frees with a hold cache",
        Scene::alloc_and_free_often,
    ),
    in_full("end of a hold cache", Scene::clear_cache),
    in_full("tick", |scene| {
        scene.world.depot.advance(1);
        Ok(())
    }),
];

/// The stacks that operations save.
fn saved_ids() -> [u64; 5] {
    [1000, MISSING, MISSING_WIDE, inner_id(), FRESH]
}

/// The first number whose stack is the outer part of the one before it.
fn inner_id() -> u64 {
    let is_inner = |id: &u64| Stack::new(*id - 1).frames().len() > RUN_FRAMES;
    (304..).step_by(5).find(is_inner).unwrap()
}

fn refusable(answer: Result<(), SaveError>) -> Result<(), String> {
    match answer {
        Ok(()) | Err(SaveError::Full | SaveError::Contended | SaveError::Crowded) => Ok(()),
        Err(error) => Err(format!("refused by {error:?}")),
    }
}

/// A stack that a handler holds: by a reference, or else by a lease.
struct Taken {
    weak: WeakHandle,
    reference: Option<Handle>,
    frames: Vec<u64>,
}

/// A world in a buffer of its own, with what is held in it.
pub struct Scene {
    memory: Copied,
    shape: Shape,
    pub world: World<'static>,
    held: Vec<(u64, Held)>,
    fresh: WeakHandle,
    /// What a handler holds until the operation is over.
    taken: RefCell<Vec<Taken>>,
}

impl Scene {
    /// A world that was used: full, with events that were overwritten, blocks and holds.
    pub fn prepare(is_roomy: bool) -> Scene {
        let depot_bytes = if is_roomy { 64 << 10 } else { 8 << 10 };
        let shape = Shape {
            depot_bytes,
            ring: RingConfig::new(16),
            live_cells: 16,
            caches: 1,
        };
        let mut memory = Copied::zeroed(shape.bytes());
        // SAFETY: the scene keeps the memory as long as the world, which nobody else uses.
        let world = unsafe { World::create(memory.base(), &shape) };
        for id in 0..WARM {
            let _ = world.depot.save(Stack::new(id).frames());
            if id % 4 == 0 {
                let _ = world.alloc(0, id, address_of(id, 0));
                let _ = world.free(0, id + 1, address_of(id, 0));
            }
        }
        // Its entries would hold a third of the region.
        world.cache(0).unwrap().clear(&world.depot);
        LIVE.iter()
            .for_each(|id| world.alloc(0, *id, address_of(*id, 1)).unwrap());
        for place in 5..7 {
            let _ = world.alloc(0, CACHED, address_of(CACHED, place));
        }
        assert!(!shape.entries(memory.bytes()).is_empty());
        let hold = |id: u64| {
            (
                id,
                world.depot.save_acquire(Stack::new(id).frames()).unwrap(),
            )
        };
        let held = HELD.map(hold).to_vec();
        world
            .depot
            .save(Stack::new(inner_id() - 1).frames())
            .unwrap();
        let fresh = world.depot.save(Stack::new(FRESH).frames()).unwrap();
        Scene {
            memory,
            shape,
            world,
            held,
            fresh,
            taken: RefCell::default(),
        }
    }

    /// The same in another buffer.
    pub fn again(&self) -> Scene {
        self.of_bytes(self.memory.clone())
    }

    /// The same in shared memory, for a process that leaves it behind.
    pub fn in_shared(&self, shared: &Shared) -> Scene {
        for (place, word) in shared.words().iter().zip(self.memory.words()) {
            place.store(*word, Ordering::Relaxed);
        }
        // SAFETY: whoever runs the scene keeps the mapping, which is as long as the shape.
        let world = unsafe { World::attach(shared.base(), &self.shape) };
        self.with(Copied::zeroed(0), world)
    }

    /// What was left behind there.
    pub fn left_in(&self, shared: &Shared) -> Scene {
        self.of_bytes(shared.copy(0, self.shape.bytes()))
    }

    /// A scene of this one's shape and holds in a buffer.
    fn of_bytes(&self, mut memory: Copied) -> Scene {
        // SAFETY: as in `prepare`.
        let world = unsafe { World::attach(memory.base(), &self.shape) };
        self.with(memory, world)
    }

    fn with(&self, memory: Copied, world: World<'static>) -> Scene {
        Scene {
            memory,
            world,
            held: self.held.clone(),
            taken: RefCell::default(),
            ..*self
        }
    }

    /// The bytes that a scene in shared memory needs.
    pub fn bytes(&self) -> usize {
        self.shape.bytes()
    }

    /// An allocation by a stack that is new.
    pub fn alloc_new(&self) -> Result<(), String> {
        refusable(self.world.alloc(0, 1011, address_of(1011, 1)))
    }

    /// The same, held by its name.
    fn alloc_by_name(&self) -> Result<(), String> {
        refusable(self.world.alloc(0, 1012, address_of(1012, 1)))
    }

    /// Allocs and frees of one stack by its name: it moves into the hold cache and is held from there.
    fn alloc_and_free_often(&self) -> Result<(), String> {
        for place in 1..5 {
            refusable(self.world.alloc(0, FREQUENT, address_of(FREQUENT, place)))?;
        }
        for place in 1..5 {
            refusable(self.world.free(0, 1014, address_of(FREQUENT, place)))?;
        }
        Ok(())
    }

    /// Gives back what the hold cache holds.
    fn clear_cache(&self) -> Result<(), String> {
        let cache = self.world.cache(0).ok_or("no cache")?;
        cache.clear(&self.world.depot);
        Ok(())
    }

    fn save(&self, id: u64) -> Result<(), String> {
        match self.world.depot.save(Stack::new(id).frames()) {
            Ok(weak) if look(&self.world.depot, weak, id) == Seen::Wrong => {
                Err(format!("stack {id} is wrong"))
            }
            answer => refusable(answer.map(|_| ())),
        }
    }

    pub fn save_and_put(&self, id: u64) -> Result<(), String> {
        let saved = self.world.depot.save_acquire(Stack::new(id).frames());
        if let Ok(held) = saved {
            self.expect_right(id, held.weak)?;
            self.world.depot.put(held.handle);
        }
        refusable(saved.map(|_| ()))
    }

    fn save_leased(&self, id: u64) -> Result<(), String> {
        let saved = self.world.depot.save_lease(Stack::new(id).frames());
        if let Ok(leased) = saved {
            let seen = look(&self.world.depot, leased.weak, id);
            let is_over = leased
                .from
                .is_over(self.world.depot.now(), self.world.depot.lease_ticks());
            if seen == Seen::Wrong || (seen == Seen::Evicted && !is_over) {
                return Err(format!("leased stack {id} is {seen:?}"));
            }
        }
        refusable(saved.map(|_| ()))
    }

    /// The stack may have been evicted by who interrupted.
    fn acquire_and_put(&self) -> Result<(), String> {
        if let Ok(handle) = self.world.depot.acquire(self.fresh) {
            self.expect_right(FRESH, self.fresh)?;
            self.world.depot.put(handle);
        }
        Ok(())
    }

    fn renew(&self) -> Result<(), String> {
        let Ok(from) = self.world.depot.renew(self.fresh) else {
            return Ok(());
        };
        let seen = look(&self.world.depot, self.fresh, FRESH);
        let is_over = from.is_over(self.world.depot.now(), self.world.depot.lease_ticks());
        if seen == Seen::Right || is_over {
            Ok(())
        } else {
            Err(format!("renewed stack is {seen:?}"))
        }
    }

    fn expect_right(&self, id: u64, weak: WeakHandle) -> Result<(), String> {
        let seen = look(&self.world.depot, weak, id);
        if seen == Seen::Right {
            Ok(())
        } else {
            Err(format!("held stack {id} is {seen:?}"))
        }
    }

    /// What a handler, or another thread, does in the midst of an operation: the stacks that the
    /// operation is about, new ones that evict, allocs, frees, and now and then a tick.
    pub fn interfere(&self, salt: u64) -> Result<(), String> {
        let mut random = Random(salt);
        if random.one_in(4) {
            // Hardly anything: what has moved a little is another state than what has moved far.
            return self.save_and_put(1100 + random.below(500));
        }
        for id in saved_ids() {
            self.save_and_put(id)?;
        }
        self.save_and_put(1100 + random.below(500))?;
        self.acquire_and_put()?;
        self.renew()?;
        let (id, address) = (1700 + random.below(100), address_of(1700, 2));
        refusable(self.world.alloc(1, id, address_of(id, 2)))?;
        refusable(self.world.free(1, 1800, address_of(id, 2)))?;
        refusable(self.world.free(1, 1801, address))?;
        if random.one_in(4) {
            self.world.depot.advance(1 + random.below(20) as u32);
        }
        if random.one_in(3) {
            self.evict_everything(salt)?;
        }
        self.check_held()
    }

    /// Saves so many new stacks that, in a full region, whatever is not held is evicted.
    pub fn evict_everything(&self, salt: u64) -> Result<(), String> {
        for number in 0..100 {
            let frames = filler(salt % 1000 * 100 + number);
            refusable(self.world.depot.save(&frames).map(|_| ()))?;
        }
        Ok(())
    }

    /// Takes a reference on every stack that there is, and on those that operations save.
    #[cfg_attr(
        not(stackdepot_fault),
        expect(dead_code, reason = "only faults hold so much")
    )]
    pub fn hold_everything(&self) -> Result<(), String> {
        let depot = &self.world.depot;
        for weak in depot.walk().map(|walked| walked.weak) {
            if let Ok(handle) = depot.acquire(weak) {
                self.take(weak, Some(handle))?;
            }
        }
        for id in saved_ids() {
            if let Ok(held) = depot.save_acquire(Stack::new(id).frames()) {
                self.take(held.weak, Some(held.handle))?;
            }
        }
        Ok(())
    }

    /// Fills a full region with other stacks and leases every one.
    #[cfg_attr(
        not(stackdepot_fault),
        expect(dead_code, reason = "only faults hold so much")
    )]
    pub fn lease_everything_anew(&self, salt: u64) -> Result<(), String> {
        self.evict_everything(salt)?;
        let depot = &self.world.depot;
        for weak in depot.walk().map(|walked| walked.weak) {
            if depot.renew(weak).is_ok() {
                self.take(weak, None)?;
            }
        }
        Ok(())
    }

    fn take(&self, weak: WeakHandle, reference: Option<Handle>) -> Result<(), String> {
        let frames = frames_of(&self.world.depot, weak).ok_or_else(|| format!("no {weak:?}"))?;
        self.taken.borrow_mut().push(Taken {
            weak,
            reference,
            frames,
        });
        Ok(())
    }

    /// Gives what was taken back; the stacks must be what they were.
    #[cfg_attr(
        not(stackdepot_fault),
        expect(dead_code, reason = "only faults hold so much")
    )]
    pub fn let_go(&self) -> Result<(), String> {
        for taken in self.taken.take() {
            let Taken { weak, frames, .. } = taken;
            let now = frames_of(&self.world.depot, weak);
            if now.as_ref() != Some(&frames) {
                return Err(format!(
                    "{weak:?}, which is held, was {frames:x?} and is {now:x?}"
                ));
            }
            if let Some(reference) = taken.reference {
                self.world.depot.put(reference);
            }
        }
        Ok(())
    }

    /// What was held before is there.
    pub fn check_held(&self) -> Result<(), String> {
        self.held
            .iter()
            .try_for_each(|(id, held)| self.expect_right(*id, held.weak))
    }

    /// The depot's bytes as a kill now would leave them, seen by a reader.
    pub fn check_readable(&self, known: &Known) -> Result<u64, String> {
        let copied = self.memory.clone();
        let bytes = &copied.bytes()[..self.shape.depot_bytes];
        let stored = Image::parse(bytes)?.check_readable(|frames| known.contains(frames))?;
        Ok(stored + self.world.check_events()? + self.world.check_blocks(false)?)
    }

    /// Nothing is in flight: everything is right and counted, and nothing is lost. Uses it up.
    pub fn check_at_rest(&self, known: &Known, is_wounded: bool) -> Result<u64, String> {
        let holds: Vec<WeakHandle> = self.held.iter().map(|(_, held)| held.weak).collect();
        let mut seen = 0;
        if !is_wounded {
            let copied = self.memory.clone();
            seen = self
                .world
                .check_at_rest(&self.shape, copied.bytes(), known, &holds)?;
        }
        self.check_held()?;
        self.held
            .iter()
            .for_each(|(_, held)| self.world.depot.put(held.handle));
        for (address, _) in self.world.live.blocks().collect::<Vec<_>>() {
            let _ = self.world.free(0, 0, address);
        }
        self.clear_cache()?;
        self.world.depot.advance(self.shape.ring.lease_ticks() + 2);
        if !is_wounded {
            check_found_again(&self.world.depot)?;
        }
        let lost = if is_wounded { LOST_BY_DEATH } else { 0 };
        check_nothing_leaked(&self.world.depot, lost)?;
        Ok(seen)
    }

    /// Opens the memory as a later writer would; answers how many held stacks were dropped.
    pub fn reopen(&mut self) -> u64 {
        let holds: Vec<WeakHandle> = self.held.iter().map(|(_, held)| held.weak).collect();
        // SAFETY: the memory is this scene's alone, and nobody is in it.
        let (world, recovered) = unsafe { World::reopen(self.memory.base(), &self.shape, &holds) };
        self.world = world;
        recovered.dropped_holds
    }

    /// What a later writer makes of these bytes.
    pub fn check_reopened(&self, known: &Known) -> Result<u64, String> {
        let mut scene = self.again();
        match scene.reopen() {
            0 => scene.check_at_rest(known, false),
            dropped => Err(format!("a reopen dropped {dropped} held stacks")),
        }
    }
}

fn frames_of(depot: &Depot<'_>, weak: WeakHandle) -> Option<Vec<u64>> {
    let mut frames = vec![0; MOST_FRAMES as usize];
    let fetched = depot.fetch(weak, &mut frames).ok()?;
    frames.truncate(fetched.frame_count);
    Some(frames)
}

/// Every stack that a scene saves.
pub fn known() -> Known {
    Known::first(VARIETY)
}
