//! What an operation looks at and writes, by part of the region.
//!
//! Key types: [`Watched`], memory whose parts are known, and [`Looks`], the counts of one operation.

use std::collections::HashSet;

use stackdepot::sync::fault::{self, Access};
use stackdepot::{Config, Depot, Geometry, Line};

use crate::memory;

/// Where the clock's line lies in the header.
const CLOCK_LINE: std::ops::Range<usize> = 64..128;

/// Memory for one depot.
pub struct Watched {
    memory: Vec<Line>,
    config: Config,
}

/// Where the parts of a region lie in this process.
#[derive(Clone, Copy)]
pub struct Parts {
    base: usize,
    geometry: Geometry,
}

/// What one operation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// Operations on cells of the index.
    pub entries: u64,
    /// Different slots.
    pub nodes: u64,
    /// Operations on the line of the clock.
    pub clock: u64,
    /// Operations on words of payload.
    pub payload: u64,
    /// Operations that may write, wherever.
    pub writes: u64,
    /// All operations.
    pub all: u64,
}

impl Watched {
    pub fn new(config: Config) -> Watched {
        let memory = memory(&config);
        Watched { memory, config }
    }

    pub fn depot(&mut self) -> (Depot<'_>, Parts) {
        let parts = Parts {
            base: self.memory.as_ptr().addr(),
            geometry: self.config.geometry().unwrap(),
        };
        (Depot::new(&mut self.memory, &self.config).unwrap(), parts)
    }
}

impl Parts {
    /// Does something, and counts what it looks at.
    pub fn watch<T>(&self, operation: impl FnOnce() -> T) -> (T, Looks) {
        fault::watch();
        let answer = operation();
        (answer, self.looks(&fault::watched()))
    }

    fn looks(&self, accesses: &[Access]) -> Looks {
        let mut looks = Looks::default();
        let mut slots = HashSet::new();
        for access in accesses {
            let offset = access.address.wrapping_sub(self.base);
            looks.all += 1;
            looks.writes += u64::from(access.is_write);
            looks.clock += u64::from(CLOCK_LINE.contains(&offset));
            if (self.geometry.buckets_offset..self.geometry.slots_offset).contains(&offset) {
                looks.entries += 1;
            } else if (self.geometry.slots_offset..self.geometry.payload_offset).contains(&offset) {
                slots.insert(offset / 64);
            } else if (self.geometry.payload_offset..self.geometry.region_bytes).contains(&offset) {
                looks.payload += 1;
            }
        }
        looks.nodes = slots.len() as u64;
        looks
    }
}
