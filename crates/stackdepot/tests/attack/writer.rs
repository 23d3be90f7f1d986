//! The writer process of the soak: threads that do whatever the recorder does and check what they
//! get, forks of them that read, and handlers that interrupt them.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;

use stackdepot::{Held, WeakHandle};

use crate::process::{Child, interrupt_on};
use crate::soak::{HANDLERS, Soak, THREADS, VARIETY};
use crate::stacks::{Random, Seen, Stack, look};
use crate::tally::{FORKS, SIGNALS, Tally};
use crate::world::{World, address_of};

/// A writer ends within this, or it hangs.
const HANG_SECONDS: u32 = 30;

/// One thread of a writer.
struct Writer<'a> {
    soak: &'a Soak,
    world: World<'static>,
    row: usize,
    tally: Tally<'a>,
    random: Random,
    held: Vec<(u64, Held)>,
    kept: Vec<(u64, WeakHandle)>,
    blocks: Vec<u64>,
    next_place: u64,
}

impl Writer<'_> {
    fn step(&mut self) {
        let id = self.random.below(VARIETY);
        match self.random.below(16) {
            // Some stacks come so often that they are held in advance.
            0..2 => self.alloc(id % 4),
            2..4 => self.alloc(id),
            4..7 => self.free(id),
            7..9 => self.save_and_hold(id),
            9 => self.put(),
            10 => self.save(id),
            11 => self.renew(),
            12 => self.acquire_and_put(),
            13 => self.look_at_held(),
            _ => self.rarely(),
        }
    }

    fn alloc(&mut self, id: u64) {
        if self.blocks.len() >= 40 {
            return;
        }
        self.next_place = (self.next_place + 1) % 64;
        let address = address_of(id, (self.row as u64) << 6 | self.next_place);
        if !self.blocks.contains(&address) {
            let _ = self.tally.save(|| self.world.alloc(self.row, id, address));
            self.blocks.push(address);
        }
    }

    fn free(&mut self, id: u64) {
        if self.blocks.is_empty() {
            return;
        }
        let index = self.random.below(self.blocks.len() as u64) as usize;
        let address = self.blocks.swap_remove(index);
        let _ = self.tally.save(|| self.world.free(self.row, id, address));
    }

    fn save_and_hold(&mut self, id: u64) {
        let saved = self
            .tally
            .save(|| self.world.depot.save_acquire(Stack::new(id).frames()));
        if let Ok(held) = saved {
            self.expect_right(id, held.weak);
            self.held.push((id, held));
        }
        if self.held.len() > 4 {
            self.put();
        }
    }

    fn put(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = self.random.below(self.held.len() as u64) as usize;
        let (id, held) = self.held.swap_remove(index);
        self.expect_right(id, held.weak);
        let _ = self.tally.save(|| {
            self.world.depot.put(held.handle);
            Ok(())
        });
        self.keep(id, held.weak);
    }

    fn save(&mut self, id: u64) {
        let is_leased = self.random.one_in(2);
        let saved = self.tally.save(|| {
            let frames = Stack::new(id);
            if !is_leased {
                return self
                    .world
                    .depot
                    .save(frames.frames())
                    .map(|weak| (weak, None));
            }
            let leased = self.world.depot.save_lease(frames.frames())?;
            Ok((leased.weak, Some(leased.from)))
        });
        let Ok((weak, from)) = saved else { return };
        let seen = look(&self.world.depot, weak, id);
        let now = self.world.depot.now();
        let is_held = from.is_some_and(|from| !from.is_over(now, self.world.depot.lease_ticks()));
        self.judge(id, seen, is_held);
        self.keep(id, weak);
    }

    fn keep(&mut self, id: u64, weak: WeakHandle) {
        if self.kept.len() < 200 {
            self.kept.push((id, weak));
        } else {
            let index = self.random.below(200) as usize;
            self.kept[index] = (id, weak);
        }
    }

    fn one_kept(&mut self) -> Option<(u64, WeakHandle)> {
        let index = self.random.below(self.kept.len().max(1) as u64) as usize;
        self.kept.get(index).copied()
    }

    fn renew(&mut self) {
        let Some((id, weak)) = self.one_kept() else {
            return;
        };
        let renewed = self.tally.hold(|| self.world.depot.renew(weak));
        let seen = look(&self.world.depot, weak, id);
        let now = self.world.depot.now();
        let is_held = renewed.is_ok_and(|from| !from.is_over(now, self.world.depot.lease_ticks()));
        self.judge(id, seen, is_held);
    }

    fn acquire_and_put(&mut self) {
        let Some((id, weak)) = self.one_kept() else {
            return;
        };
        if let Ok(handle) = self.tally.hold(|| self.world.depot.acquire(weak)) {
            self.expect_right(id, weak);
            self.world.depot.put(handle);
        }
    }

    fn look_at_held(&self) {
        self.held
            .iter()
            .for_each(|(id, held)| self.expect_right(*id, held.weak));
    }

    fn rarely(&mut self) {
        match self.random.below(200) {
            0 => self.fork_a_reader(),
            1..4 => self.soak.check(self.row, self.world.check_events()),
            4..30 => self.world.depot.advance(1),
            30..34 => self.clear_cache(),
            _ => {}
        }
    }

    fn clear_cache(&self) {
        if let Some(cache) = self.world.cache(self.row) {
            cache.clear(&self.world.depot);
        }
    }

    /// A fork of a writer must not write; it may read, and its parent goes on.
    fn fork_a_reader(&self) {
        self.tally.add(FORKS, 1);
        let reader = Child::fork(|| self.soak.check_while_written(self.row));
        if self.random.0.is_multiple_of(2) && !reader.ended_well() {
            self.soak
                .check(self.row, Err("a forked reader failed".to_owned()));
        }
    }

    fn expect_right(&self, id: u64, weak: WeakHandle) {
        self.judge(id, look(&self.world.depot, weak, id), true);
    }

    fn judge(&self, id: u64, seen: Seen, is_held: bool) {
        let is_wrong = seen == Seen::Wrong || (is_held && seen == Seen::Evicted);
        let checked = if is_wrong {
            Err(format!("stack {id} is {seen:?}, held: {is_held}"))
        } else {
            Ok(1)
        };
        self.soak.check(self.row, checked);
    }

    fn let_all_go(&mut self) {
        while !self.held.is_empty() {
            self.put();
        }
    }
}

