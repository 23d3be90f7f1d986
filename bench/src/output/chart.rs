//! The chart that README shows: three measures side by side, hand-written SVG.
//!
//! A bar's length is the figure over LLVM's, its label the figure itself, so that workloads of
//! different depth share one scale. What is longer than the scale is cut and keeps its label.

use std::fmt::Write;

use super::{OURS, REFERENCES, Report};
use crate::figure::Measure;
use crate::measure::{hits, replay};
use crate::proposal;
use crate::statistics::median;

/// The panels: measure, title, unit of the labels.
const PANELS: [(Measure, &str, &str); 3] = [
    (hits::STORED, "Save of a stored stack", "ns"),
    (replay::FIRST, "First pass", "ns"),
    (replay::RESIDENT, "Memory per stack", "B"),
];
/// The sides, the first that has a figure of each group, with their colours.
const SIDES: [(&[&str], &str); 4] = [
    (&[OURS], "#c2410c"),
    (&["LLVM"], "#64748b"),
    (&["Linux refcounted", "Linux"], "#94a3b8"),
    (&["limit"], "#d6d3d1"),
];
/// What lengths are relative to, and the greatest ratio that is drawn in full.
const UNIT_SIDE: &str = REFERENCES[0];
const MOST_RATIO: f64 = 3.0;

const PANEL_WIDTH: usize = 300;
const BAR_LEFT: usize = 56;
const BAR_WIDTH: f64 = 190.0;
const BAR_HEIGHT: usize = 11;
const GROUP_GAP: usize = 12;
const TOP: usize = 64;

/// The whole chart.
pub fn svg(report: &Report) -> String {
    let workloads = workloads(report);
    let group_height = SIDES.len() * BAR_HEIGHT + GROUP_GAP;
    let (width, height) = (
        PANELS.len() * PANEL_WIDTH + 16,
        TOP + workloads.len() * group_height + 28,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#fafaf9\"/>\n"
    );
    legend(&mut out);
    for (index, &(measure, title, unit)) in PANELS.iter().enumerate() {
        let left = index * PANEL_WIDTH + 8;
        text(
            &mut out,
            left,
            TOP - 14,
            "font-weight=\"bold\" font-size=\"12\"",
            title,
        );
        let line = left as f64 + BAR_LEFT as f64 + BAR_WIDTH / MOST_RATIO;
        let bottom = TOP + workloads.len() * group_height - GROUP_GAP + 4;
        let _ = writeln!(
            out,
            "<line x1=\"{line:.1}\" x2=\"{line:.1}\" y1=\"{}\" y2=\"{bottom}\" stroke=\"#44403c\" stroke-dasharray=\"2 3\"/>",
            TOP - 6
        );
        for (row, workload) in workloads.iter().enumerate() {
            let top = TOP + row * group_height;
            text(
                &mut out,
                left,
                top + 2 * BAR_HEIGHT,
                "fill=\"#44403c\"",
                workload,
            );
            group(&mut out, report, (measure, unit), workload, (left, top));
        }
    }
    let note = format!(
        "Length: ratio to {UNIT_SIDE} (dotted line: 1), cut at {MOST_RATIO}. Medians; shorter is better."
    );
    text(&mut out, 8, height - 10, "fill=\"#57534e\"", &note);
    out + "</svg>\n"
}

/// The recorded workloads that have a figure in some panel.
fn workloads(report: &Report) -> Vec<&str> {
    let all = PANELS.iter().flat_map(|panel| report.workloads(panel.0));
    super::distinct(all.filter(|name| *name != proposal::NAME))
}

fn legend(out: &mut String) {
    let mut left = 8;
    for (names, colour) in SIDES {
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"14\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"
        );
        let name = if names.len() > 1 {
            "Linux (with references where it has them)"
        } else {
            names[0]
        };
        text(out, left + 14, 23, "font-size=\"11\"", name);
        left += 40 + name.len() * 6;
    }
}

/// The bars of one workload.
fn group(
    out: &mut String,
    report: &Report,
    (measure, unit): (Measure, &str),
    workload: &str,
    (left, top): (usize, usize),
) {
    let value = |side: &str| report.rounds(measure, workload, side).map(median);
    let Some(scale) = value(UNIT_SIDE) else {
        text(
            out,
            left + BAR_LEFT,
            top + 2 * BAR_HEIGHT,
            "fill=\"#a8a29e\"",
            "not measured",
        );
        return;
    };
    for (index, (names, colour)) in SIDES.iter().enumerate() {
        let Some(value) = names.iter().find_map(|side| value(side)) else {
            continue;
        };
        let ratio = value / scale;
        let length = BAR_WIDTH * ratio.min(MOST_RATIO) / MOST_RATIO;
        let (x, y) = (left + BAR_LEFT, top + index * BAR_HEIGHT);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>",
            BAR_HEIGHT - 1
        );
        let cut = if ratio > MOST_RATIO { "» " } else { "" };
        let label = format!("{cut}{value:.0} {unit}");
        text(
            out,
            x + length as usize + 3,
            y + BAR_HEIGHT - 2,
            "font-size=\"9\"",
            &label,
        );
    }
}

fn text(out: &mut String, x: usize, y: usize, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" {style}>{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn a_bar_is_as_long_as_its_ratio_and_names_are_escaped() {
        let svg = super::svg(&report());
        // 1.5 times LLVM's, of 3 on 190.
        assert!(
            svg.contains("width=\"95.0\" height=\"10\" fill=\"#c2410c\""),
            "{svg}"
        );
        assert!(svg.contains(">30 ns<") && svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert!(svg.contains("not measured"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
