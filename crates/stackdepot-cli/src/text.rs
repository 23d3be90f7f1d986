//! How numbers read: bytes in powers of 1024, counts in groups of three, times in one unit.

/// `1.5 MiB`; exact bytes below 1 KiB.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would round to 1024.0 of its unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).unwrap_or(&"PiB");
    let number = format!("{value:.1}");
    format!("{} {unit}", number.strip_suffix(".0").unwrap_or(&number))
}

/// `1 234 567`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 block`, `2 blocks`
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// `3.2 ms`, `4.5 s`, `2 min 5 s`, `3 h 12 min`
pub fn seconds(span: f64) -> String {
    match span {
        span if span < 1e-3 => format!("{:.0} us", span * 1e6),
        span if span < 1.0 => format!("{:.1} ms", span * 1e3),
        span if span < 60.0 => format!("{span:.1} s"),
        span if span < 3600.0 => format!("{:.0} min {:.0} s", (span / 60.0).trunc(), span % 60.0),
        span => format!(
            "{:.0} h {:.0} min",
            (span / 3600.0).trunc(),
            span % 3600.0 / 60.0
        ),
    }
}

/// Foreign text (paths, symbols, commands) with what could steer a terminal made visible.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_one_digit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(64_000), "62.5 KiB");
        assert_eq!(bytes(10 << 20), "10 MiB");
        assert_eq!(bytes((1 << 20) - 1), "1 MiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000_000), "1 000 000");
        assert_eq!(counted(1, "block"), "1 block");
        assert_eq!(counted(1000, "block"), "1 000 blocks");
    }

    #[test]
    fn times_have_one_unit() {
        assert_eq!(seconds(0.000_04), "40 us");
        assert_eq!(seconds(0.25), "250.0 ms");
        assert_eq!(seconds(125.0), "2 min 5 s");
        assert_eq!(seconds(7260.0), "2 h 1 min");
    }
}
