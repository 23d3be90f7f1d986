//! Stacks by somebody who knows the code, but not the seed, and ordinary stacks to compare with.
//!
//! Key type: [`Set`]. Its twin has the same shape, node for node (which stacks share which outer
//! runs, and which upper halves occur), but each run's frames are drawn at random: whatever a
//! set is chosen for is gone from its twin.

use std::collections::HashSet;

use crate::mix;

/// An address like those of programs.
const CODE: u64 = 0x5555_5540_1000;
const RUN: usize = 10;

/// Stacks that are chosen for something.
pub struct Set {
    pub name: &'static str,
    pub stacks: Vec<Vec<u64>>,
}

/// All of them.
pub fn sets() -> Vec<Set> {
    let set = |name, stacks| Set { name, stacks };
    vec![
        set("zero words", zero_words()),
        set("one byte in two pairs", two_bytes([2, 0], [5, 0])),
        set("one byte in two words of a pair", two_bytes([4, 8], [5, 8])),
        set("the same byte in four pairs", four_words([0, 2, 4, 6])),
        set("the bytes of a diagonal", diagonal()),
        set("permuted runs", permuted_runs()),
        set("permuted frames", permuted_frames()),
        set("permuted pairs", permuted_pairs()),
        set("sequences of two runs", sequences_of_two_runs()),
        set("top bits of one word", top_bits()),
        set(
            "top bits of both words of a pair",
            two_bytes([6, 57], [7, 57]),
        ),
        set("a word or its complement", complements()),
        set("single bits", single_bits()),
        set("one frame, more and more often", repeated()),
        set("only the outermost run differs", one_run(19)),
        set("only the run in the middle differs", one_run(10)),
        set("only the innermost run differs", one_run(0)),
    ]
}

fn frames(count: usize) -> Vec<u64> {
    (0..count as u64)
        .map(|place| CODE + (mix(place) & 0xf_ffff))
        .collect()
}

/// A factor that is zero takes the other with it, in a hash that multiplies without a key.
fn zero_words() -> Vec<Vec<u64>> {
    let stacks = (0..4096).map(|number: u64| {
        let mut stack = vec![0; RUN];
        stack[number as usize % RUN] = CODE + number;
        stack
    });
    stacks.collect()
}

/// All values of seven bits at a place in one word and at a place in another.
fn two_bytes([one, one_shift]: [usize; 2], [other, other_shift]: [usize; 2]) -> Vec<Vec<u64>> {
    let bits = (0..128u64).flat_map(|a| (0..128u64).map(move |b| (a, b)));
    let stacks = bits.map(|(a, b)| {
        let mut stack = frames(RUN);
        stack[one] ^= a << one_shift;
        stack[other] ^= b << other_shift;
        stack
    });
    stacks.collect()
}

fn four_words(words: [usize; 4]) -> Vec<Vec<u64>> {
    let stacks = (0..10_000u64).map(|number| {
        let mut stack = frames(RUN);
        let digits = [number, number / 10, number / 100, number / 1000];
        for (word, digit) in words.into_iter().zip(digits) {
            stack[word] ^= (digit % 10) << 16;
        }
        stack
    });
    stacks.collect()
}

/// Bytes 0, 5, 10 and 15 of a block: one column after the first AES round.
fn diagonal() -> Vec<Vec<u64>> {
    let stacks = (0..10_000u64).map(|number| {
        let mut stack = frames(RUN);
        stack[2] ^= (number % 10) | ((number / 10 % 10) << 40);
        stack[3] ^= ((number / 100 % 10) << 16) | ((number / 1000 % 10) << 56);
        stack
    });
    stacks.collect()
}

