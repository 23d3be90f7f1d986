//! Which process is meant, and whether it still runs: pid and start time, since pids are reused, and
//! the namespace in which they count.
//!
//! Key types: [`ProcessId`], [`Liveness`]. Usable inside malloc hooks: a few raw system calls, small
//! buffers.

use core::ffi::CStr;

use crate::sys;

/// A process, told apart from later ones with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// Its start in clock ticks since boot; 0 unknown (no `/proc`).
    pub start_ticks: u64,
    /// A digest of the namespaces in which pid and start are meant ([`namespace_digest`]); 0 unknown.
    pub namespace: u64,
}

/// What can be known about a process from where one asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It runs, or nothing speaks against it.
    Running,
    /// It is gone; a zombie is.
    Ended,
    /// Its pid counts in another namespace.
    Unknown,
}

impl ProcessId {
    /// The calling process. An exec keeps it; a fork does not.
    pub fn current() -> ProcessId {
        let pid = sys::pid();
        let start_ticks = read_stat(pid).map_or(0, |stat| stat.start_ticks);
        ProcessId {
            pid,
            start_ticks,
            namespace: namespace_digest(),
        }
    }

    /// Whether it still runs, as a process of `namespace` sees it.
    pub fn liveness(&self, namespace: u64) -> Liveness {
        if self.namespace == 0 || self.namespace != namespace {
            return Liveness::Unknown;
        }
        if self.pid == 0 || !sys::pid_exists(self.pid) {
            return Liveness::Ended;
        }
        let Some(stat) = read_stat(self.pid) else {
            return Liveness::Running;
        };
        let is_same = self.start_ticks == 0 || stat.start_ticks == self.start_ticks;
        match is_same && !stat.is_dead {
            true => Liveness::Running,
            false => Liveness::Ended,
        }
    }
}

/// A digest of the calling process's pid and time namespaces: what makes pids and start times
/// comparable. 0 unknown: no `/proc`, or one of another namespace.
pub fn namespace_digest() -> u64 {
    let mut buffer = [0u8; 64];
    let mut digits = [0u8; 32];
    let mut own = Text::new(&mut digits);
    own.push_number(u64::from(sys::pid()));
    let own = own.finish().map(CStr::to_bytes);
    let length = sys::read_link(c"/proc/self", &mut buffer).unwrap_or(0);
    if buffer.get(..length) != own {
        return 0;
    }
    let Ok(length) = sys::read_link(c"/proc/self/ns/pid", &mut buffer) else {
        return 0;
    };
    let pids = fold(FOLD_START, buffer.get(..length).unwrap_or_default());
    // Older kernels have no time namespaces.
    let length = sys::read_link(c"/proc/self/ns/time", &mut buffer).unwrap_or(0);
    fold(pids, buffer.get(..length).unwrap_or_default())
}

/// What is read from `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    is_dead: bool,
    start_ticks: u64,
}

fn read_stat(pid: u32) -> Option<Stat> {
    let mut path = [0u8; 32];
    let path = stat_path(pid, &mut path)?;
    let mut text = [0u8; 512];
    let file = sys::open(path, libc::O_RDONLY, 0).ok()?;
    let length = sys::read_at(&file, &mut text, 0).ok()?;
    parse_stat(text.get(..length)?)
}

fn stat_path(pid: u32, buffer: &mut [u8; 32]) -> Option<&CStr> {
    let mut text = Text::new(buffer);
    text.push(b"/proc/");
    text.push_number(u64::from(pid));
    text.push(b"/stat");
    text.finish()
}

/// Field 3 and field 22; the name in field 2 may contain anything, so count from its last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = text
        .get(name_end + 1..)?
        .split(|byte| *byte == b' ' || *byte == b'\n')
        .filter(|field| !field.is_empty());
    let state = fields.next()?;
    let start = fields.nth(18)?;
    Some(Stat {
        is_dead: matches!(state, b"Z" | b"X" | b"x"),
        start_ticks: parse_number(start)?,
    })
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for digit in digits {
        let value = digit.checked_sub(b'0').filter(|value| *value < 10)?;
        number = number.checked_mul(10)?.checked_add(u64::from(value))?;
    }
    (!digits.is_empty()).then_some(number)
}

