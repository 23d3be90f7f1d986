//! Telling the processor which line will be needed: the one instruction that has no other effect.
//!
//! What a save touches lies in lines that nothing in the cache points to (a slot, its payload, a
//! bucket); asked for early, they arrive while something else is computed.

/// Begins to bring the line of `place` into the cache, where the processor can.
#[inline(always)]
#[cfg_attr(
    all(target_arch = "x86_64", not(miri)),
    expect(unsafe_code, reason = "an instruction without effect on memory")
)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse", not(miri)))]
    // SAFETY: every processor that this is compiled for has SSE (the `cfg` above); the instruction
    // reads and writes nothing, and the address is a reference's.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>((&raw const *place).cast());
    }
    #[cfg(all(target_arch = "x86_64", not(target_feature = "sse"), not(miri)))]
    // A kernel may not use vector registers, and without them there is no intrinsic; but every
    // x86-64 processor has the instruction.
    // SAFETY: it reads and writes nothing and no register, and the address is a reference's.
    unsafe {
        core::arch::asm!(
            "prefetcht0 [{}]",
            in(reg) &raw const *place,
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}