/// Every order of `count` things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![vec![]];
    for thing in 0..count {
        let longer = |order: &Vec<usize>| {
            let insert = |place| {
                let mut longer = order.clone();
                longer.insert(place, thing);
                longer
            };
            (0..=order.len()).map(insert).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders
}

fn permuted_runs() -> Vec<Vec<u64>> {
    let all = frames(6 * RUN);
    let stack = |order: &Vec<usize>| {
        let runs = order.iter().map(|run| &all[run * RUN..][..RUN]);
        runs.flatten().copied().collect()
    };
    orders(6).iter().map(stack).collect()
}

fn permuted_frames() -> Vec<Vec<u64>> {
    let all = frames(RUN);
    let stack = |order: &Vec<usize>| {
        let inner = order.iter().map(|place| all[*place]);
        inner.chain(all[7..].iter().copied()).collect()
    };
    orders(7).iter().map(stack).collect()
}

/// The pairs in every order, and turned around.
fn permuted_pairs() -> Vec<Vec<u64>> {
    let all = frames(RUN);
    let mut stacks = Vec::new();
    for order in orders(RUN / 2) {
        for turned in 0..32usize {
            let pair = |pair: &usize| {
                let swap = turned >> pair & 1;
                [all[pair * 2 + swap], all[pair * 2 + 1 - swap]]
            };
            stacks.push(order.iter().flat_map(pair).collect());
        }
    }
    stacks
}

fn sequences_of_two_runs() -> Vec<Vec<u64>> {
    let runs = [frames(RUN), frames(2 * RUN)[RUN..].to_vec()];
    let stack = |number: usize| {
        let run = |level: usize| runs[number >> level & 1].clone();
        (0..11).flat_map(run).collect()
    };
    (0..1 << 11).map(stack).collect()
}

/// What a multiplication carries to nowhere.
fn top_bits() -> Vec<Vec<u64>> {
    let stacks = (0..4096u64).map(|number| {
        let mut stack = frames(RUN);
        stack[4] ^= number << 52;
        stack
    });
    stacks.collect()
}

fn complements() -> Vec<Vec<u64>> {
    let stack = |number: u64| {
        let word = |(place, word): (usize, u64)| {
            if number >> place & 1 == 1 {
                !word
            } else {
                word
            }
        };
        frames(RUN).into_iter().enumerate().map(word).collect()
    };
    (0..1024).map(stack).collect()
}

fn single_bits() -> Vec<Vec<u64>> {
    let stacks = (0..4096u64).map(|number| {
        let mut stack = vec![CODE; RUN];
        stack[2] = 1 << (number & 63);
        stack[3] = 1 << (number >> 6);
        stack
    });
    stacks.collect()
}

fn repeated() -> Vec<Vec<u64>> {
    let of = |word| (1..=256).map(move |count| vec![word; count]);
    [0, CODE, CODE << 32, u64::MAX]
        .into_iter()
        .flat_map(of)
        .collect()
}

fn one_run(level: usize) -> Vec<Vec<u64>> {
    let stacks = (0..400u64).map(|number| {
        let mut stack = frames(20 * RUN);
        stack[level * RUN + 3] ^= number << 2;
        stack
    });
    stacks.collect()
}

/// The levels of a stack, the root's first.
fn levels(stack: &[u64]) -> impl Iterator<Item = &[u64]> {
    stack.rchunks(RUN)
}

/// What a run has above it, and itself, in a number.
fn path(above: u64, run: &[u64]) -> u64 {
    run.iter()
        .fold(mix(above ^ run.len() as u64), |path, frame| {
            mix(path ^ frame)
        })
}

/// Slots that all stacks of a set take; twice as many where nodes may be wide.
pub fn slot_count(stacks: &[Vec<u64>]) -> u32 {
    let mut nodes = HashSet::new();
    let mut highs = HashSet::new();
    for stack in stacks {
        highs.extend(stack.iter().map(|frame| frame >> 32));
        let mut above = 0;
        for run in levels(stack) {
            above = path(above, run);
            nodes.insert(above);
        }
    }
    let slots_per_node = if highs.len() > 2 { 2 } else { 1 };
    nodes.len() as u32 * slots_per_node
}

/// Ordinary stacks of the same shape.
pub fn ordinary(stacks: &[Vec<u64>], secret: u64) -> Vec<Vec<u64>> {
    let twin = |stack: &Vec<u64>| {
        let (mut above, mut twins) = (secret, Vec::new());
        for run in levels(stack) {
            above = path(above, run);
            let renamed = run.iter().enumerate().map(|(place, frame)| {
                let high = (frame >> 32 ^ secret).wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
                high << 32 | mix(above ^ (place as u64) << 56) & 0xffff_ffff
            });
            twins.splice(0..0, renamed);
        }
        twins
    };
    stacks.iter().map(twin).collect()
}
