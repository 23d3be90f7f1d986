//! What the rounds of two sides say about their ratio, and whether a bar holds.
//!
//! Key types: [`Ratio`] with its 95 % bootstrap interval over paired rounds, and [`Bar`], which
//! judges it. The random numbers have a fixed seed: the same rounds get the same verdict.

/// Resamplings of the rounds.
const RESAMPLE_COUNT: usize = 2000;
/// The upper end of the interval may be beyond the bar by this.
const LATITUDE: f64 = 1.05;
/// Below so many rounds nothing is known of the spread.
const LEAST_ROUNDS: usize = 5;

/// The middle value; of an even number, the mean of the two in the middle. NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

/// The first and the third quartile: half of the rounds lie between them.
pub fn quartiles(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (quantile(&sorted, 0.25), quantile(&sorted, 0.75))
}

/// The ratio of two sides, and where it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The median over the rounds of one side's value over the other's in the same round.
    pub value: f64,
    /// The 2.5 % quantile of the medians of the resampled rounds.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
}

impl Ratio {
    /// Of rounds that were taken in turns. Each round has a ratio of its own, so that what slowed both
    /// sides of a round, and every later one, counts on both.
    pub fn new(ours: &[f64], theirs: &[f64]) -> Ratio {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        let value = median(&ratios);
        if ratios.len() < LEAST_ROUNDS {
            return Ratio {
                value,
                low: f64::NEG_INFINITY,
                high: f64::INFINITY,
            };
        }
        let mut random = Random(0x853c_49e6_748f_ea9b);
        let mut resampled = vec![0.0; ratios.len()];
        let mut medians: Vec<f64> = (0..RESAMPLE_COUNT)
            .map(|_| {
                resampled.fill_with(|| ratios[random.below(ratios.len())]);
                resampled.sort_by(f64::total_cmp);
                middle(&resampled)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Ratio {
            value,
            low: quantile(&medians, 0.025),
            high: quantile(&medians, 0.975),
        }
    }

    /// The same seen from the other side.
    pub fn inverse(self) -> Ratio {
        Ratio {
            value: 1.0 / self.value,
            low: 1.0 / self.high,
            high: 1.0 / self.low,
        }
    }
}

/// What a ratio is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Times, bytes, instructions.
    AtMost(f64),
    /// Throughput, scaling.
    AtLeast(f64),
}

/// Whether a bar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Met,
    /// It does not, with confidence.
    NotMet,
    /// These rounds cannot tell; more may. Counts as not met.
    Undecided,
}

impl Bar {
    /// Met: the ratio meets the bar, and its interval does not reach beyond 1.05 times the bar.
    pub fn judge(self, ratio: Ratio) -> Verdict {
        let (ratio, most) = match self {
            Bar::AtMost(most) => (ratio, most),
            Bar::AtLeast(least) if ratio.low > 0.0 => (ratio.inverse(), 1.0 / least),
            Bar::AtLeast(_) => return Verdict::Undecided,
        };
        if ratio.value <= most && ratio.high <= LATITUDE * most {
            Verdict::Met
        } else if ratio.low > most {
            Verdict::NotMet
        } else {
            Verdict::Undecided
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bar::AtMost(most) => write!(out, "<= {most}"),
            Bar::AtLeast(least) => write!(out, ">= {least}"),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            Verdict::Met => "met",
            Verdict::NotMet => "NOT MET",
            Verdict::Undecided => "UNDECIDED",
        })
    }
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// Between the two nearest values in proportion. NaN of none.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = part * last as f64;
    let (low, high) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    low + (high - low) * place.fract()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ mixed >> 31) * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds around `center`, each up to `spread` off, different with each seed.
    fn rounds(center: f64, spread: f64, count: usize, seed: u64) -> Vec<f64> {
        let mut random = Random(seed);
        (0..count)
            .map(|_| center * (1.0 + spread * (random.below(2001) as f64 / 1000.0 - 1.0)))
            .collect()
    }

    #[test]
    fn medians_and_quartiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(quartiles(&[5.0, 1.0, 2.0, 3.0, 4.0]), (2.0, 4.0));
    }

    #[test]
    fn an_interval_covers_the_true_ratio_as_often_as_it_says() {
        let trials = 400;
        let covered = (0..trials).filter(|trial| {
            let ours = rounds(1.0, 0.2, 25, 2 * trial);
            let theirs = rounds(2.0, 0.2, 25, 2 * trial + 1);
            let ratio = Ratio::new(&ours, &theirs);
            ratio.low <= 0.5 && 0.5 <= ratio.high
        });
        let share = covered.count() as f64 / trials as f64;
        assert!((0.9..=1.0).contains(&share), "{share}");
    }

    #[test]
    fn what_slows_a_whole_round_counts_on_both_sides() {
        let mut weather = rounds(1.0, 0.5, 21, 7);
        // A machine that is twice as slow for the last third: neither side's own median is its middle.
        weather[14..].iter_mut().for_each(|factor| *factor *= 2.0);
        let ours: Vec<f64> = weather.iter().map(|factor| 3.0 * factor).collect();
        let ratio = Ratio::new(&ours, &weather);
        assert!((ratio.value - 3.0).abs() < 1e-9);
        assert!((ratio.high - ratio.low).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn a_bar_is_met_missed_or_undecided() {
        let at = |value, low, high| Ratio { value, low, high };
        let most = Bar::AtMost(1.0);
        assert_eq!(most.judge(at(0.97, 0.9, 1.04)), Verdict::Met);
        assert_eq!(most.judge(at(0.97, 0.9, 1.06)), Verdict::Undecided);
        assert_eq!(most.judge(at(1.01, 0.9, 1.02)), Verdict::Undecided);
        assert_eq!(most.judge(at(1.2, 1.01, 1.3)), Verdict::NotMet);
        let least = Bar::AtLeast(1.0);
        assert_eq!(least.judge(at(1.03, 0.97, 1.2)), Verdict::Met);
        assert_eq!(least.judge(at(1.03, 0.94, 1.2)), Verdict::Undecided);
        assert_eq!(least.judge(at(0.9, 0.8, 0.99)), Verdict::NotMet);
    }

    #[test]
    fn few_rounds_decide_nothing() {
        let ratio = Ratio::new(&[1.0; 4], &[2.0; 4]);
        assert_eq!(ratio.value, 0.5);
        for bar in [Bar::AtMost(1.0), Bar::AtLeast(0.1), Bar::AtLeast(5.0)] {
            assert_eq!(bar.judge(ratio), Verdict::Undecided);
        }
        assert_eq!(
            Bar::AtMost(1.0).judge(Ratio::new(&[1.0; 5], &[2.0; 5])),
            Verdict::Met
        );
    }

    #[test]
    fn the_same_rounds_get_the_same_interval() {
        let (ours, theirs) = (rounds(1.0, 0.3, 15, 1), rounds(1.0, 0.3, 15, 2));
        assert_eq!(Ratio::new(&ours, &theirs), Ratio::new(&ours, &theirs));
    }
}
