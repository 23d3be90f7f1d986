//! No hit in vector registers: other processors, kernels, models, fault injection, interpreters.

use crate::aes::Aes;
use crate::error::SaveError;
use crate::hash::Hasher;
use crate::hold::Hold;
use crate::insert::Saved;
use crate::layout::Region;
use crate::onto::Ancestor;

/// Never called.
pub(crate) fn save(
    aes: Aes,
    _: &Region<'_>,
    _: &Hasher,
    _: &[u64],
    _: Hold,
) -> Result<Saved, SaveError> {
    match aes {}
}

/// Never called.
pub(crate) fn save_onto(
    aes: Aes,
    _: &Region<'_>,
    _: &Hasher,
    _: &Ancestor,
    _: &[u64],
    _: Hold,
) -> Option<Result<Saved, SaveError>> {
    match aes {}
}