/// A digest of the kernel's boot id; 0 unknown.
pub fn boot_digest() -> u64 {
    let mut text = [0u8; 64];
    let Ok(file) = sys::open(c"/proc/sys/kernel/random/boot_id", libc::O_RDONLY, 0) else {
        return 0;
    };
    let length = sys::read_at(&file, &mut text, 0).unwrap_or(0);
    let digits = text.get(..length).unwrap_or_default();
    fold(FOLD_START, digits)
}

const FOLD_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a.
fn fold(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A C string put together in a fixed buffer; what does not fit makes `finish` answer `None`.
pub(crate) struct Text<'b> {
    buffer: &'b mut [u8],
    length: usize,
    is_cut: bool,
}

impl<'b> Text<'b> {
    pub(crate) fn new(buffer: &'b mut [u8]) -> Text<'b> {
        Text {
            buffer,
            length: 0,
            is_cut: false,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        match self.buffer.get_mut(self.length..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.length = end;
            }
            None => self.is_cut = true,
        }
    }

    pub(crate) fn push_number(&mut self, number: u64) {
        let mut digits = [0u8; 20];
        let mut rest = number;
        let mut used = 0;
        for place in digits.iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
            used += 1;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(digits.len() - used..).unwrap_or_default());
    }

    pub(crate) fn finish(mut self) -> Option<&'b CStr> {
        self.push(&[0]);
        if self.is_cut {
            return None;
        }
        CStr::from_bytes_with_nul(self.buffer.get(..self.length)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_hostile_names() {
        let line = b"42 (a) Z (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 98765 20\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.start_ticks, 98765);
        assert!(!stat.is_dead);
        assert_eq!(parse_stat(b"42 (a"), None);
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b"1 (x) R 1 2"), None);
    }

    #[test]
    fn only_the_same_start_time_is_the_same_process() {
        let this = ProcessId::current();
        assert_eq!(this.pid, std::process::id());
        assert!(this.start_ticks > 0 && this.namespace != 0);
        assert_eq!(this.liveness(this.namespace), Liveness::Running);
        let other = ProcessId {
            start_ticks: this.start_ticks + 1,
            ..this
        };
        assert_eq!(other.liveness(this.namespace), Liveness::Ended);
    }

    #[test]
    fn nothing_is_known_about_a_process_of_another_namespace() {
        let this = ProcessId::current();
        let gone = ProcessId {
            start_ticks: this.start_ticks + 1,
            ..this
        };
        assert_eq!(gone.liveness(this.namespace + 1), Liveness::Unknown);
        let nowhere = ProcessId {
            namespace: 0,
            ..gone
        };
        assert_eq!(nowhere.liveness(0), Liveness::Unknown);
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let namespace = namespace_digest();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = ProcessId {
            pid: child.id(),
            start_ticks: 0,
            namespace,
        };
        while id.liveness(namespace) == Liveness::Running {
            std::thread::yield_now(); // ends with the child
        }
        assert!(sys::pid_exists(id.pid), "not waited for: still a zombie");
        child.wait().unwrap();
        assert_eq!(id.liveness(namespace), Liveness::Ended);
    }

    #[test]
    fn text_refuses_what_does_not_fit() {
        let mut buffer = [0u8; 8];
        let mut text = Text::new(&mut buffer);
        text.push(b"ab");
        text.push_number(1200);
        assert_eq!(text.finish(), Some(c"ab1200"));
        let mut text = Text::new(&mut buffer);
        text.push_number(12_345_678);
        assert_eq!(text.finish(), None);
    }
}
