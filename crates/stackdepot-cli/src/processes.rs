//! What live processes tell of recordings, from `/proc`.
//!
//! A recorded process carries its run in its environment from its first instruction, before it has
//! made a file; [`user_of`] finds it. A file that was asked for with `-o` lies anywhere;
//! [`mapped_recording`] finds it among the mappings of its process. A process of another user
//! tells nothing, which is the same as not being there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use stackdepot_region::reader::RegionFile;

/// The environment of a process is looked at up to here: the kernel allows more, nobody needs it.
const MOST_ENVIRONMENT_BYTES: u64 = 4 << 20;

/// No directory is read further than this many names.
const MOST_NAMES: usize = 65536;

/// A live process whose environment contains the words.
pub fn user_of(words: &[u8]) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // With room for most environments: each is read by one call.
    let mut environment = Vec::with_capacity(16 << 10);
    pids.filter(|pid| *pid != std::process::id())
        .find(|pid| names(*pid, words, &mut environment))
}

fn names(pid: u32, words: &[u8], environment: &mut Vec<u8>) -> bool {
    use std::io::Read;
    environment.clear();
    let Ok(file) = std::fs::File::open(format!("/proc/{pid}/environ")) else {
        return false;
    };
    // What could be read before an error still counts.
    let _ = file.take(MOST_ENVIRONMENT_BYTES).read_to_end(environment);
    contains(environment, words)
}

/// Whether the words stand somewhere in the text.
fn contains(text: &[u8], words: &[u8]) -> bool {
    let Some((first, rest)) = words.split_first() else {
        return false;
    };
    let mut left = text;
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = left.get(at + 1..).unwrap_or_default();
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

/// The region file that a process writes: mapped, shared, and with its pid in the header.
pub fn mapped_recording(pid: u32) -> Option<PathBuf> {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let mut files: Vec<SharedFile> = maps
        .split(|byte| *byte == b'\n')
        .filter_map(SharedFile::parse)
        .collect();
    files.dedup();
    let paths = files.iter().filter_map(SharedFile::find);
    let own = paths.filter_map(|path| {
        let file = RegionFile::open(&path).ok()?;
        (file.process().pid == pid).then(|| (file.started_ns(), path))
    });
    own.max_by_key(|(started_ns, _)| *started_ns)
        .map(|(_, path)| path)
}

/// A file that a process maps. It was made without a name, and the kernel goes on calling it
/// `DIRECTORY/#INODE (deleted)` after it got one: what stays true is its directory and inode.
#[derive(Debug, PartialEq, Eq)]
struct SharedFile {
    directory: PathBuf,
    inode: u64,
}

impl SharedFile {
    /// From a line such as `7f12-7f34 rw-s 00000000 00:1a 4711   /dev/shm/x`.
    fn parse(line: &[u8]) -> Option<SharedFile> {
        let mut words = line.splitn(6, |byte| *byte == b' ');
        let permissions = words.nth(1)?;
        let inode = std::str::from_utf8(words.nth(2)?).ok()?.parse().ok()?;
        let path = Path::new(OsStr::from_bytes(words.next()?.trim_ascii_start()));
        let directory = path.parent().filter(|path| path.is_absolute())?;
        (permissions == b"rw-s").then(|| SharedFile {
            directory: directory.to_path_buf(),
            inode,
        })
    }

    fn find(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(&self.directory).ok()?;
        let mut found = entries
            .take(MOST_NAMES)
            .flatten()
            .filter(|entry| entry.ino() == self.inode);
        found.next().map(|entry| entry.path())
    }
}

/// A process that does nothing, with a variable in its environment.
#[cfg(test)]
pub fn sleeper(name: &str, value: &OsStr) -> std::process::Child {
    let mut command = std::process::Command::new("sleep");
    let child = command.arg("60").env(name, value).spawn().unwrap();
    // A new program closes our pipe to it some moments before its environment can be read.
    let environment = format!("/proc/{}/environ", child.id());
    while std::fs::read(&environment).unwrap().is_empty() {
        std::thread::yield_now();
    }
    child
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_mapping_tells_directory_and_inode() {
        let parse = |line: &str| {
            let found = SharedFile::parse(line.as_bytes())?;
            Some((found.directory.to_str()?.to_owned(), found.inode))
        };
        assert_eq!(
            parse("7f12-7f34 rw-s 00000000 00:1a 4711                       /dev/shm/a b/c"),
            Some(("/dev/shm/a b".to_owned(), 4711))
        );
        assert_eq!(
            parse(
                "7f12-7f34 rw-s 00000000 fe:00 10322437                   /tmp/#10322437 (deleted)"
            ),
            Some(("/tmp".to_owned(), 10_322_437))
        );
        assert_eq!(
            parse("7f12-7f34 rw-p 00000000 00:1a 4711 /usr/lib/x.so"),
            None
        );
        assert_eq!(parse("7f12-7f34 rw-s 00000000 00:01 1 anon"), None);
        assert_eq!(parse("7f12-7f34 rw-p 00000000 00:00 0 "), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn words_are_found_wherever_they_stand() {
        let contains = |text: &str, words: &str| contains(text.as_bytes(), words.as_bytes());
        for text in ["ab", "ab=", "=ab", "aab", "abab", "xaxab"] {
            assert!(contains(text, "ab"), "{text}");
        }
        for text in ["", "a", "b", "ba", "axb", "aa"] {
            assert!(!contains(text, "ab"), "{text}");
        }
        assert!(!contains("", "") && !contains("a", ""));
    }

    #[test]
    fn a_live_process_is_found_by_its_environment() {
        let mark = format!("STACKDEPOT_TEST_MARK_{}", std::process::id());
        assert_eq!(user_of(mark.as_bytes()), None);
        let mut child = sleeper(&mark, OsStr::new("1"));
        assert_eq!(user_of(mark.as_bytes()), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(user_of(mark.as_bytes()), None);
    }
}
