//! SIEVE (Zhang and others, NSDI 2024): a queue that is never reordered, and a hand that goes
//! from the oldest to the newest, spares each visited stack once and evicts the first other one.

use super::list::List;

/// Hits of a stream of stack numbers below `stack_count` in a cache of `capacity` stacks.
pub fn hits(stream: &[u32], stack_count: usize, capacity: usize) -> u64 {
    let mut list = List::new(stack_count);
    let mut is_visited = vec![false; stack_count];
    let mut hand = None;
    let mut hits = 0;
    for &stack in stream {
        if list.holds(stack) {
            hits += 1;
            is_visited[stack as usize] = true;
            continue;
        }
        if list.len() == capacity {
            hand = evict(&mut list, &mut is_visited, hand);
        }
        is_visited[stack as usize] = false;
        list.push(stack);
    }
    hits
}

/// Evicts one and answers where the hand stands then: at the next newer one, or nowhere, which
/// means at the oldest.
fn evict(list: &mut List, is_visited: &mut [bool], hand: Option<u32>) -> Option<u32> {
    let mut victim = hand.or(list.oldest())?;
    while is_visited[victim as usize] {
        is_visited[victim as usize] = false;
        victim = list.newer_than(victim).or(list.oldest())?;
    }
    let next = list.newer_than(victim);
    list.remove(victim);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visited_stack_is_spared_and_keeps_its_place() {
        // At 2 the hand spares 0 and evicts 1; at 1 it stands at 2 and evicts that.
        assert_eq!(hits(&[0, 1, 0, 2, 0, 1, 0], 3, 2), 3);
        assert_eq!(hits(&[0, 1, 2, 0, 1, 2], 3, 3), 3);
    }
}
