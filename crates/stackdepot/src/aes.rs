//! The run hash in the processor's AES instructions, which do more mixing than multiplications.
//!
//! Key type: [`Aes`], the proof that the processor has them and AVX2, found out once per depot.
//! Two AES rounds spread each pair of frames over 128 bits; the pairs do not wait for each other.
//! `hash.rs` chains the runs, `hit.rs` does the same in one go. This file owns all that is
//! particular to these instructions; where they cannot be (other processors, kernels, models) no
//! proof can be had.

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri)))))]
pub(crate) use absent::Aes;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri))))]
pub(crate) use x86::{Aes, Frames, hash_run, load};

#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri))))]
#[expect(unsafe_code, reason = "instructions that not every processor has")]
mod x86 {
    use core::arch::asm;
    use core::arch::x86_64::*;

    use crate::avx2::Avx2;
    use crate::frame::Run;
    use crate::hash::link_runs;

    /// The proof that this processor has AES instructions and AVX2.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Aes {
        /// Whether one instruction can do two rounds side by side (VAES).
        pub is_wide: bool,
    }

    /// Ten frames: four, four, and two with zeros above.
    pub(crate) type Frames = [__m256i; 3];

    /// In register ECX of CPUID leaf 1.
    const AES_BIT: u32 = 1 << 25;
    /// In register ECX of CPUID leaf 7.
    const VAES_BIT: u32 = 1 << 9;

    impl Aes {
        /// Asks the processor; slow in a virtual machine, so only when a depot is made or opened.
        pub fn detect() -> Option<Aes> {
            Avx2::detect()?;
            #[allow(
                unused_unsafe,
                reason = "newer compilers know that every x86-64 has CPUID"
            )]
            // SAFETY: every x86-64 processor has leaf 1, and those with AVX2 have leaf 7.
            let (first, seventh) = unsafe { (__cpuid(1), __cpuid_count(7, 0)) };
            (first.ecx & AES_BIT != 0).then_some(Aes {
                is_wide: seventh.ecx & VAES_BIT != 0,
            })
        }

        /// Every way of this processor to compute the one hash.
        #[cfg(test)]
        pub fn ways(self) -> impl Iterator<Item = Aes> {
            let wide = self.is_wide.then_some(self);
            wide.into_iter().chain([Aes { is_wide: false }])
        }

        /// See [`link_runs`].
        #[inline]
        pub fn chain(
            self,
            keys: &Run,
            start: u64,
            full: &[Run],
            tail: Option<&Run>,
            links: [u64; 2],
            note: impl FnMut(u64),
        ) -> u64 {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe { chain(keys, start, full, tail, links, note) }
        }
    }

    #[target_feature(enable = "aes,avx2")]
    fn chain(
        keys: &Run,
        start: u64,
        full: &[Run],
        tail: Option<&Run>,
        links: [u64; 2],
        note: impl FnMut(u64),
    ) -> u64 {
        let keys = load(keys);
        let hash_run = |run: &Run| hash_run::<false>(&keys, &load(run));
        link_runs(start, full, tail, links, hash_run, note)
    }

    /// A run in registers.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn load(run: &Run) -> Frames {
        let words = run.as_ptr();
        // SAFETY: four, four and two words of ten.
        unsafe {
            [
                _mm256_loadu_si256(words.cast()),
                _mm256_loadu_si256(words.add(4).cast()),
                _mm256_zextsi128_si256(_mm_loadu_si128(words.add(8).cast())),
            ]
        }
    }

    /// Each pair of frames has a key of its own, so pairs cannot change places unnoticed. `WIDE`
    /// must hold only where the processor has VAES, and does not change the hash.
    #[inline]
    #[target_feature(enable = "aes,avx2")]
    pub(crate) fn hash_run<const WIDE: bool>(keys: &Frames, run: &Frames) -> u64 {
        let rounds = [lower(keys[0]), upper(keys[0])];
        let twice = |pair| _mm_aesenc_si128(_mm_aesenc_si128(pair, rounds[0]), rounds[1]);
        let [left, right] = [
            _mm256_xor_si256(run[0], keys[0]),
            _mm256_xor_si256(run[1], keys[1]),
        ];
        let sum = if WIDE {
            let sum = _mm256_xor_si256(twice_wide(left, rounds), twice_wide(right, rounds));
            _mm_xor_si128(lower(sum), upper(sum))
        } else {
            let first = _mm_xor_si128(twice(lower(left)), twice(upper(left)));
            let second = _mm_xor_si128(twice(lower(right)), twice(upper(right)));
            _mm_xor_si128(first, second)
        };
        let sum = _mm_xor_si128(sum, twice(_mm_xor_si128(lower(run[2]), lower(keys[2]))));
        _mm_cvtsi128_si64(_mm_xor_si128(sum, _mm_unpackhi_epi64(sum, sum))) as u64
    }

    /// Both rounds for two pairs of frames.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn twice_wide(pairs: __m256i, rounds: [__m128i; 2]) -> __m256i {
        let mut mixed = pairs;
        // SAFETY: computes in registers; `hash_run` is called so only where there is VAES.
        unsafe {
            asm!(
                "vaesenc {mixed}, {mixed}, {first}",
                "vaesenc {mixed}, {mixed}, {second}",
                mixed = inout(ymm_reg) mixed,
                first = in(ymm_reg) _mm256_broadcastsi128_si256(rounds[0]),
                second = in(ymm_reg) _mm256_broadcastsi128_si256(rounds[1]),
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        mixed
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn lower(both: __m256i) -> __m128i {
        _mm256_castsi256_si128(both)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn upper(both: __m256i) -> __m128i {
        _mm256_extracti128_si256::<1>(both)
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri)))))]
mod absent {
    use crate::frame::Run;

    /// There is no proof.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Aes {}

    impl Aes {
        /// Never.
        pub fn detect() -> Option<Aes> {
            None
        }

        /// Never called.
        pub fn chain(
            self,
            _: &Run,
            _: u64,
            _: &[Run],
            _: Option<&Run>,
            _: [u64; 2],
            _: impl FnMut(u64),
        ) -> u64 {
            match self {}
        }
    }
}

#[cfg(all(
    test,
    target_arch = "x86_64",
    target_feature = "sse2",
    not(any(loom, miri))
))]
mod tests {
    extern crate std;

    use super::Aes;

    #[test]
    fn the_instructions_are_found_where_the_processor_has_them() {
        let is_there =
            std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("avx2");
        assert_eq!(Aes::detect().is_some(), is_there);
    }
}
