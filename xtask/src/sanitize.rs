//! `cargo xtask sanitize`: the stress of the core under ThreadSanitizer and AddressSanitizer.
//!
//! The stress (`crates/stackdepot/tests/stress`) says by itself what it finds; the sanitizers
//! end it with a report of their own. Either is a finding. Needs a nightly toolchain, and builds
//! for the named target, so that build scripts and the standard library stay as they are.

use crate::Answer;
use crate::child;
use crate::house::House;
use std::process::Command;

const USAGE: &str = "usage: cargo xtask sanitize [--sample]";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Of the usual steps, where all are not needed: a minute for both sanitizers with their builds.
const SAMPLE_PERCENT: u32 = 20;

/// One of the two.
pub struct Sanitizer {
    /// As attackers are named.
    pub name: &'static str,
    flags: &'static str,
}

/// Both, the one that finds more first.
pub const SANITIZERS: [Sanitizer; 2] = [
    Sanitizer {
        name: "thread_sanitizer",
        flags: "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
    },
    Sanitizer {
        name: "address_sanitizer",
        flags: "-Zsanitizer=address",
    },
];

/// Runs the stress under both; the sum of what it did is the last line.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let percent = match arguments {
        [] => 100,
        [only] if only == "--sample" => SAMPLE_PERCENT,
        _ => return Err(USAGE.to_owned()),
    };
    let mut sums = Sums::default();
    let mut finding_count = 0;
    for sanitizer in &SANITIZERS {
        let mut stress = sanitizer.tests(house);
        stress.env("STACKDEPOT_STRESS_PERCENT", percent.to_string());
        let ran = child::run(&mut stress)?;
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let closing = said.lines().last().and_then(Sums::read);
        match closing.filter(|_| ran.status.success()) {
            Some(closing) => {
                println!("{}: {closing}", sanitizer.name);
                sums.add(&closing);
            }
            None => {
                print!("{said}{}", ran.errors());
                println!("{}: FAILED, {}", sanitizer.name, ran.status);
                finding_count += 1;
            }
        }
    }
    println!("sanitize: {sums} under both sanitizers, findings {finding_count}");
    Ok(finding_count == 0)
}

impl Sanitizer {
    /// The sanitizer of that name.
    pub fn named(name: &str) -> Option<&'static Sanitizer> {
        SANITIZERS.iter().find(|sanitizer| sanitizer.name == name)
    }

    /// The sampled stress, in a build folder of its own.
    pub fn tests(&self, house: &House) -> Command {
        let mut cargo = Command::new("rustup");
        cargo.current_dir(&house.root);
        cargo.args(["run", "nightly", "cargo", "test", "--release", "--quiet"]);
        cargo.args(["--target", TARGET, "--package", "stackdepot"]);
        cargo.args(["--test", "stress"]);
        cargo
            .env("RUSTFLAGS", self.flags)
            .env("CARGO_TARGET_DIR", house.target.join(self.name))
            .env("TSAN_OPTIONS", "halt_on_error=1")
            .env("STACKDEPOT_STRESS_PERCENT", SAMPLE_PERCENT.to_string());
        cargo
    }
}

/// The figures of the stress's closing line.
#[derive(Clone, Copy, Default)]
struct Sums {
    configurations: u64,
    operations: u64,
    checked: u64,
}

impl Sums {
    /// From "stress: N configurations, N operations, N stacks checked, ..."; `None` for any other.
    fn read(line: &str) -> Option<Sums> {
        let mut parts = line.strip_prefix("stress: ")?.split(", ");
        let mut figure = |unit: &str| parts.next()?.strip_suffix(unit)?.trim_end().parse().ok();
        Some(Sums {
            configurations: figure("configurations")?,
            operations: figure("operations")?,
            checked: figure("stacks checked")?,
        })
    }

    fn add(&mut self, other: &Sums) {
        self.configurations = other.configurations;
        self.operations += other.operations;
        self.checked += other.checked;
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sums {
            configurations,
            operations,
            checked,
        } = self;
        write!(
            out,
            "{operations} operations, {checked} stacks checked, {configurations} configurations"
        )
    }
}
