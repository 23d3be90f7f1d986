//! Who of the threads of a history runs: under `--cfg stackdepot_fault` one at a time, and at
//! random places between its operations on shared words it hands over to another, so that a
//! seed repeats a history (but for hints, which go by where a thread's stack lies). Yielding
//! instead would leave it to the system: hundreds of times slower beside a busy process.
//! Otherwise all run at once.

#[cfg(not(stackdepot_fault))]
pub use all_at_once::{Turns, take};
#[cfg(stackdepot_fault)]
pub use one_at_a_time::{Turns, take};

#[cfg(stackdepot_fault)]
mod one_at_a_time {
    use std::sync::{Arc, Condvar, Mutex, MutexGuard};

    use stackdepot::sync::fault;

    /// Mean distance between two places, in operations.
    const MEAN_DISTANCE: u64 = 12;
    /// One time in 16 a thread stays away for so many turns: others are through with whole calls.
    const LONG: u32 = 32;

    pub struct Turns {
        turn: Mutex<Turn>,
        changed: Condvar,
    }

    struct Turn {
        holder: usize,
        threads: Vec<Thread>,
        random: u64,
    }

    #[derive(Clone, Default)]
    struct Thread {
        is_done: bool,
        /// Turns of others until it may have one again.
        away: u32,
    }

    /// Lets the thread run; until it is dropped, and only in its turns.
    pub struct Running {
        turns: Arc<Turns>,
        me: usize,
    }

    impl Turns {
        pub fn new(thread_count: usize, seed: u64) -> Arc<Turns> {
            let mut turn = Turn {
                holder: 0,
                threads: vec![Thread::default(); thread_count],
                random: seed,
            };
            turn.pass();
            Arc::new(Turns {
                turn: Mutex::new(turn),
                changed: Condvar::new(),
            })
        }

        /// Of whoever panicked, too: its turn has to end.
        fn lock(&self) -> MutexGuard<'_, Turn> {
            self.turn.lock().unwrap_or_else(|error| error.into_inner())
        }

        fn wait(&self, mut turn: MutexGuard<'_, Turn>, me: usize) {
            while turn.holder != me {
                let waited = self.changed.wait(turn);
                turn = waited.unwrap_or_else(|error| error.into_inner());
            }
        }

        fn hand_over(&self, me: usize) {
            let mut turn = self.lock();
            turn.threads[me].away = if turn.below(16) == 0 { LONG } else { 0 };
            turn.pass();
            self.changed.notify_all();
            self.wait(turn, me);
        }
    }

    impl Turn {
        /// To one of those that are not done nor away; to one that is away where there is no other.
        fn pass(&mut self) {
            for thread in &mut self.threads {
                thread.away = thread.away.saturating_sub(1);
            }
            let there = |most_away| {
                let threads = self.threads.iter().enumerate();
                let is_there = move |(_, thread): &(usize, &Thread)| {
                    !thread.is_done && thread.away <= most_away
                };
                let numbers = threads.filter(is_there).map(|(number, _)| number);
                numbers.collect::<Vec<_>>()
            };
            let (present, all) = (there(0), there(u32::MAX));
            let candidates = if present.is_empty() { all } else { present };
            if !candidates.is_empty() {
                self.holder = candidates[self.below(candidates.len() as u64) as usize];
            }
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.random = self
                .random
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            (self.random >> 33) % bound
        }
    }

    /// Waits for the first turn of thread `me`.
    pub fn take(turns: &Arc<Turns>, me: usize) -> Running {
        turns.wait(turns.lock(), me);
        arm(Arc::clone(turns), me);
        Running {
            turns: Arc::clone(turns),
            me,
        }
    }

    fn arm(turns: Arc<Turns>, me: usize) {
        let distance = 1 + turns.lock().below(2 * MEAN_DISTANCE);
        let give_way = move || {
            turns.hand_over(me);
            arm(turns, me);
        };
        fault::arm(distance, Box::new(give_way));
    }

    impl Drop for Running {
        fn drop(&mut self) {
            fault::disarm();
            let mut turn = self.turns.lock();
            turn.threads[self.me].is_done = true;
            turn.pass();
            self.turns.changed.notify_all();
        }
    }
}

#[cfg(not(stackdepot_fault))]
mod all_at_once {
    use std::sync::{Arc, Barrier};

    /// A common start.
    pub struct Turns(Barrier);

    impl Turns {
        pub fn new(thread_count: usize, _: u64) -> Arc<Turns> {
            Arc::new(Turns(Barrier::new(thread_count)))
        }
    }

    /// Waits for all threads.
    pub fn take(turns: &Arc<Turns>, _: usize) -> std::sync::BarrierWaitResult {
        turns.0.wait()
    }
}
