//! The list of stacks that `report` and the end of `run` show, and how frames read as text.

use std::fmt::Write;

use stackdepot_region::reader::snapshot::StackRecord;

use crate::args::By;
use crate::recording::Recording;
use crate::symbols::Frame;
use crate::text;

/// Every stored stack, largest first; equal ones in the order of their names.
pub fn sorted(recording: &Recording, by: By) -> Vec<StackRecord> {
    let mut stacks: Vec<StackRecord> = recording.snapshot.stacks().collect();
    stacks.sort_by_key(|stack| (std::cmp::Reverse(key(stack, by)), stack.weak));
    stacks
}

/// What a list is sorted by; the other number of the pair decides between equals.
pub fn key(stack: &StackRecord, by: By) -> (u64, u64) {
    match by {
        By::LiveBytes => (stack.live.bytes, stack.live.count),
        By::LiveCount => (stack.live.count, stack.live.bytes),
        By::TotalBytes => (stack.total.bytes, stack.total.count),
        By::TotalCount => (stack.total.count, stack.total.bytes),
    }
}

/// One stack with its numbers and at most `most_frames` calls.
pub fn write_stack(
    text: &mut String,
    rank: usize,
    stack: &StackRecord,
    is_sampled: bool,
    frames: &[Frame],
    most_frames: usize,
) {
    let about = if is_sampled { "~" } else { "" };
    let _ = writeln!(
        text,
        "#{rank}  {about}{} live in {about}{}  ({} in {} ever)",
        text::bytes(stack.live.bytes),
        text::counted(stack.live.count, "block"),
        text::bytes(stack.total.bytes),
        text::counted(stack.total.count, "block"),
    );
    write_frames(text, frames, most_frames);
}

/// One call a line, innermost first.
pub fn write_frames(text: &mut String, frames: &[Frame], most_frames: usize) {
    if frames.is_empty() {
        text.push_str("      (stack is not available)\n");
    }
    for frame in frames.iter().take(most_frames) {
        let _ = writeln!(text, "      {}", describe(frame));
    }
    if frames.len() > most_frames {
        let _ = writeln!(text, "      ... {} more", frames.len() - most_frames);
    }
}

/// `function  file:line`, `function  (module)`, or `module+offset`.
pub fn describe(frame: &Frame) -> String {
    let inlined = if frame.inlined { "  (inlined)" } else { "" };
    match (&frame.function, &frame.file) {
        (Some(function), Some(file)) => {
            let line = frame.line.map_or(String::new(), |line| format!(":{line}"));
            format!("{function}  {file}{line}{inlined}")
        }
        (Some(function), None) => format!("{function}  ({}){inlined}", module_name(frame)),
        (None, _) => place(frame),
    }
}

/// `function`, or `module+offset` where there is no name.
pub fn short(frame: &Frame) -> String {
    frame
        .function
        .as_deref()
        .map_or_else(|| place(frame), str::to_owned)
}

fn place(frame: &Frame) -> String {
    match frame.offset {
        Some(offset) => format!("{}+{offset:#x}", module_name(frame)),
        None => format!("{:#x}", frame.address),
    }
}

fn module_name(frame: &Frame) -> &str {
    let path = frame.module.as_deref().unwrap_or("?");
    path.rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            address: 0x1234,
            module: Some("/usr/lib/libx.so".into()),
            offset: Some(0x34),
            ..Frame::default()
        }
    }

    #[test]
    fn a_frame_reads_as_well_as_it_is_known() {
        assert_eq!(
            describe(&Frame {
                address: 0x12,
                ..Frame::default()
            }),
            "0x12"
        );
        assert_eq!(describe(&frame()), "libx.so+0x34");
        let named = Frame {
            function: Some("f".into()),
            ..frame()
        };
        assert_eq!(describe(&named), "f  (libx.so)");
        let placed = Frame {
            file: Some("/a.c".into()),
            line: Some(3),
            inlined: true,
            ..named
        };
        assert_eq!(describe(&placed), "f  /a.c:3  (inlined)");
        assert_eq!(short(&placed), "f");
        assert_eq!(short(&frame()), "libx.so+0x34");
    }
}
