//! From the unwinder to the region file: which modules are loaded.
//!
//! The unwinder reports a module when it first meets it and when it is gone; both end in the
//! module table of the process's region.

use stackdepot_region::clock::tsc;
use stackdepot_region::counters::Counter;
use stackdepot_region::modules::{Added, Module as Entry};

use crate::process;
use crate::unwind::{Module, Sink};

/// What the unwinder calls.
pub static SINK: Sink = Sink { loaded, unloaded };

fn loaded(module: &Module<'_>) {
    let Some(recorder) = process::running() else {
        return;
    };
    let entry = Entry {
        start: module.start,
        end: module.end,
        bias: module.load_bias,
        build_id: module.build_id,
        path: if module.name.is_empty() {
            recorder.executable()
        } else {
            module.name
        },
    };
    let region = &recorder.region;
    match region.modules.add(&entry, tsc()) {
        Added::Known | Added::Reloaded | Added::New => {}
        Added::Overwrote => region.counters.count(Counter::ModulesOverwritten),
        Added::Lost => region.counters.count(Counter::ModulesLost),
    }
}

fn unloaded(start: u64) {
    if let Some(recorder) = process::running() {
        recorder
            .region
            .modules
            .mark_unloaded(start, start + 1, tsc());
    }
}
