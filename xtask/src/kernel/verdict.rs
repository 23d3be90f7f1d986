//! What has to be true of a kernel with our depot, and what it costs beside the one with C's.
//!
//! Right or wrong: the KASAN suite with the same counts, our own suite, no complaint on the console, the
//! same stacks in page_owner's `show_stacks`, every event of the ring with its own stack. Only
//! shown: memory and time, for those depend on the machine and on the workload.

use super::Place;
use super::boot::{Boot, Console};
use super::build::Arch;
use crate::Answer;
use std::collections::HashMap;
use std::path::Path;

/// Bytes of one of C's pools, and of its table under KASAN.
const POOL_BYTES: u64 = 16 << 10;
const TABLE_BYTES: u64 = 16 << 20;
/// Bytes of a slot with its share of the index, without and with a count.
const SLOT_BYTES: [u64; 2] = [80, 88];

/// Functions of stacks that say nothing of the depot: page_owner books what is allocated while it saves a
/// stack on the first one; names of files, freed, fill KASAN's quarantine.
const NOT_COMPARED: [&str; 4] = [
    "register_dummy_stack",
    "getname_flags",
    "getname_kernel",
    "__d_alloc",
];

/// What a judgement needs to boot kernels.
struct Judge<'j> {
    arch: Arch,
    initramfs: &'j Path,
    place: &'j Place,
    is_right: bool,
}

/// Boots both kernels as often as it takes, prints what was seen, answers whether all is right.
pub fn judge(arch: Arch, c: &Path, ours: &Path, initramfs: &Path, place: &Place) -> Answer<bool> {
    let mut judge = Judge {
        arch,
        initramfs,
        place,
        is_right: true,
    };
    println!("kernel: booting {}", arch.name());
    let work = "page_owner=on sdtest=work,stacks,threshold kunit.filter_glob=kasan";
    let first = judge.boot(c, "c", work)?;
    let own = judge.boot(ours, "ours", &format!("{work} stack_depot.bytes=1M"))?;
    judge.processors(&own);
    judge.kasan(&first, &own);
    judge.complaints("c", &first);
    judge.complaints("ours", &own);
    if arch != Arch::X86Lockdep {
        judge.memory(ours, &first, &own)?;
        let mut cs = vec![first];
        for _ in 1..arch.boots_of_c() {
            cs.push(judge.boot(c, "c-again", work)?);
        }
        judge.show_stacks(&cs, &own)?;
    }
    let line = "stack_depot.bytes=1M stack_depot.ring=4096 kunit.filter_glob=stackdepot_rs*";
    if arch == Arch::X86Lockdep {
        // The ring's probes are on; a million events on each depot would take an hour here.
        let suites = judge.boot(ours, "suites", line)?;
        judge.suites(&suites);
        return Ok(judge.is_right);
    }
    let ring = judge.boot(ours, "ring", &format!("{line} sdtest=ring"))?;
    judge.suites(&ring);
    judge.ring(&ring);
    let bench = judge.boot(ours, "bench", "kunit.enable=0 sdtest=bench")?;
    judge.complaints("bench", &bench);
    judge.bench(&bench);
    Ok(judge.is_right)
}

