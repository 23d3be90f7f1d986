//! Reads a corpus from untrusted bytes.
//!
//! The reader is one pass over a stream and never trusts a count: memory grows only as data really arrives, and the sizes
//! that the header claims are bounded before the first section is read.
//!
//! Format, little-endian, every section padded with zeros to 8 bytes: magic `STKTRC01`; u64
//! map_len, stacks U, frames F, events N, slots, threads, 0; module map text; u32 length\[U\];
//! u64 frame\[F\]; then per event u8 kind\[N\] (1 alloc, 2 free), u16 thread\[N\], u32 stack\[N\],
//! u32 slot\[N\] (all ones: none), u32 size\[N\]. On disk it is one zstd frame.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;

use crate::error::{CorpusError, reason, why_no_frame};
use crate::{Corpus, Event, NO_SLOT};

/// First bytes of every corpus of this version.
pub(crate) const MAGIC: &[u8; 8] = b"STKTRC01";
/// Most frames of one stack.
pub(crate) const MAX_STACK_FRAMES: u32 = 64;
/// Most bytes that a corpus may decompress to: 25 times the largest one recorded so far.
pub const MAX_CORPUS_BYTES: u64 = 4 << 30;
/// Most bytes of the decoder's window; our corpora use 8 MiB.
const MAX_WINDOW_BYTES: u64 = 128 << 20;
/// Bytes read at once; a multiple of every element size.
const PIECE_BYTES: usize = 64 << 10;
/// Header: magic and seven counts.
const HEADER_BYTES: u64 = 64;

impl Corpus {
    /// Reads a `.stk.zst` file.
    ///
    /// # Errors
    /// Anything that is not exactly one zstd frame with one valid corpus inside.
    pub fn open(path: &Path) -> Result<Corpus, CorpusError> {
        let file = File::open(path)
            .map_err(|error| CorpusError::outside(format!("cannot open: {}", reason(&error))))?;
        Corpus::from_zstd(BufReader::new(file))
    }

    /// Reads one zstd frame that holds one corpus, and nothing after it.
    ///
    /// # Errors
    /// As [`Corpus::open`].
    pub fn from_zstd(mut compressed: impl Read) -> Result<Corpus, CorpusError> {
        let mut decoder =
            StreamingDecoder::new_with_max_window_size(&mut compressed, MAX_WINDOW_BYTES)
                .map_err(|error| CorpusError::outside(why_no_frame(&error)))?;
        let corpus = Corpus::from_raw(&mut decoder)?;
        let state = decoder.into_frame_decoder();
        if let Some(stored) = state.get_checksum_from_data()
            && state.get_calculated_checksum() != Some(stored)
        {
            return Err(CorpusError::outside(
                "the zstd checksum does not match: the file is damaged",
            ));
        }
        match read_piece(&mut compressed, &mut [0]) {
            Ok(0) => Ok(corpus),
            Ok(_) => Err(CorpusError::outside(
                "bytes follow the end of the zstd frame",
            )),
            Err(error) => Err(CorpusError::outside(reason(&error))),
        }
    }

    /// Reads a corpus that is not compressed, up to the end of the stream.
    ///
    /// # Errors
    /// A foreign version, a count that the stream does not back, an index out of range,
    /// a padding byte that is not zero, bytes after the end.
    pub fn from_raw(source: impl Read) -> Result<Corpus, CorpusError> {
        let mut source = Source {
            stream: source,
            offset: 0,
        };
        let header = source.header()?;
        let module_map = source.module_map(header.map_bytes)?;
        let offsets = source.stack_offsets(&header)?;
        let frames = source.frames(header.frame_count)?;
        let events = source.events(&header)?;
        source.end()?;
        Ok(Corpus {
            module_map,
            offsets,
            frames,
            events,
            slot_count: header.slot_count,
            thread_count: header.thread_count,
        })
    }
}

/// The counts of the header, each within its own limit.
struct Header {
    map_bytes: u64,
    stack_count: u64,
    frame_count: u64,
    event_count: u64,
    slot_count: u32,
    thread_count: u32,
}

impl Header {
    /// Bytes of the whole corpus, padding included; `None` on overflow.
    fn corpus_bytes(&self) -> Option<u64> {
        let n = self.event_count;
        let sections = [
            (self.map_bytes, 1),
            (self.stack_count, 4),
            (self.frame_count, 8),
            (n, 1),
            (n, 2),
            (n, 4),
            (n, 4),
            (n, 4),
        ];
        sections
            .iter()
            .try_fold(HEADER_BYTES, |total, &(count, bytes)| {
                total.checked_add(count.checked_mul(bytes)?.checked_next_multiple_of(8)?)
            })
    }

