//! S3-FIFO (Yang and others, SOSP 2023): a small queue of a tenth of the places sorts out stacks
//! that come once; what was used there, or was remembered from it, lives in the main queue.

use super::list::List;

/// Uses that are counted of a stack in the cache.
const MOST_USES: u8 = 3;

struct Cache {
    small: List,
    main: List,
    /// Stacks that left the small queue unused, as many as the main queue has places.
    ghost: List,
    uses: Vec<u8>,
    small_capacity: usize,
    capacity: usize,
}

/// Hits of a stream of stack numbers below `stack_count` in a cache of `capacity` stacks.
pub fn hits(stream: &[u32], stack_count: usize, capacity: usize) -> u64 {
    let mut cache = Cache {
        small: List::new(stack_count),
        main: List::new(stack_count),
        ghost: List::new(stack_count),
        uses: vec![0; stack_count],
        small_capacity: (capacity / 10).max(1),
        capacity,
    };
    stream.iter().filter(|stack| cache.save(**stack)).count() as u64
}

impl Cache {
    /// Answers whether it was a hit.
    fn save(&mut self, stack: u32) -> bool {
        if self.small.holds(stack) || self.main.holds(stack) {
            let uses = &mut self.uses[stack as usize];
            *uses = (*uses + 1).min(MOST_USES);
            return true;
        }
        while self.small.len() + self.main.len() >= self.capacity {
            if self.small.len() >= self.small_capacity || self.main.len() == 0 {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
        self.uses[stack as usize] = 0;
        if self.ghost.holds(stack) {
            self.ghost.remove(stack);
            self.main.push(stack);
        } else {
            self.small.push(stack);
        }
        false
    }

    /// Moves what was used more than once to the main queue until one is evicted.
    fn evict_small(&mut self) {
        while let Some(stack) = self.small.pop_oldest() {
            if self.uses[stack as usize] > 1 {
                self.uses[stack as usize] = 0;
                self.main.push(stack);
                continue;
            }
            if self.ghost.len() >= self.capacity - self.small_capacity {
                self.ghost.pop_oldest();
            }
            self.ghost.push(stack);
            return;
        }
    }

    /// Puts what was used back to the end, with one use less, until one is evicted.
    fn evict_main(&mut self) {
        while let Some(stack) = self.main.pop_oldest() {
            let uses = &mut self.uses[stack as usize];
            if *uses == 0 {
                return;
            }
            *uses -= 1;
            self.main.push(stack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_passes_through_the_small_queue() {
        // Eight stacks that are used again and again, then a long scan, then the eight again.
        let hot = (0..8).cycle().take(40);
        let stream: Vec<u32> = hot.clone().chain(100..200).chain(hot).collect();
        assert_eq!(hits(&stream, 200, 20), 32 + 40);
        assert!(super::super::lru::hits(&stream, 200, 20) == 32 + 32);
    }
}