impl Judge<'_> {
    fn boot(&self, kernel: &Path, name: &str, line: &str) -> Answer<Console> {
        let boot = Boot {
            arch: self.arch,
            kernel,
            initramfs: self.initramfs,
            memory: "512M",
            line: line.to_owned(),
        };
        let log = format!("{}-{name}.console", self.arch.name());
        boot.run(&self.place.work.join(log))
    }

    fn note(&mut self, is_right: bool, text: &str) {
        println!(
            "{} {}: {text}",
            self.arch.name(),
            if is_right { "ok" } else { "WRONG" }
        );
        self.is_right &= is_right;
    }

    fn show(&self, text: &str) {
        println!("{} {text}", self.arch.name());
    }

    fn kasan(&mut self, c: &Console, ours: &Console) {
        let counts = [c, ours].map(|console| console.suite("kasan"));
        let is_right = counts[0].is_some_and(|[_, fail, _]| fail == 0) && counts[0] == counts[1];
        let text = format!(
            "KASAN suite pass/fail/skip: c {:?}, ours {:?}",
            counts[0], counts[1]
        );
        self.note(is_right, &text);
    }

    fn suites(&mut self, ours: &Console) {
        for name in ["stackdepot_rs", "stackdepot_rs_cpus"] {
            let own = ours.suite(name);
            let is_right = own.is_some_and(|[pass, fail, skip]| pass > 0 && fail + skip == 0);
            self.note(is_right, &format!("suite {name} pass/fail/skip: {own:?}"));
        }
        self.complaints("suites", ours);
    }

    fn processors(&mut self, console: &Console) {
        let wanted = self.arch.processors();
        if wanted > 1 {
            let is_right = console
                .0
                .contains(&format!("Brought up 1 node, {wanted} CPUs"));
            self.note(is_right, &format!("the kernel runs on {wanted} processors"));
        }
    }

    fn complaints(&mut self, name: &str, console: &Console) {
        let complaints = console.complaints();
        let first = complaints.first().unwrap_or(&"");
        let text = format!(
            "{name}: {} complaints on the console {first}",
            complaints.len()
        );
        self.note(complaints.is_empty(), &text);
    }

    /// The same stacks and sums as C's: no farther from one of C's boots than those are from each other.
    fn show_stacks(&mut self, cs: &[Console], ours: &Console) -> Answer<()> {
        let ours = page_stacks(ours)?;
        let cs = cs.iter().map(page_stacks).collect::<Answer<Vec<_>>>()?;
        let mut between = Vec::new();
        for (index, left) in cs.iter().enumerate() {
            for right in cs.iter().skip(index + 1) {
                between.push(Difference::of(left, right));
                let last = between.last().ok_or("nothing was compared")?;
                self.show(&format!("show_stacks c to c:    {last}"));
            }
        }
        let to_ours: Vec<_> = cs.iter().map(|c| Difference::of(c, &ours)).collect();
        for difference in &to_ours {
            self.show(&format!("show_stacks c to ours: {difference}"));
        }
        let is_right = is_within(&to_ours, &between);
        self.note(
            is_right,
            "page_owner counts the same pages of the same stacks",
        );
        Ok(())
    }

    /// The least bound at which nothing is refused or evicted, found by booting with it.
    fn memory(&mut self, kernel: &Path, c: &Console, ours: &Console) -> Answer<()> {
        let pools = c.number("stats_last", "pools")? * POOL_BYTES;
        let used = ours.number("stats_last", "slots_used")?;
        let mut bytes = (used * SLOT_BYTES[1] + 1280).next_multiple_of(4096);
        for _ in 0..8 {
            let line = format!(
                "page_owner=on sdtest=work,stacks,threshold kunit.filter_glob=kasan stack_depot.bytes={bytes}"
            );
            let tried = self.boot(kernel, "memory", &line)?;
            let mut lost = 0;
            for name in [
                "refused_full",
                "refused_crowded",
                "refused_contended",
                "stacks_evicted",
            ] {
                lost += tried.number("stats_last", name)?;
            }
            if lost == 0 {
                break;
            }
            bytes += 8192;
        }
        let ratio = |base: u64| bytes as f64 / base as f64;
        self.show(&format!(
            "memory: ours {bytes} bytes; c pools {pools} ({:.2}x), with its table {} ({:.3}x)",
            ratio(pools),
            pools + TABLE_BYTES,
            ratio(pools + TABLE_BYTES)
        ));
        Ok(())
    }

    fn ring(&mut self, console: &Console) {
        let text = console.part("ring").unwrap_or_default();
        let line = |start: &str| text.lines().find(|line| line.starts_with(start));
        let ours = line("ours ").unwrap_or_default();
        let is_right = ["refused=0 ", "without_stack=0 ", "wrong=0 "]
            .iter()
            .all(|wanted| ours.contains(wanted));
        self.note(is_right, &format!("ring: {ours}"));
        self.show(&format!("ring: {}", line("c ").unwrap_or_default()));
    }

    fn bench(&mut self, console: &Console) {
        let text = console.part("bench").unwrap_or_default();
        // On one processor and on all, made up and recorded stacks, twice.
        let kinds = 1 + usize::from(self.place.recorded.is_some());
        let wanted = self.arch.processors() * kinds * 2;
        let is_right = text.matches("check lost=0 bad=0").count() == wanted;
        self.note(is_right, "bench: both depots answered every stack");
        for line in text.lines().filter(|line| line.contains('=')) {
            self.show(&format!("bench: {line}{}", self.arch.bar(line)));
        }
    }
}

