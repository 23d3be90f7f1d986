//! Belady's optimum: the stack that is used again last goes first, or is not taken in at all.
//! No policy without knowledge of the future hits more often.

use std::collections::BinaryHeap;

/// Not used again.
const NEVER: u32 = u32::MAX;

/// Hits of a stream of stack numbers below `stack_count` in a cache of `capacity` stacks.
pub fn hits(stream: &[u32], stack_count: usize, capacity: usize) -> u64 {
    let next_uses = next_uses(stream, stack_count);
    // When each stack in the cache is used next; 0 for those that are not in it.
    let mut due = vec![0; stack_count];
    // What is due last is on top; entries of uses that are past, or of evicted stacks, are stale.
    let mut heap = BinaryHeap::new();
    let (mut len, mut hits) = (0, 0);
    for (&stack, &next_use) in stream.iter().zip(&next_uses) {
        if due[stack as usize] != 0 {
            hits += 1;
        } else {
            len += 1;
        }
        due[stack as usize] = next_use;
        heap.push((next_use, stack));
        while len > capacity
            && let Some((use_time, last)) = heap.pop()
        {
            if due[last as usize] == use_time {
                due[last as usize] = 0;
                len -= 1;
            }
        }
    }
    hits
}

/// For each place of the stream, the place where its stack comes next.
fn next_uses(stream: &[u32], stack_count: usize) -> Vec<u32> {
    let mut next = vec![NEVER; stack_count];
    let mut uses = vec![NEVER; stream.len()];
    for (place, &stack) in stream.iter().enumerate().rev() {
        uses[place] = next[stack as usize];
        next[stack as usize] = place as u32;
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_last_goes() {
        assert_eq!(hits(&[0, 1, 2, 0, 1, 2], 3, 2), 2);
        assert_eq!(hits(&[0, 1, 2, 0, 1, 2], 3, 3), 3);
        // 2 never comes again and is not taken in.
        assert_eq!(hits(&[0, 1, 2, 0, 1, 0, 1], 3, 2), 4);
    }

    #[test]
    fn no_policy_hits_more_often() {
        let mut state = 1u64;
        let stream: Vec<u32> = (0..20_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let (low, high) = (state >> 33 & 0xff, state >> 41 & 0xff);
                (low * high / 128) as u32
            })
            .collect();
        for capacity in [1, 7, 50, 200] {
            let best = hits(&stream, 512, capacity);
            for policy in [
                super::super::lru::hits,
                super::super::sieve::hits,
                super::super::s3fifo::hits,
            ] {
                assert!(policy(&stream, 512, capacity) <= best);
            }
        }
    }
}
