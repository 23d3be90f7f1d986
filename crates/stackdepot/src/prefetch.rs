//! Telling the processor which line will be needed: the one instruction that has no other effect.
//!
//! What a save touches lies in lines that nothing in the cache points to (a slot, its payload, a
//! bucket); asked for early, they arrive while something else is computed.

/// Begins to bring the line of `place` into the cache, where the processor can.
#[inline(always)]
#[cfg_attr(
    all(target_arch = "x86_64", not(any(miri, loom))),
    expect(unsafe_code, reason = "an instruction without effect on memory")
)]
pub(crate) fn prefetch<T>(place: &T) {
    // Not the intrinsic: that needs vector registers to be allowed, which a kernel does not.
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    // SAFETY: every x86-64 processor has the instruction; it reads and writes nothing, touches no
    // register, and the address is a reference's.
    unsafe {
        core::arch::asm!(
            "prefetcht0 [{}]",
            in(reg) &raw const *place,
            options(nostack, preserves_flags, nomem)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
    let _ = place;
}