/// What a handler does, on whatever it interrupts.
fn handle(soak: &Soak) {
    let (world, tally) = (soak.world(), soak.tally(HANDLERS));
    let mut random = Random(tally.add(SIGNALS, 1));
    for _ in 0..3 {
        let id = random.below(VARIETY);
        let saved = tally.save(|| world.depot.save_acquire(Stack::new(id).frames()));
        if let Ok(held) = saved {
            let is_right = look(&world.depot, held.weak, id) == Seen::Right;
            soak.check(
                HANDLERS,
                if is_right {
                    Ok(1)
                } else {
                    Err(format!("a handler lost stack {id}"))
                },
            );
            world.depot.put(held.handle);
        }
    }
    let (id, place) = (random.below(VARIETY), 0x8000 | (random.0 % 1024));
    let _ = tally.save(|| world.alloc(HANDLERS, id, address_of(id, place)));
    let _ = tally.save(|| world.free(HANDLERS, id, address_of(id, place)));
}

static SOAK: AtomicPtr<Soak> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: set before the handler is installed, by a process that keeps it to its end.
    handle(unsafe { &*SOAK.load(Ordering::Relaxed) });
}

/// The writer process: its threads, and its first one sends them signals.
pub fn write(soak: &Soak, seed: u64) {
    SOAK.store(std::ptr::from_ref(soak).cast_mut(), Ordering::Relaxed);
    interrupt_on(libc::SIGUSR1, on_signal);
    // SAFETY: ends a process that hangs.
    unsafe { libc::alarm(HANG_SECONDS) };
    let ids: [AtomicU64; THREADS] = Default::default();
    std::thread::scope(|scope| {
        for (row, id) in ids.iter().enumerate() {
            scope.spawn(move || {
                // SAFETY: asks for this thread's own id.
                id.store(unsafe { libc::pthread_self() } as u64, Ordering::Relaxed);
                run_thread(soak, row, seed);
            });
        }
        let mut random = Random(seed);
        while soak.stop().load(Ordering::Relaxed) == 0 {
            let id = ids[random.below(THREADS as u64) as usize].load(Ordering::Relaxed);
            if id != 0 {
                // SAFETY: the thread is not joined before the scope's end.
                unsafe { libc::pthread_kill(id as libc::pthread_t, libc::SIGUSR1) };
            }
            std::thread::sleep(Duration::from_micros(random.below(200)));
        }
    });
}

fn run_thread(soak: &Soak, row: usize, seed: u64) {
    let random = Random(seed ^ (row as u64) << 32);
    let (world, tally) = (soak.world(), soak.tally(row));
    let (held, kept, blocks) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer = Writer {
        soak,
        world,
        row,
        tally,
        random,
        held,
        kept,
        blocks,
        next_place: 0,
    };
    while soak.stop().load(Ordering::Relaxed) == 0 {
        writer.step();
    }
    writer.let_all_go();
}