    /// Names the first count that no corpus can have.
    fn fault(&self) -> Option<String> {
        if self.event_count == 0 {
            return Some("there is no event".into());
        }
        if self.stack_count > self.event_count {
            return Some(format!(
                "{} stacks for {} events",
                self.stack_count, self.event_count
            ));
        }
        if self.frame_count > self.stack_count * u64::from(MAX_STACK_FRAMES) {
            return Some(format!(
                "{} frames for {} stacks",
                self.frame_count, self.stack_count
            ));
        }
        if u64::from(self.slot_count) > self.event_count {
            return Some(format!(
                "{} slots for {} events",
                self.slot_count, self.event_count
            ));
        }
        None
    }
}

/// A stream that knows how far it has been read.
struct Source<R> {
    stream: R,
    offset: u64,
}

impl<R: Read> Source<R> {
    fn header(&mut self) -> Result<Header, CorpusError> {
        let mut magic = [0; 8];
        self.fill(&mut magic)?;
        if &magic != MAGIC {
            let found = String::from_utf8_lossy(&magic).escape_debug().to_string();
            return Err(CorpusError::at(
                0,
                format!("not a corpus of version STKTRC01, it begins with \"{found}\""),
            ));
        }
        let mut counts = [0u64; 7];
        for count in &mut counts {
            let mut bytes = [0; 8];
            self.fill(&mut bytes)?;
            *count = u64::from_le_bytes(bytes);
        }
        let [
            map_bytes,
            stack_count,
            frame_count,
            event_count,
            slots,
            threads,
            zero,
        ] = counts;
        // Any index must fit its field, and all ones is no slot.
        let slot_count = u32::try_from(slots).ok().filter(|&count| count < NO_SLOT);
        let thread_count = u32::try_from(threads)
            .ok()
            .filter(|&count| count <= 1 << 16);
        let (Some(slot_count), Some(thread_count)) = (slot_count, thread_count) else {
            return Err(CorpusError::at(
                40,
                format!("absurd counts: {slots} slots, {threads} threads"),
            ));
        };
        if zero != 0 {
            return Err(CorpusError::at(
                56,
                format!("the reserved word is {zero:#x}, not 0: a later version"),
            ));
        }
        let header = Header {
            map_bytes,
            stack_count,
            frame_count,
            event_count,
            slot_count,
            thread_count,
        };
        match header.corpus_bytes() {
            Some(bytes) if bytes <= MAX_CORPUS_BYTES => {}
            _ => {
                return Err(CorpusError::at(
                    8,
                    format!("the counts need more than {MAX_CORPUS_BYTES} bytes"),
                ));
            }
        }
        header
            .fault()
            .map_or(Ok(header), |what| Err(CorpusError::at(8, what)))
    }

    fn module_map(&mut self, byte_count: u64) -> Result<String, CorpusError> {
        let start = self.offset;
        let mut bytes = Vec::new();
        self.section("module map", byte_count, |[byte]: [u8; 1]| {
            bytes.push(byte);
            Ok(())
        })?;
        String::from_utf8(bytes).map_err(|error| {
            let at = start + error.utf8_error().valid_up_to() as u64;
            CorpusError::at(at, "the module map is not UTF-8 text")
        })
    }

    fn stack_offsets(&mut self, header: &Header) -> Result<Vec<usize>, CorpusError> {
        let start = self.offset;
        let mut offsets = vec![0];
        let mut end = 0;
        self.section("stack lengths", header.stack_count, |bytes| {
            let length = u32::from_le_bytes(bytes);
            if !(1..=MAX_STACK_FRAMES).contains(&length) {
                return Err(format!(
                    "a stack of {length} frames, not 1 to {MAX_STACK_FRAMES}"
                ));
            }
            end += length as usize;
            offsets.push(end);
            Ok(())
        })?;
        if end as u64 == header.frame_count {
            return Ok(offsets);
        }
        let what = format!(
            "the stack lengths add up to {end} frames, the header says {}",
            header.frame_count
        );
        Err(CorpusError::at(start, what))
    }

    fn frames(&mut self, frame_count: u64) -> Result<Vec<u64>, CorpusError> {
        let mut frames = Vec::new();
        self.section("frames", frame_count, |bytes| {
            frames.push(u64::from_le_bytes(bytes));
            Ok(())
        })?;
        Ok(frames)
    }

