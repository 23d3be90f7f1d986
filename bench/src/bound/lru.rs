//! Least recently used: the stack that was saved longest ago goes first.

use super::list::List;

/// Hits of a stream of stack numbers below `stack_count` in a cache of `capacity` stacks.
pub fn hits(stream: &[u32], stack_count: usize, capacity: usize) -> u64 {
    let mut list = List::new(stack_count);
    let mut hits = 0;
    for &stack in stream {
        if list.holds(stack) {
            hits += 1;
            list.remove(stack);
        } else if list.len() == capacity
            && let Some(oldest) = list.oldest()
        {
            list.remove(oldest);
        }
        list.push(stack);
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes() {
        // 0 is used again before 2 comes, so 1 goes.
        assert_eq!(hits(&[0, 1, 0, 2, 0, 1], 3, 2), 2);
        assert_eq!(hits(&[0, 1, 2, 0, 1, 2], 3, 2), 0);
        assert_eq!(hits(&[0, 1, 2, 0, 1, 2], 3, 3), 3);
    }
}
