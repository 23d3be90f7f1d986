//! Bytes of a foreign file, by `pread` in small pieces.
//!
//! Key types: [`Source`], the open file, and [`SparseBytes`], a copy that takes no memory for zeros. A file
//! may be sparse and claim any size: what is large is only read where the file system stores it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{ReadError, ReadErrorKind};
use crate::sys;

/// What is copied twice is copied in pieces as small as this, so that little happens in between.
pub(crate) const PAIR_BYTES: usize = 1 << 16;

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

    /// Copies a range that is small in every file.
    pub(crate) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, ReadError> {
        let out_of_memory = || self.fail(ReadErrorKind::OutOfMemory { bytes });
        let length = usize::try_from(bytes).map_err(|_| out_of_memory())?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(length)
            .map_err(|_| out_of_memory())?;
        copy.resize(length, 0);
        self.fill(offset, &mut copy)?;
        Ok(copy)
    }

    /// Copies a range that may be mostly zeros: what it takes in memory is bounded by what the file
    /// really holds, whatever its size says.
    pub(crate) fn read_sparse(&self, offset: u64, bytes: u64) -> Result<SparseBytes, ReadError> {
        let mut pieces = Vec::new();
        self.for_each_piece(offset, bytes, PAIR_BYTES, |at, piece| {
            if piece.iter().any(|byte| *byte != 0) {
                pieces.push((at, piece.into()));
            }
        })?;
        Ok(SparseBytes { pieces })
    }

    /// Hands a range on piece by piece, with each piece's offset from the start of the range. All
    /// pieces but the last are `piece_bytes` long; those that are holes of the file are left out.
    pub(crate) fn for_each_piece(
        &self,
        offset: u64,
        bytes: u64,
        piece_bytes: usize,
        mut each: impl FnMut(u64, &[u8]),
    ) -> Result<(), ReadError> {
        let mut buffer = vec![0u8; bytes.min(piece_bytes as u64) as usize];
        self.for_each_place(offset, bytes, piece_bytes, |at, length| {
            let piece = buffer.get_mut(..length).unwrap_or_default();
            self.fill(offset + at, piece)?;
            each(at, piece);
            Ok(())
        })
    }

    /// Hands on each unit of a range, with its offset from the start, in two copies made shortly one
    /// after the other: where a writer was at work in between they differ. Units that lie in
    /// holes of the file are left out.
    pub(crate) fn for_each_unit_twice(
        &self,
        offset: u64,
        bytes: u64,
        unit: usize,
        mut each: impl FnMut(u64, &[u8], &[u8]),
    ) -> Result<(), ReadError> {
        let unit = unit.clamp(1, PAIR_BYTES);
        let piece_bytes = PAIR_BYTES / unit * unit;
        let mut first = vec![0u8; bytes.min(piece_bytes as u64) as usize];
        let mut second = first.clone();
        self.for_each_place(offset, bytes, piece_bytes, |at, length| {
            let first = first.get_mut(..length).unwrap_or_default();
            let second = second.get_mut(..length).unwrap_or_default();
            self.fill(offset + at, first)?;
            self.fill(offset + at, second)?;
            let pairs = first.chunks_exact(unit).zip(second.chunks_exact(unit));
            let places = (at..).step_by(unit);
            pairs
                .zip(places)
                .for_each(|((first, second), at)| each(at, first, second));
            Ok(())
        })
    }

    /// Calls `each` with the place and length of every piece of a range that is not a hole.
    fn for_each_place(
        &self,
        offset: u64,
        bytes: u64,
        piece_bytes: usize,
        mut each: impl FnMut(u64, usize) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let piece_bytes = piece_bytes.max(1) as u64;
        let mut done = 0;
        while done < bytes {
            let Some(data) = sys::next_data(self.file.as_fd(), offset + done) else {
                return self.check_length(offset + bytes);
            };
            // The whole piece in which the data begins.
            done = (data - offset).max(done) / piece_bytes * piece_bytes;
            if done < bytes {
                let length = (bytes - done).min(piece_bytes);
                each(done, length as usize)?;
            }
            done += piece_bytes; // ends: every round adds at least one byte
        }
        Ok(())
    }

    /// The end of the data is no hole where the file itself ends before `end`.
    fn check_length(&self, end: u64) -> Result<(), ReadError> {
        let offset = end.saturating_sub(1);
        match self.file.metadata() {
            Ok(metadata) if metadata.len() >= end => Ok(()),
            Ok(_) => Err(self.fail(ReadErrorKind::ChangedWhileReading { offset })),
            Err(error) => Err(self.fail(ReadErrorKind::Read { offset, error })),
        }
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

/// A copied range without the pieces that are all zeros.
#[derive(Debug)]
pub(crate) struct SparseBytes {
    /// By offset; each a multiple of [`PAIR_BYTES`].
    pieces: Vec<(u64, Box<[u8]>)>,
}

impl SparseBytes {
    /// `N` bytes at an offset that is a multiple of `N`, a power of two up to [`PAIR_BYTES`]; zeros
    /// where nothing was stored.
    pub(crate) fn chunk<const N: usize>(&self, offset: u64) -> [u8; N] {
        let start = offset / PAIR_BYTES as u64 * PAIR_BYTES as u64;
        let place = self.pieces.binary_search_by_key(&start, |(at, _)| *at);
        let piece = place.ok().and_then(|index| self.pieces.get(index));
        let bytes = piece.and_then(|(_, bytes)| bytes.get((offset - start) as usize..));
        bytes
            .and_then(<[u8]>::first_chunk)
            .copied()
            .unwrap_or([0; N])
    }
}
