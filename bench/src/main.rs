//! Measures the depot beside its peers and beside the limit, in one run.
//!
//! Run by `cargo xtask bench`, which builds the peers first.
#![deny(unsafe_code)]

mod bound;
pub mod figure;
mod machine;
mod measure;
mod peers;
mod process;
mod statistics;
pub mod workload;

use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    peers::library::set_folder(arguments[1].clone().into());
    let rounds: usize = arguments[2].parse().unwrap();
    for file in workload::files(Path::new(&arguments[3])).unwrap() {
        let slots = arguments[4..]
            .iter()
            .find_map(|a| a.strip_prefix(&format!("{}=", workload::name(&file))))
            .and_then(|n| n.parse().ok())
            .map(|bytes: usize| {
                stackdepot::Config::new(bytes)
                    .geometry()
                    .unwrap()
                    .slot_count
            });
        let Some(slot_count) = slots else { continue };
        let workload = workload::Workload {
            name: workload::name(&file),
            corpus: stackdepot_corpus::Corpus::open(&file).unwrap(),
            slot_count,
        };
        let mut figures = Vec::new();
        for t in measure::tasks::all()
            .into_iter()
            .chain([measure::tasks::save_onto()])
        {
            figures.extend(t.run(&workload, rounds));
        }
        for figure in figures {
            let mut r = figure.rounds.clone();
            r.sort_by(f64::total_cmp);
            println!(
                "{:8} {:24} {:8} {:8.2} ({:.2} .. {:.2})",
                figure.workload,
                figure.measure.0,
                figure.side,
                r[r.len() / 2],
                r[0],
                r[r.len() - 1]
            );
        }
    }
}
