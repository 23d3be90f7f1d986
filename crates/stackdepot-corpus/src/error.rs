//! What a reader of a corpus can complain about, in words.
//!
//! Key type: [`CorpusError`], which says what is wrong and where. Errors of the system and of the zstd
//! decoder become sentences here: nobody is shown the inside of a library.

use std::fmt;
use std::io;

use ruzstd::decoding::errors::FrameDecoderError;

/// Why a file is no corpus.
#[derive(Debug)]
pub struct CorpusError {
    what: String,
    /// Byte of the decompressed stream; `None` when the trouble is outside it.
    offset: Option<u64>,
}

impl CorpusError {
    pub(crate) fn at(offset: u64, what: impl Into<String>) -> CorpusError {
        CorpusError {
            what: what.into(),
            offset: Some(offset),
        }
    }

    pub(crate) fn outside(what: impl Into<String>) -> CorpusError {
        CorpusError {
            what: what.into(),
            offset: None,
        }
    }

    /// The same, named by its section.
    pub(crate) fn within(mut self, section: &str) -> CorpusError {
        self.what = format!("{section}: {}", self.what);
        self
    }

    /// Byte of the decompressed stream where the trouble is.
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }
}

impl fmt::Display for CorpusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(
                f,
                "{} (at byte {offset} of the decompressed corpus)",
                self.what
            ),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for CorpusError {}

/// Why a stream does not begin as a zstd frame that is read here.
pub(crate) fn why_no_frame(error: &FrameDecoderError) -> String {
    match error {
        FrameDecoderError::WindowSizeTooBig { requested, max } => {
            format!("its zstd window of {requested} bytes is larger than {max}")
        }
        _ if is_cut(error) => "the zstd frame is cut off: copy the whole file".to_owned(),
        _ => "not a zstd file".to_owned(),
    }
}

/// What went wrong with a read, in words: the system's sentence without its number, or what is
/// wrong with the frame, for the decoder's own errors are its inner values.
pub(crate) fn reason(error: &io::Error) -> String {
    if let Some(inner) = error.get_ref() {
        return match is_cut(inner) {
            true => "the zstd frame is cut off: copy the whole file".to_owned(),
            false => "the zstd frame is damaged".to_owned(),
        };
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// Whether an error comes from the end of the file.
fn is_cut(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
    })
}
