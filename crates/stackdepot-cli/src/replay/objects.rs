//! The live objects of one replaying thread: what it holds, by the corpus' slots.
//!
//! Every thread has objects of its own. One that starts in the middle of the events meets frees
//! of objects that it never made (nothing happens), and after the wrap allocs into occupied
//! slots; the `kernel` corpus has such allocs of its own. Those release the old object.

use stackdepot::{Handle, WeakHandle};
use stackdepot_corpus::{Corpus, NO_SLOT};

/// A live object: the counted reference on its stack, and which stack that must be.
#[derive(Clone, Copy)]
pub struct Object {
    pub weak: WeakHandle,
    pub handle: Handle,
    /// Index of the stack in the corpus.
    pub stack: u32,
}

/// The objects of one thread.
pub struct Objects(Vec<Option<Object>>);

impl Objects {
    /// None is live.
    pub fn new(corpus: &Corpus) -> Objects {
        Objects(vec![None; corpus.slot_count()])
    }

    /// Puts an object (or nothing) into a slot; answers what was there.
    pub fn replace(&mut self, slot: u32, object: Option<Object>) -> Option<Object> {
        if slot == NO_SLOT {
            return None;
        }
        self.0
            .get_mut(slot as usize)
            .and_then(|place| std::mem::replace(place, object))
    }

    /// All that are live.
    pub fn live(&self) -> impl Iterator<Item = &Object> {
        self.0.iter().flatten()
    }
}
