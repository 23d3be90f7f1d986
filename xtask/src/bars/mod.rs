//! `cargo xtask bars [N...]`: the acceptance bars that a machine can check, on real programs.
//!
//! Each bar has a file. A bar judges items on the `Board`: one line each, with the figure that was
//! measured and the verdict. An item that cannot be measured fails with the reason. Bar 7 is
//! `cargo xtask overhead`.

mod fresh;
mod inputs;
mod kill;
mod leak;
mod memory;
mod programs;
mod replay;

use crate::Answer;
use crate::house::House;
use std::path::PathBuf;

/// Collects and prints verdicts.
pub struct Board {
    bar: u32,
    failed_count: usize,
    judged_count: usize,
}

impl Board {
    /// Prints one item's figure and verdict.
    pub fn judge(&mut self, passed: bool, item: &str, figure: &str) {
        self.judged_count += 1;
        self.failed_count += usize::from(!passed);
        println!(
            "bar {} {item}: {}: {figure}",
            self.bar,
            if passed { "pass" } else { "FAIL" }
        );
    }

    /// Judges an item whose measuring may fail: then that is the figure.
    pub fn judge_answer(&mut self, item: &str, answer: Answer<(bool, String)>) {
        match answer {
            Ok((passed, figure)) => self.judge(passed, item, &figure),
            Err(message) => self.judge(false, item, &message),
        }
    }
}

/// What every bar needs: the checkout and the built command.
pub struct Site<'a> {
    /// The checkout.
    pub house: &'a House,
    /// The command as users get it.
    pub stackdepot: PathBuf,
}

type Bar = fn(&Site, &mut Board) -> Answer<()>;

const BARS: [(u32, Bar); 8] = [
    (1, fresh::run),
    (2, leak::run),
    (3, programs::run),
    (4, replay::exact),
    (5, replay::fit),
    (6, kill::run),
    (8, memory::run),
    (9, inputs::run),
];

/// Runs the bars of these numbers, all when there are none.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let mut wanted = Vec::new();
    for word in arguments {
        let number = word
            .parse()
            .ok()
            .filter(|number| BARS.iter().any(|(bar, _)| bar == number));
        wanted.push(number.ok_or_else(|| {
            format!("bars: no bar `{word}`; there are 1-6, 8 and 9 (7 is `cargo xtask overhead`)")
        })?);
    }
    let site = Site {
        house,
        stackdepot: house.stackdepot()?,
    };
    let mut board = Board {
        bar: 0,
        failed_count: 0,
        judged_count: 0,
    };
    for (number, bar) in BARS {
        if !wanted.is_empty() && !wanted.contains(&number) {
            continue;
        }
        board.bar = number;
        if let Err(message) = bar(&site, &mut board) {
            board.judge(false, "as a whole", &message);
        }
    }
    println!(
        "{} of {} items pass",
        board.judged_count - board.failed_count,
        board.judged_count
    );
    Ok(board.failed_count == 0)
}
