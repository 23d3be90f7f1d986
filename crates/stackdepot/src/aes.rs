//! The run hash in the processor's AES instructions, which do more mixing than multiplications.
//!
//! Key type: [`Aes`], the proof that the processor has them, found out once per depot. Two AES
//! rounds spread each pair of frames over 128 bits; the pairs do not wait for each other.
//! `hash.rs` chains the runs. This file owns all that is particular to these instructions;
//! where they cannot be (other processors, kernels, models) no proof can be had.

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(loom))))]
pub(crate) use absent::Aes;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(loom)))]
pub(crate) use x86::Aes;

#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(loom)))]
#[expect(unsafe_code, reason = "instructions that not every processor has")]
mod x86 {
    use core::arch::x86_64::*;

    use crate::frame::Run;

    /// The proof that this processor has AES instructions.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Aes(());

    /// In register ECX of CPUID leaf 1.
    const AES_BIT: u32 = 1 << 25;

    impl Aes {
        /// Asks the processor; slow in a virtual machine, so only when a depot is made or opened.
        pub fn detect() -> Option<Aes> {
            #[allow(
                unused_unsafe,
                reason = "newer compilers know that every x86-64 has CPUID"
            )]
            // SAFETY: every x86-64 processor has CPUID and its leaf 1.
            let features = unsafe { __cpuid(1) };
            (features.ecx & AES_BIT != 0).then_some(Aes(()))
        }

        /// Links the hashes of full runs, the last one first, and then of `tail`, to `start`.
        #[inline]
        pub fn chain(
            self,
            keys: &Run,
            start: u64,
            full: &[Run],
            tail: Option<&Run>,
            links: [u64; 2],
        ) -> u64 {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe { chain(keys, start, full, tail, links) }
        }
    }

    #[target_feature(enable = "aes")]
    fn chain(keys: &Run, start: u64, full: &[Run], tail: Option<&Run>, links: [u64; 2]) -> u64 {
        let keys = pairs(keys);
        let [full_link, tail_link] = links;
        let mut hash = start;
        for run in full.iter().rev() {
            hash = crate::hash::fold(hash ^ hash_run(&keys, run), full_link);
        }
        tail.map_or(hash, |tail| {
            crate::hash::fold(hash ^ hash_run(&keys, tail), tail_link)
        })
    }

    #[inline]
    #[target_feature(enable = "aes")]
    fn pairs(run: &Run) -> [__m128i; 5] {
        let pairs = run.as_chunks::<2>().0;
        core::array::from_fn(|index| {
            let [first, second] = pairs.get(index).copied().unwrap_or_default();
            _mm_set_epi64x(second as i64, first as i64)
        })
    }

    /// Each pair of frames has a key of its own, so pairs cannot change places unnoticed.
    #[inline]
    #[target_feature(enable = "aes")]
    fn hash_run(keys: &[__m128i; 5], run: &Run) -> u64 {
        let mut sum = _mm_setzero_si128();
        for (words, key) in pairs(run).into_iter().zip(keys) {
            let once = _mm_aesenc_si128(_mm_xor_si128(words, *key), keys[0]);
            sum = _mm_xor_si128(sum, _mm_aesenc_si128(once, keys[1]));
        }
        _mm_cvtsi128_si64(_mm_xor_si128(sum, _mm_unpackhi_epi64(sum, sum))) as u64
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(loom))))]
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
        pub fn chain(self, _: &Run, _: u64, _: &[Run], _: Option<&Run>, _: [u64; 2]) -> u64 {
            match self {}
        }
    }
}

#[cfg(all(test, target_arch = "x86_64", not(loom)))]
mod tests {
    extern crate std;

    use super::Aes;

    #[test]
    fn the_instructions_are_found_where_the_processor_has_them() {
        let is_there = std::is_x86_feature_detected!("aes");
        assert_eq!(Aes::detect().is_some(), is_there);
    }
}