    /// The five sections of the events; the first makes them, the others fill them in.
    fn events(&mut self, header: &Header) -> Result<Vec<Event>, CorpusError> {
        let n = header.event_count;
        let mut events = Vec::new();
        self.section("event kinds", n, |[kind]: [u8; 1]| match kind {
            1 | 2 => {
                events.push(Event {
                    stack: 0,
                    slot: NO_SLOT,
                    size: 0,
                    thread: 0,
                    is_alloc: kind == 1,
                });
                Ok(())
            }
            _ => Err(format!("event kind {kind}, neither 1 (alloc) nor 2 (free)")),
        })?;
        self.event_field("event threads", &mut events, |event, bytes| {
            event.thread = u16::from_le_bytes(bytes);
            below("thread", event.thread.into(), header.thread_count.into())
        })?;
        let mut seen_count = 0;
        let stack_start = self.offset;
        self.event_field("event stacks", &mut events, |event, bytes| {
            event.stack = u32::from_le_bytes(bytes);
            // Numbered by first appearance: at most one more than those seen so far.
            below(
                "stack",
                event.stack.into(),
                header.stack_count.min(seen_count + 1),
            )?;
            seen_count = seen_count.max(u64::from(event.stack) + 1);
            Ok(())
        })?;
        if seen_count != header.stack_count {
            return Err(CorpusError::at(
                stack_start,
                format!("no event uses stack {seen_count}"),
            ));
        }
        self.event_field("event slots", &mut events, |event, bytes| {
            event.slot = u32::from_le_bytes(bytes);
            if event.slot == NO_SLOT && !event.is_alloc {
                return Ok(());
            }
            below("slot", event.slot.into(), header.slot_count.into())
        })?;
        self.event_field("event sizes", &mut events, |event, bytes| {
            event.size = u32::from_le_bytes(bytes);
            Ok(())
        })?;
        Ok(events)
    }

    fn event_field<const E: usize>(
        &mut self,
        name: &str,
        events: &mut [Event],
        mut set: impl FnMut(&mut Event, [u8; E]) -> Result<(), String>,
    ) -> Result<(), CorpusError> {
        let count = events.len() as u64;
        let mut rest = events.iter_mut();
        self.section(name, count, |bytes| {
            rest.next().map_or(Ok(()), |event| set(event, bytes))
        })
    }

    /// Hands `count` elements of `E` bytes to `each`, then checks the padding.
    fn section<const E: usize>(
        &mut self,
        name: &str,
        count: u64,
        mut each: impl FnMut([u8; E]) -> Result<(), String>,
    ) -> Result<(), CorpusError> {
        let mut piece = [0; PIECE_BYTES];
        let mut index = 0;
        while index < count {
            let wanted = (count - index)
                .saturating_mul(E as u64)
                .min(PIECE_BYTES as u64) as usize;
            let piece = piece.get_mut(..wanted).unwrap_or_default();
            let start = self.offset;
            self.fill(piece).map_err(|error| error.within(name))?;
            for (position, element) in piece.as_chunks::<E>().0.iter().enumerate() {
                each(*element).map_err(|what| {
                    CorpusError::at(start + (position * E) as u64, what).within(name)
                })?;
                index += 1;
            }
        }
        self.padding(name)
    }

    fn padding(&mut self, name: &str) -> Result<(), CorpusError> {
        while !self.offset.is_multiple_of(8) {
            let mut byte = [0];
            self.fill(&mut byte).map_err(|error| error.within(name))?;
            if byte != [0] {
                return Err(
                    CorpusError::at(self.offset - 1, "a padding byte is not zero").within(name),
                );
            }
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CorpusError> {
        let got = read_piece(&mut self.stream, bytes)
            .map_err(|error| CorpusError::at(self.offset, reason(&error)))?;
        self.offset += got as u64;
        if got == bytes.len() {
            return Ok(());
        }
        Err(CorpusError::at(self.offset, "the corpus is truncated"))
    }

    fn end(&mut self) -> Result<(), CorpusError> {
        match read_piece(&mut self.stream, &mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(CorpusError::at(
                self.offset,
                "bytes follow the end of the corpus",
            )),
            Err(error) => Err(CorpusError::at(self.offset, reason(&error))),
        }
    }
}

fn below(what: &str, value: u64, limit: u64) -> Result<(), String> {
    if value < limit {
        return Ok(());
    }
    Err(format!(
        "{what} {value} is out of range, only {limit} so far"
    ))
}

/// Reads until `bytes` is full or the stream ends; answers how many arrived.
fn read_piece(stream: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = bytes.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
