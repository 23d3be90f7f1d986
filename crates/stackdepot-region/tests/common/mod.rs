//! What the integration tests share: a directory that goes away, and a recorder in miniature that
//! does with a file what the malloc hooks do. It allocates nothing, so that a forked child of a
//! threaded test may use it.
#![allow(dead_code)] // each test file uses its own part

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use stackdepot::WeakHandle;
use stackdepot::live::{LiveBlock, Removed};
use stackdepot::ring::{Event, EventKind};
use stackdepot_region::clock::tsc;
use stackdepot_region::writer::{CreateOptions, RegionWriter};

/// A directory of its own, removed at the end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() {
            shm.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        let path = parent.join(format!("region-test-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap()
}

pub fn create(path: &Path, file_bytes: u64) -> RegionWriter {
    RegionWriter::create(&c_path(path), &CreateOptions::alone(file_bytes)).unwrap()
}

pub const MOST_DEPTH: usize = 64;

/// The frames of stack `id`: all follow from the first one, and relatives share their outer frames.
pub fn frames_of(id: u32, frames: &mut [u64; MOST_DEPTH]) -> usize {
    let depth = 1 + (id.wrapping_mul(0x9e37_79b1) >> 26) as usize;
    for (index, frame) in frames.iter_mut().enumerate().take(depth) {
        let from_root = depth - 1 - index;
        let kin = if index == 0 {
            id
        } else {
            id >> (20 - from_root.min(20))
        };
        let high = match kin % 5 {
            0 => 0x7fff_0000_0000,
            1 => 0x5555_0000_0000 + (u64::from(id % 97) << 32),
            _ => 0x7f12_0000_0000,
        };
        *frame = high + (u64::from(kin) << 8) + from_root as u64;
    }
    frames[0] = 0x6600_0000_0000 + u64::from(id);
    depth
}

/// Panics unless these are exactly the frames of some stack; answers which.
pub fn check_frames(found: &[u64]) -> u32 {
    let id = (found[0] - 0x6600_0000_0000) as u32;
    let mut frames = [0; MOST_DEPTH];
    let depth = frames_of(id, &mut frames);
    assert_eq!(found, &frames[..depth], "the frames of stack {id}");
    id
}

/// Records an alloc as the hooks do.
pub fn record_alloc(writer: &RegionWriter, shard: usize, address: u64, size: u64, id: u32) {
    let mut frames = [0; MOST_DEPTH];
    let depth = frames_of(id, &mut frames);
    let place = writer.ring.claim(&writer.depot, shard);
    let time = tsc();
    let stack = save_counted(writer, shard, &frames[..depth], size);
    let thread = shard as u32 + 1000;
    let inserted = writer.live.insert(
        address,
        &LiveBlock {
            stack,
            size,
            thread,
            time,
        },
    );
    if let Some(stack) = inserted.released().and_then(|block| block.stack) {
        writer.depot.put(writer.depot.handle_of(stack));
    }
    if let Some(stack) = stack.filter(|_| !inserted.is_stored()) {
        writer.depot.put(writer.depot.handle_of(stack));
    }
    let event = Event {
        time,
        thread,
        ..Event::new(EventKind::Alloc, address, size, stack)
    };
    let _ = writer.ring.fill(place, &event);
}

/// Half of the stacks are known again by their names, and held out of the shard's hold cache.
fn save_counted(
    writer: &RegionWriter,
    shard: usize,
    frames: &[u64],
    size: u64,
) -> Option<WeakHandle> {
    if let Some(cache) = writer.caches.get(shard)
        && size.is_multiple_of(2)
        && let Ok(weak) = writer.depot.save(frames)
        && cache
            .hold_with_payload(&writer.depot, weak, 0, &[1, size])
            .is_ok()
    {
        return Some(weak);
    }
    let held = writer.depot.save_acquire_lease(frames).ok()?;
    writer.depot.add_payload_words(held.handle, 0, &[1, size]);
    Some(held.weak)
}

fn put_for_lease(writer: &RegionWriter, shard: usize, held: WeakHandle, size: u64) -> bool {
    let leased = match writer.caches.get(shard) {
        Some(cache) => cache.put_for_lease(&writer.depot, held, 2, &[1, size]),
        None => writer.depot.put_for_lease(held, 2, &[1, size]),
    };
    leased.is_ok()
}

/// Records a free as the hooks do.
pub fn record_free(writer: &RegionWriter, shard: usize, address: u64, id: u32) {
    let mut frames = [0; MOST_DEPTH];
    let depth = frames_of(id, &mut frames);
    let place = writer.ring.claim(&writer.depot, shard);
    let time = tsc();
    let stack = writer
        .depot
        .save_lease(&frames[..depth])
        .ok()
        .map(|leased| leased.weak);
    let removed = match writer.live.remove(address) {
        Removed::Block(block) => Some(block),
        Removed::Unsampled | Removed::Unknown => None,
    };
    let mut event = Event {
        time,
        thread: shard as u32 + 1000,
        ..Event::new(EventKind::Free, address, 0, stack)
    };
    if let Some(block) = removed {
        event.size = block.size;
        event.other_thread = block.thread;
        event.other_time = Some(block.time);
        event.other_stack = block
            .stack
            .filter(|held| put_for_lease(writer, shard, *held, block.size));
    }
    let _ = writer.ring.fill(place, &event);
}

/// A small generator, the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Allocs and frees, for ever, over `slot_count` blocks: what a program under the recorder does.
pub fn churn(
    writer: &RegionWriter,
    shard: usize,
    seed: u64,
    slot_count: usize,
    mut goes_on: impl FnMut(u64) -> bool,
) {
    const LIMIT: usize = 4096;
    let mut random = Random(seed | 1);
    let mut is_live = [false; LIMIT];
    let mut round = 0;
    while goes_on(round) {
        let slot = random.below(slot_count.min(LIMIT) as u64) as usize;
        let address = ((shard as u64 + 1) << 32) + slot as u64 * 0x100;
        // A few stacks come again and again.
        let variety = if slot.is_multiple_of(4) { 16 } else { 30_000 };
        let id = random.below(variety) as u32;
        if is_live[slot] {
            record_free(writer, shard, address, id);
        } else {
            record_alloc(writer, shard, address, u64::from(id) + 1, id); // its size names its stack
        }
        is_live[slot] = !is_live[slot];
        if round % 512 == 0 {
            writer.header.touch_clock();
        }
        round += 1;
    }
}
