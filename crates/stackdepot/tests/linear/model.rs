//! The sequential model: which stacks there are, who holds them, and what each call may answer.
//!
//! Key type: [`State`]. It follows the answers: a handle that was never seen is a stack that
//! was stored just now, an `Evicted` means that the stack went before, if it could go.

use stackdepot::{Tick, WeakHandle};

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Of a stack, by its number.
    Save(u8),
    SaveAcquire(u8),
    SaveLease(u8),
    Acquire(WeakHandle),
    /// Of a reference that this thread holds.
    Put(WeakHandle),
    Renew(WeakHandle),
    Fetch(WeakHandle),
    Advance,
}

/// What it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Saved(WeakHandle),
    /// Leased from that tick on.
    Leased(WeakHandle, Tick),
    /// A whole stack, by its number.
    Shown(u8),
    Evicted,
    Refused,
}

impl Answer {
    pub fn is_evicted(self) -> bool {
        self == Answer::Evicted
    }

    pub fn is_refused(self) -> bool {
        self == Answer::Refused
    }
}

/// What the depot was made with.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub lease_ticks: u32,
}

/// One life of one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Life {
    weak: WeakHandle,
    number: u8,
    references: u8,
    /// The tick of its newest lease.
    leased_from: Option<u32>,
    is_gone: bool,
}

/// Everything that later answers depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    lives: Vec<Life>,
    clock: u32,
}

impl State {
    /// The state after a call, `None` if it cannot have answered that. `earliest` is the least
    /// tick that the call can have read.
    pub fn after(&self, call: Call, answer: Answer, earliest: u32, rules: Rules) -> Option<State> {
        let mut next = self.clone();
        let is_possible = match (call, answer) {
            (_, Answer::Refused) => !matches!(call, Call::Put(_) | Call::Fetch(_) | Call::Advance),
            (Call::Save(number), Answer::Saved(weak)) => next.store(number, weak, rules).is_some(),
            (Call::SaveAcquire(number), Answer::Saved(weak)) => {
                next.store(number, weak, rules).map(Life::refer).is_some()
            }
            (Call::SaveLease(number), Answer::Leased(weak, from)) => {
                next.is_readable(from, earliest)
                    && next
                        .store(number, weak, rules)
                        .map(|life| life.lease(from))
                        .is_some()
            }
            (Call::Acquire(weak), Answer::Done) => next.there(weak).map(Life::refer).is_some(),
            (Call::Put(weak), Answer::Done) => next.there(weak).is_some_and(Life::unrefer),
            (Call::Renew(weak), Answer::Leased(_, from)) => {
                next.is_readable(from, earliest)
                    && next.there(weak).map(|life| life.lease(from)).is_some()
            }
            (Call::Fetch(weak), Answer::Shown(number)) => {
                next.there(weak).is_some_and(|life| life.number == number)
            }
            (Call::Acquire(weak) | Call::Renew(weak) | Call::Fetch(weak), Answer::Evicted) => {
                next.lose(|life| life.weak == weak, rules)
            }
            (Call::Advance, Answer::Done) => {
                next.clock += 1;
                true
            }
            _ => false,
        };
        is_possible.then_some(next)
    }

    /// A clock that stood between the call's beginning and this point of the order.
    fn is_readable(&self, from: Tick, earliest: u32) -> bool {
        (earliest..=self.clock).contains(&from.0)
    }

    /// The stack's life under that handle: the one that is there, or a new one, for which the
    /// stack's last life and whatever was in the slot before must be gone.
    fn store(&mut self, number: u8, weak: WeakHandle, rules: Rules) -> Option<&mut Life> {
        let is_known = self.lives.iter().any(|life| life.weak == weak);
        if !is_known {
            let is_later = |life: &Life| {
                life.weak.slot() == weak.slot() && life.weak.generation() > weak.generation()
            };
            let is_in_the_way =
                |life: &Life| life.number == number || life.weak.slot() == weak.slot();
            if self.lives.iter().any(is_later) || !self.lose(is_in_the_way, rules) {
                return None;
            }
            self.lives.push(Life {
                weak,
                number,
                references: 0,
                leased_from: None,
                is_gone: false,
            });
            // One state for all orders in which lives came.
            self.lives.sort_by_key(|life| life.weak);
        }
        self.there(weak).filter(|life| life.number == number)
    }

    /// The life that is still there.
    fn there(&mut self, weak: WeakHandle) -> Option<&mut Life> {
        let mut lives = self.lives.iter_mut();
        lives.find(|life| life.weak == weak && !life.is_gone)
    }

    /// Evicts these lives, which only those that nobody holds allow.
    fn lose(&mut self, is_meant: impl Fn(&Life) -> bool, rules: Rules) -> bool {
        let clock = self.clock;
        let mut meant = self.lives.iter_mut().filter(|life| is_meant(life));
        meant.all(|life| {
            let may_go = life.is_gone || !life.is_held(clock, rules);
            life.is_gone = true;
            may_go
        })
    }
}

impl Life {
    fn is_held(&self, clock: u32, rules: Rules) -> bool {
        let is_leased = |from| clock - from <= rules.lease_ticks;
        self.references > 0 || self.leased_from.is_some_and(is_leased)
    }

    fn refer(&mut self) {
        self.references += 1;
    }

    fn unrefer(&mut self) -> bool {
        let had = self.references > 0;
        self.references -= u8::from(had);
        had
    }

    fn lease(&mut self, from: Tick) {
        self.leased_from = self.leased_from.max(Some(from.0));
    }
}