impl Arch {
    /// What ours may take of C's time, where a line of the comparison says how much it took.
    fn bar(self, line: &str) -> String {
        let word = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name))
        };
        let ratio: Option<u64> = word("ratio_permille=").and_then(|ratio| ratio.parse().ok());
        let is_timed = word("cpus=").and_then(|cpus| cpus.parse().ok()) == Some(self.processors());
        let most = if self == Arch::Uml && line.contains(" hit ") {
            700
        } else {
            1050
        };
        match ratio {
            Some(ratio) if is_timed && ratio <= most => format!(" (at most {most}: met)"),
            Some(_) if is_timed => format!(" (at most {most}: MISSED)"),
            _ => String::new(),
        }
    }
}

/// Pages of each stack, named by its functions: offsets differ between two builds.
fn page_stacks(console: &Console) -> Answer<HashMap<Vec<&str>, u64>> {
    let text = console.part("show_stacks").ok_or("no show_stacks")?;
    let mut stacks = HashMap::new();
    let mut frames = Vec::new();
    for line in text.lines() {
        if let Some(pages) = line.strip_prefix("nr_base_pages: ") {
            let pages: u64 = pages
                .trim()
                .parse()
                .map_err(|_| format!("show_stacks: {line}"))?;
            *stacks.entry(std::mem::take(&mut frames)).or_default() += pages;
        } else if let Some(function) = line.trim().split('+').next().filter(|f| !f.is_empty()) {
            frames.push(function);
        }
    }
    // The pages of the depot itself: C's takes them while page_owner looks on, ours has them before.
    // And what KASAN's quarantine keeps, which follows the memory that happens to be free.
    let is_left_out = |function: &&str| NOT_COMPARED.contains(function);
    stacks.retain(|frames, _| !frames.iter().any(is_left_out));
    if stacks.is_empty() {
        return Err("show_stacks is empty".to_owned());
    }
    Ok(stacks)
}

/// Whether ours is as near to one of C's boots as C's boots are to each other: in pages, and in stacks to
/// a twentieth.
fn is_within(to_ours: &[Difference], between: &[Difference]) -> bool {
    let nearest = to_ours.iter().map(|difference| difference.pages).min();
    let tolerance = between.iter().map(|difference| difference.pages).max();
    let most_common = to_ours.iter().map(|difference| difference.common).max();
    let least_common = between.iter().map(|difference| difference.common).min();
    match (nearest, tolerance, most_common, least_common) {
        (Some(nearest), Some(tolerance), Some(most), Some(least)) => {
            nearest <= tolerance && most * 20 >= least * 19
        }
        _ => false,
    }
}

/// How two outputs of `show_stacks` differ.
struct Difference {
    stacks: usize,
    common: usize,
    sums: [u64; 2],
    pages: u64,
}

impl Difference {
    fn of(left: &HashMap<Vec<&str>, u64>, right: &HashMap<Vec<&str>, u64>) -> Difference {
        let sums = [left, right].map(|stacks| stacks.values().sum());
        Difference {
            stacks: left.len(),
            common: left.keys().filter(|key| right.contains_key(*key)).count(),
            sums,
            pages: sums[0].abs_diff(sums[1]),
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference {
            stacks,
            common,
            sums: [left, right],
            pages,
        } = self;
        write!(
            out,
            "{common} of {stacks} stacks in common, {left} and {right} pages (differ by {pages})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_with_their_bars_where_all_processors_were_timed() {
        let bar = |arch: Arch, cpus, operation, ratio| {
            arch.bar(&format!(
                "made cpus={cpus} {operation} c_ns=1 ratio_permille={ratio}"
            ))
        };
        assert_eq!(bar(Arch::Uml, 1, "hit", 700), " (at most 700: met)");
        assert_eq!(bar(Arch::Uml, 1, "hit", 701), " (at most 700: MISSED)");
        assert_eq!(bar(Arch::Uml, 1, "fetch", 1050), " (at most 1050: met)");
        assert_eq!(bar(Arch::X86, 2, "hit", 1051), " (at most 1050: MISSED)");
        assert_eq!(bar(Arch::X86, 1, "hit", 1051), "");
        assert_eq!(Arch::X86.bar("made cpus=2 check lost=0"), "");
    }

    #[test]
    fn ours_is_right_where_it_is_as_near_to_c_as_c_is_to_itself() {
        let differ = |pages, common| Difference {
            stacks: 200,
            common,
            sums: [0, pages],
            pages,
        };
        let between = [differ(9, 160), differ(11, 170)];
        assert!(is_within(&[differ(20, 152), differ(11, 100)], &between));
        assert!(!is_within(&[differ(12, 200)], &between), "pages");
        assert!(!is_within(&[differ(0, 151)], &between), "stacks");
        assert!(!is_within(&[differ(0, 200)], &[]) && !is_within(&[], &between));
    }
}
