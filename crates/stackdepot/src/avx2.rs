//! Whether the processor has vector registers of four frames.
//!
//! Key type: [`Avx2`], the proof, found out once per region. Where such instructions cannot be
//! (other processors, kernels, models, interpreters) no proof can be had.

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri)))))]
pub(crate) use absent::Avx2;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri))))]
pub(crate) use x86::Avx2;

#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri))))]
#[expect(
    unsafe_code,
    reason = "asks the processor and its system by instructions"
)]
mod x86 {
    use core::arch::x86_64::*;

    /// The proof that processor and system have AVX2.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Avx2(());

    /// In register ECX of CPUID leaf 1: the system says in XCR0 what it keeps.
    const OSXSAVE_BIT: u32 = 1 << 27;
    /// In XCR0: both halves of the registers are kept.
    const KEPT_BITS: u64 = 0b110;
    /// In register EBX of CPUID leaf 7.
    const AVX2_BIT: u32 = 1 << 5;

    impl Avx2 {
        /// Asks the processor; slow in a virtual machine, so only when a region is made or opened.
        pub fn detect() -> Option<Avx2> {
            #[allow(
                unused_unsafe,
                reason = "newer compilers know that every x86-64 has CPUID"
            )]
            // SAFETY: every x86-64 processor has CPUID, and the leaves up to the one that leaf 0
            // names; XCR0 is there where OSXSAVE says so.
            let is_there = unsafe {
                __cpuid(0).eax >= 7
                    && __cpuid(1).ecx & OSXSAVE_BIT != 0
                    && kept() & KEPT_BITS == KEPT_BITS
                    && __cpuid_count(7, 0).ebx & AVX2_BIT != 0
            };
            is_there.then_some(Avx2(()))
        }
    }

    /// XCR0.
    #[target_feature(enable = "xsave")]
    fn kept() -> u64 {
        // SAFETY: register 0 is there where there is any.
        unsafe { _xgetbv(0) }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri)))))]
mod absent {
    /// There is no proof.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Avx2 {}

    impl Avx2 {
        /// Never.
        pub fn detect() -> Option<Avx2> {
            None
        }
    }
}
