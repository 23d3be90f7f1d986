//! Writes the small corpus that lies in git: `generate OUT.stk.zst`.
//!
//! The configuration stands in `tests/small.rs` as well, which checks that the file in git is
//! what this generator makes.

use stackdepot_corpus::synthetic::{SyntheticConfig, synthetic};

fn main() -> std::io::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err(std::io::Error::other("usage: generate OUT.stk.zst"));
    };
    let corpus = synthetic(&SyntheticConfig {
        seed: 1,
        event_count: 6_000,
        site_count: 6,
    });
    let bytes = corpus.to_zstd();
    eprintln!(
        "{} events, {} stacks, {} slots, {} bytes",
        corpus.events().len(),
        corpus.stack_count(),
        corpus.slot_count(),
        bytes.len()
    );
    std::fs::write(path, bytes)
}
