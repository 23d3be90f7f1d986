//! Damage to a true original: a script of edits, each of 16 bytes.
//!
//! Key type: [`Part`], a run of equal units of the original (slots, bucket cells, header words). An
//! edit names a part, a unit and a field in it, so that a fuzzer hits what means something.
//! Every sequence of bytes is a script; what is left over at its end is ignored.
//!
//! | byte | 0 | 1 | 2, 3 | 4..8 | 8..16 |
//! |---|---|---|---|---|---|
//! | | part | operation, width | field | unit | value |

/// Bytes of an edit.
pub const EDIT_BYTES: usize = 16;
/// Scripts are not read further: more damage only hides what the first did.
pub const MOST_EDITS: usize = 64;
/// Bytes that an edit may add at the end.
const MOST_GROWTH_BYTES: u64 = 1 << 18;

/// Equal units, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where the first one starts.
    pub start: usize,
    /// The length of each.
    pub unit_bytes: usize,
    /// How many there are.
    pub unit_count: usize,
}

impl Part {
    /// The part that `bytes` of units starting at `start` make.
    pub fn new(start: usize, bytes: usize, unit_bytes: usize) -> Part {
        let unit_count = bytes / unit_bytes;
        Part {
            start,
            unit_bytes,
            unit_count,
        }
    }

    /// The same part in an original that starts at `offset` of a larger one.
    pub fn moved(self, offset: usize) -> Part {
        let start = self.start + offset;
        Part { start, ..self }
    }

    fn unit(&self, number: u64) -> usize {
        self.start + (number % self.unit_count.max(1) as u64) as usize * self.unit_bytes
    }
}

/// One edit of a script.
#[derive(Clone, Copy)]
struct Edit {
    part: u8,
    operation: u8,
    width: usize,
    field: u16,
    unit: u32,
    value: u64,
}

impl Edit {
    fn of(bytes: &[u8; EDIT_BYTES]) -> Edit {
        let [part, what, f0, f1, u0, u1, u2, u3, value @ ..] = *bytes;
        Edit {
            part,
            operation: what & 15,
            width: 1 << (what >> 4 & 3),
            field: u16::from_le_bytes([f0, f1]),
            unit: u32::from_le_bytes([u0, u1, u2, u3]),
            value: u64::from_le_bytes(value),
        }
    }

    /// Where the field lies in a unit that starts at `unit`.
    fn place(&self, part: &Part, unit: usize) -> usize {
        let field_count = (part.unit_bytes / self.width).max(1);
        unit + usize::from(self.field) % field_count * self.width
    }

    fn perform(&self, part: &Part, bytes: &mut Vec<u8>) {
        let unit = part.unit(self.unit.into());
        let place = self.place(part, unit);
        let old = read(bytes, place, self.width);
        let byte_count = bytes.len();
        match self.operation {
            0 | 1 => write(bytes, place, self.width, self.value),
            2 => write(bytes, place, self.width, old ^ self.value),
            3 => write(bytes, place, self.width, old ^ 1 << (self.value % 64)),
            4 => write(bytes, place, self.width, old.wrapping_add(self.value)),
            5 => write(
                bytes,
                place,
                self.width,
                old.wrapping_sub(self.value & 0xff),
            ),
            6 => write(bytes, place, self.width, extreme(self.value, byte_count)),
            7 => copy(bytes, part.unit(self.value), unit, part.unit_bytes),
            8 => {
                let from = (self.value % bytes.len().max(1) as u64) as usize;
                copy(bytes, from, place, self.width);
            }
            9 => fill(bytes, unit, part.unit_bytes, self.value as u8),
            10 => self.number_units(part, bytes),
            11 => fill(
                bytes,
                unit,
                self.value as usize % (1 << 14),
                self.field as u8,
            ),
            12 => copy(bytes, unit, part.unit(self.value), 8 * part.unit_bytes),
            // What ends or goes on elsewhere is rarely interesting twice.
            13 if self.unit & 7 == 0 => {
                bytes.truncate((self.value % (bytes.len() as u64 + 1)) as usize);
            }
            14 => bytes.resize(bytes.len() + (self.value % MOST_GROWTH_BYTES) as usize, 0),
            _ => write(bytes, place, self.width, self.value << (self.unit % 64)),
        }
    }

    /// The same field of every unit names that unit, or its neighbour: chains and cycles.
    fn number_units(&self, part: &Part, bytes: &mut [u8]) {
        for number in 0..part.unit_count as u64 {
            let place = self.place(part, part.unit(number));
            write(bytes, place, self.width, number.wrapping_add(self.value));
        }
    }
}

/// Performs a script on a copy of an original.
pub fn apply(script: &[u8], parts: &[Part], bytes: &mut Vec<u8>) {
    let (edits, _) = script.as_chunks::<EDIT_BYTES>();
    for edit in edits.iter().take(MOST_EDITS).map(Edit::of) {
        let part = parts.get(usize::from(edit.part) % parts.len().max(1));
        if let Some(part) = part.filter(|part| part.unit_count > 0) {
            edit.perform(part, bytes);
        }
    }
}

/// Numbers at which arithmetic goes wrong.
fn extreme(value: u64, byte_count: usize) -> u64 {
    let powers = 1u64 << (value >> 8 & 63);
    match value % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => powers,
        3 => powers - 1,
        4 => u64::MAX - powers,
        5 => byte_count as u64,
        6 => (byte_count as u64).wrapping_sub(1),
        _ => u64::MAX << (value >> 8 & 63),
    }
}

fn read(bytes: &[u8], place: usize, width: usize) -> u64 {
    let word = bytes.get(place..).unwrap_or_default();
    let read = word.iter().take(width).rev();
    read.fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn write(bytes: &mut [u8], place: usize, width: usize, value: u64) {
    let word = bytes.get_mut(place..).unwrap_or_default();
    for (byte, new) in word.iter_mut().zip(value.to_le_bytes()).take(width) {
        *byte = new;
    }
}

fn fill(bytes: &mut [u8], start: usize, length: usize, value: u8) {
    let rest = bytes.get_mut(start..).unwrap_or_default();
    rest.iter_mut().take(length).for_each(|byte| *byte = value);
}

fn copy(bytes: &mut [u8], from: usize, to: usize, length: usize) {
    let end = (from + length).min(bytes.len());
    let copied = bytes.get(from..end).unwrap_or_default().to_vec();
    let rest = bytes.get_mut(to..).unwrap_or_default();
    rest.iter_mut()
        .zip(copied)
        .for_each(|(byte, new)| *byte = new);
}
