//! The modules already reported to the recorder.
//!
//! A rule miss in a module not seen before reports it through the [`Sink`]; after a
//! `dlclose` those no longer there are reported as unloaded. A fixed table of (start,
//! identity) cells, claimed by compare-exchange; when it is full, a module is reported again
//! on every miss, so the sink must take a repeated report as nothing new.

use super::gate;
use super::modules::{self, LoadedModule};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

const CELL_COUNT: usize = 1024;
const PROBE_LIMIT: usize = 64;
/// A cell whose module was unloaded; later cells of the probe may still be in use.
const GONE: u64 = 1;

/// A module as the recorder's module table wants it.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// First mapped address.
    pub start: u64,
    /// End of the mapping.
    pub end: u64,
    /// Difference between run-time addresses and those in the file.
    pub load_bias: u64,
    /// The loader's name: a path, or empty for the main program.
    pub name: &'a [u8],
    /// The GNU build-id, or empty.
    pub build_id: &'a [u8],
}

/// Where modules are reported. Called inside malloc hooks, by any thread, perhaps twice for
/// one module: neither function may allocate or wait.
#[derive(Clone, Copy, Debug)]
pub struct Sink {
    /// A module was seen for the first time.
    pub loaded: fn(&Module<'_>),
    /// The module that started at this address is no longer there.
    pub unloaded: fn(u64),
}

struct Cell {
    start: AtomicU64,
    identity: AtomicU64,
}

static CELLS: [Cell; CELL_COUNT] = [const {
    Cell {
        start: AtomicU64::new(0),
        identity: AtomicU64::new(0),
    }
}; CELL_COUNT];
static SINK: AtomicPtr<Sink> = AtomicPtr::new(core::ptr::null_mut());

/// Sets where modules are reported, for good.
pub fn set_sink(sink: &'static Sink) {
    // ORDERING: Release, with the Acquire in `sink`: carries the table of functions.
    SINK.store(core::ptr::from_ref(sink).cast_mut(), Ordering::Release);
}

#[allow(unsafe_code)] // turns the stored pointer back into the reference it came from
fn sink() -> Option<&'static Sink> {
    // ORDERING: Acquire, with the Release in `set_sink`.
    let sink = SINK.load(Ordering::Acquire);
    // SAFETY: null, or from the `&'static` of `set_sink`, which nobody writes through.
    unsafe { sink.as_ref() }
}

/// Reports the module unless it is known. The caller holds it in place.
pub fn note(module: &LoadedModule) {
    let Some(cell) = find_or_claim(module.start) else {
        report(module);
        return;
    };
    // ORDERING: Relaxed: the cell only remembers that a report was made.
    let before = cell.identity.swap(module.identity(), Ordering::Relaxed);
    if before == module.identity() {
        return;
    }
    if before != 0 {
        // Another module at a known place: it was closed behind our back (glibc closes
        // character-set converters by itself), so rules learnt there are void.
        gate::raise_epoch();
    }
    report(module);
}

fn report(module: &LoadedModule) {
    let Some(sink) = sink() else { return };
    (sink.loaded)(&Module {
        start: module.start,
        end: module.end,
        load_bias: module.load_bias,
        name: module.name(),
        build_id: module.build_id(),
    });
}

/// The cell of the module at `start`, claimed if there was none; `None`: no room.
fn find_or_claim(start: u64) -> Option<&'static Cell> {
    let first = (start >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 32;
    let probe = || (0..PROBE_LIMIT).filter_map(|step| CELLS.get((first + step) % CELL_COUNT));
    let known = probe()
        .take_while(|cell| cell.start.load(Ordering::Relaxed) != 0)
        .find(|cell| cell.start.load(Ordering::Relaxed) == start);
    known.or_else(|| {
        probe().find(|cell| {
            let found = cell.start.load(Ordering::Relaxed);
            // ORDERING: Relaxed: two threads that claim two cells report twice, no more.
            found == start
                || (found <= GONE
                    && cell
                        .start
                        .compare_exchange(found, start, Ordering::Relaxed, Ordering::Relaxed)
                        .is_ok())
        })
    })
}

/// Reports known modules that are no longer loaded. To be called by the closing thread.
pub fn forget_unloaded() {
    for cell in &CELLS {
        let start = cell.start.load(Ordering::Relaxed);
        let identity = cell.identity.load(Ordering::Relaxed);
        if start <= GONE || identity == 0 {
            continue;
        }
        let now = modules::find(start).filter(|module| module.start == start);
        if now.is_some_and(|module| module.identity() == identity) {
            continue;
        }
        cell.identity.store(0, Ordering::Relaxed);
        // ORDERING: Relaxed: a thread that claims the cell stores its identity itself.
        cell.start.store(GONE, Ordering::Relaxed);
        if let Some(sink) = sink() {
            (sink.unloaded)(start);
        }
    }
}

/// Forgets all reports, so that every module is reported again when it is next missed.
pub fn forget_all() {
    for cell in &CELLS {
        cell.start.store(0, Ordering::Relaxed);
        cell.identity.store(0, Ordering::Relaxed);
    }
}
