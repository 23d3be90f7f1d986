//! Bytes of a foreign file, by `pread` in pieces of at most a mebibyte.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{ReadError, ReadErrorKind};
use crate::sys;

/// No single read asks for more.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// What is copied twice is copied in smaller pieces, so that little happens in between.
const PAIR_BYTES: usize = 1 << 16;

#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    path: PathBuf,
}

impl Source {
    pub(crate) fn new(file: File, path: PathBuf) -> Source {
        Source { file, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file's writer, or a process forked from it, has the file mapped.
    pub(crate) fn is_locked(&self) -> Option<bool> {
        sys::is_locked(self.file.as_fd())
    }

    pub(crate) fn fail(&self, kind: ReadErrorKind) -> ReadError {
        ReadError {
            path: self.path.clone(),
            kind,
        }
    }

    /// Copies a range. The caller has checked it against the file's size, which bounds the memory.
    pub(crate) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, ReadError> {
        let out_of_memory = || self.fail(ReadErrorKind::OutOfMemory { bytes });
        let length = usize::try_from(bytes).map_err(|_| out_of_memory())?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(length)
            .map_err(|_| out_of_memory())?;
        self.for_each_piece(offset, bytes, 1, |_, piece| copy.extend_from_slice(piece))?;
        Ok(copy)
    }

    /// Hands a range on piece by piece, with each piece's offset from the start of the range. All
    /// pieces but the last are multiples of `unit` (at most a piece) long.
    pub(crate) fn for_each_piece(
        &self,
        offset: u64,
        bytes: u64,
        unit: usize,
        mut each: impl FnMut(u64, &[u8]),
    ) -> Result<(), ReadError> {
        let piece_bytes = (PIECE_BYTES / unit.clamp(1, PIECE_BYTES) * unit.max(1)) as u64;
        let mut buffer = vec![0u8; bytes.min(piece_bytes) as usize];
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(piece_bytes);
            let piece = buffer.get_mut(..length as usize).unwrap_or_default();
            self.fill(offset + done, piece)?;
            each(done, piece);
            done += length; // ends: every round adds at least one byte
        }
        Ok(())
    }

    /// Hands on each unit of a range in two copies made shortly one after the other: where a writer
    /// was at work in between they differ.
    pub(crate) fn for_each_piece_twice(
        &self,
        offset: u64,
        bytes: u64,
        unit: usize,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), ReadError> {
        let piece_bytes = (PAIR_BYTES / unit.clamp(1, PAIR_BYTES) * unit.max(1)) as u64;
        let mut first = vec![0u8; bytes.min(piece_bytes) as usize];
        let mut second = first.clone();
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(piece_bytes) as usize;
            let first = first.get_mut(..length).unwrap_or_default();
            let second = second.get_mut(..length).unwrap_or_default();
            self.fill(offset + done, first)?;
            self.fill(offset + done, second)?;
            let pairs = first
                .chunks_exact(unit.max(1))
                .zip(second.chunks_exact(unit.max(1)));
            pairs.for_each(|(first, second)| each(first, second));
            done += length as u64; // ends: every round adds at least one byte
        }
        Ok(())
    }

    fn fill(&self, offset: u64, piece: &mut [u8]) -> Result<(), ReadError> {
        self.file
            .read_exact_at(piece, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    self.fail(ReadErrorKind::ChangedWhileReading { offset })
                }
                _ => self.fail(ReadErrorKind::Read { offset, error }),
            })
    }
}
