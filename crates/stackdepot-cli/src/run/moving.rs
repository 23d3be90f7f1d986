//! Moves recordings out of shared memory, and never over anything that is there already.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Copied in pieces of this size; a piece of zeros becomes a hole.
const PIECE_BYTES: usize = 64 << 10;

/// `stackdepot.<pid>`, or `stackdepot.<pid>-<n>` when an older recording has that name.
pub fn free_name(pid: u32) -> PathBuf {
    let names = std::iter::once(format!("stackdepot.{pid}"))
        .chain((2..10_000).map(|n| format!("stackdepot.{pid}-{n}")));
    let mut names = names.map(PathBuf::from);
    names
        .find(|path| std::fs::symlink_metadata(path).is_err())
        .unwrap_or_else(|| format!("stackdepot.{pid}").into())
}

/// A rename, or across file systems a copy that is complete before the original goes.
pub fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).is_ok() {
        return Ok(());
    }
    let source = File::open(from)?;
    let target = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    if let Err(error) = copy_sparse(source, target) {
        let _ = std::fs::remove_file(to);
        return Err(error);
    }
    std::fs::remove_file(from)
}

/// Most of a preallocated file is still zero: that part becomes holes.
fn copy_sparse(mut source: File, mut target: File) -> io::Result<()> {
    let mut piece = vec![0u8; PIECE_BYTES];
    let mut total = 0u64;
    loop {
        let count = read_piece(&mut source, &mut piece)?;
        let filled = piece.get(..count).unwrap_or_default();
        if filled.is_empty() {
            return target.set_len(total);
        }
        total += count as u64;
        if filled.iter().all(|byte| *byte == 0) {
            target.seek(SeekFrom::Start(total))?;
        } else {
            target.write_all(filled)?;
        }
    }
}

/// Fills the piece, except at the end of the file.
fn read_piece(source: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = piece.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_copy_is_equal_to_the_original() {
        let base = std::env::temp_dir().join(format!("stackdepot-copy-{}", std::process::id()));
        let mut content = vec![0u8; 3 * PIECE_BYTES + 17];
        content[PIECE_BYTES + 5] = 7;
        std::fs::write(&base, &content).unwrap();
        let to = base.with_extension("moved");
        let target = File::create(&to).unwrap();
        copy_sparse(File::open(&base).unwrap(), target).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), content);
        std::fs::remove_file(&base).unwrap();
        std::fs::remove_file(&to).unwrap();
    }
}
