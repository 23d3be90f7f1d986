//! What is asked of a store that has every stack: saves, saves that wait for each other, fetches.

use std::hint::black_box;

use super::batch::{BATCH_WORDS, Batch};
use crate::figure::{Holding, Measure, Peer};
use crate::machine::Watch;
use crate::process::Round;
use crate::workload::{MOST_FRAMES, Workload};

/// Save of a stored stack, as many at once as the processor manages.
pub const STORED: Measure = Measure("save stored");
/// Save of a stored stack, each waiting for the one before.
pub const DEPENDENT: Measure = Measure("save stored, dependent");
/// The two with a reference taken, which is given back untimed.
pub const HELD_STORED: Measure = Measure("save+acquire stored");
/// See [`HELD_STORED`].
pub const HELD_DEPENDENT: Measure = Measure("save+acquire stored, dependent");
/// Fetch of a stored stack into the caller's memory.
pub const FETCH: Measure = Measure("fetch");

/// Handles of a batch of fetches.
const FETCH_BATCH: usize = 64;

/// Fills the store and checks it; each round is the whole workload, once for each measure.
pub fn start<P: Peer>(workload: &Workload) -> Result<Round<'_>, String> {
    let peer = P::new(workload);
    let handles = fill(&peer, workload)?;
    Ok(Box::new(move || {
        Ok(vec![
            stored(&peer, workload),
            dependent(&peer, workload),
            fetch(&peer, workload, &handles),
        ])
    }))
}

/// The same with a reference taken at each save.
pub fn start_held<P: Holding>(workload: &Workload) -> Result<Round<'_>, String> {
    let peer = P::new(workload);
    let stacks = 0..workload.corpus.stack_count() as u32;
    for index in stacks {
        // Held to the end, so that what is given back below is never the last reference.
        if peer.save_acquire(workload.corpus.stack(index)) == 0 {
            return Err(format!("stack {index} was refused"));
        }
    }
    Ok(Box::new(move || {
        Ok(vec![
            held(&peer, workload, |peer, batch, taken| {
                taken.extend(batch.stacks().map(|frames| peer.save_acquire(frames)));
            }),
            held(&peer, workload, |peer, batch, taken| {
                batch.each_after(|frames| {
                    let held = peer.save_acquire(frames);
                    taken.push(held);
                    held
                });
            }),
        ])
    }))
}

/// Saves every stack, and reads every one back.
pub fn fill<P: Peer>(peer: &P, workload: &Workload) -> Result<Vec<u64>, String> {
    let stacks = 0..workload.corpus.stack_count() as u32;
    let handles: Vec<u64> = stacks
        .map(|index| peer.save(workload.corpus.stack(index)))
        .collect();
    let mut out = [0; MOST_FRAMES];
    let lost = (0u32..).zip(&handles).filter(|(index, handle)| {
        let count = peer.fetch(**handle, &mut out);
        out.get(..count) != Some(workload.corpus.stack(*index))
    });
    match lost.count() {
        0 => Ok(handles),
        count if P::MAY_LOSE => {
            let (all, name) = (handles.len(), &workload.name);
            eprintln!(
                "{} on {name}: {count} of {all} stacks are lost at once",
                P::NAME
            );
            Ok(handles)
        }
        count => Err(format!("{count} of {} stacks are not there", handles.len())),
    }
}

fn stored<P: Peer>(peer: &P, workload: &Workload) -> f64 {
    let mut watch = Watch::new();
    let mut batch = Batch::new();
    let mut stacks = workload.corpus.events().iter().map(|event| event.stack);
    loop {
        let count = batch.fill(workload, &mut stacks);
        if count == 0 {
            return watch.ns();
        }
        watch.time(count, || {
            for frames in batch.stacks() {
                black_box(peer.save(frames));
            }
        });
    }
}

fn dependent<P: Peer>(peer: &P, workload: &Workload) -> f64 {
    let mut watch = Watch::new();
    let mut batch = Batch::new();
    let mut stacks = workload.corpus.events().iter().map(|event| event.stack);
    loop {
        let count = batch.fill(workload, &mut stacks);
        if count == 0 {
            return watch.ns();
        }
        watch.time(count, || batch.each_after(|frames| peer.save(frames)));
    }
}

fn fetch<P: Peer>(peer: &P, workload: &Workload, handles: &[u64]) -> f64 {
    let mut watch = Watch::new();
    let mut out = [0; MOST_FRAMES];
    for events in workload.corpus.events().chunks(FETCH_BATCH) {
        let mut wanted = [0; FETCH_BATCH];
        for (place, event) in wanted.iter_mut().zip(events) {
            *place = handles[event.stack as usize];
        }
        watch.time(events.len(), || {
            for &handle in &wanted[..events.len()] {
                black_box(peer.fetch(handle, black_box(&mut out)));
            }
        });
    }
    watch.ns()
}

fn held<P: Holding>(
    peer: &P,
    workload: &Workload,
    mut save: impl FnMut(&P, &Batch, &mut Vec<u64>),
) -> f64 {
    let mut watch = Watch::new();
    let mut batch = Batch::new();
    let mut taken = Vec::with_capacity(BATCH_WORDS);
    let mut stacks = workload.corpus.events().iter().map(|event| event.stack);
    loop {
        let count = batch.fill(workload, &mut stacks);
        if count == 0 {
            return watch.ns();
        }
        watch.time(count, || save(peer, &batch, &mut taken));
        taken.drain(..).for_each(|held| peer.put(held));
    }
}
