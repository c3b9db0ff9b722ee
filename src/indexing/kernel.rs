//! The dot product of two vectors, as fast as memory brings them.
//!
//! Four independent sums hide the latency of multiply-and-add; which
//! instructions are used is found out at run time. The results differ in the
//! last bits from one kind of machine to another, so they only select
//! candidates: [`cosine`] gives the score, the same everywhere.
//!
//! [`cosine`]: super::cosine

/// A dot product of two vectors of one length.
pub(super) type Dot = fn(&[f32], &[f32]) -> f32;

/// The fastest dot product that this processor has.
pub(super) fn fastest_dot() -> Dot {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions, as was just asked.
            return |left, right| unsafe { dot_avx512(left, right) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return |left, right| unsafe { dot_avx2(left, right) };
        }
    }
    dot_portable
}

/// A bound on how far a [`Dot`] of two vectors of length one is from the truth:
/// each of the 8 or more sums adds up at most an eighth of the products, and
/// every step rounds by at most 2⁻²⁴ of what the sum can be; the query's own
/// scaling and the row's norm round too.
pub(super) fn error_bound(length: usize) -> f32 {
    (length as f32 / 8.0 + 32.0) * f32::EPSILON
}

/// How many sums run side by side without special instructions.
const LANES: usize = 16;

fn dot_portable(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (left_blocks, left_rest) = left.as_chunks::<LANES>();
    let (right_blocks, right_rest) = right.as_chunks::<LANES>();
    for (left, right) in left_blocks.iter().zip(right_blocks) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn dot_avx512(left: &[f32], right: &[f32]) -> f32 {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_reduce_add_ps,
        _mm512_setzero_ps,
    };
    let mut sums = [_mm512_setzero_ps(); 4];
    let (left_blocks, left_rest) = left.as_chunks::<64>();
    let (right_blocks, right_rest) = right.as_chunks::<64>();
    for (left, right) in left_blocks.iter().zip(right_blocks) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: four times 16 numbers are the 64 of a block.
            let (left, right) = unsafe {
                (
                    _mm512_loadu_ps(left.as_ptr().add(lane * 16)),
                    _mm512_loadu_ps(right.as_ptr().add(lane * 16)),
                )
            };
            *sum = _mm512_fmadd_ps(left, right, *sum);
        }
    }
    for (left, right) in left_rest.chunks(16).zip(right_rest.chunks(16)) {
        let mask = (u32::MAX >> (32 - left.len().min(right.len()))) as u16;
        // SAFETY: only the numbers whose bit is set are read, as many as both chunks have.
        let (left, right) = unsafe {
            (_mm512_maskz_loadu_ps(mask, left.as_ptr()), _mm512_maskz_loadu_ps(mask, right.as_ptr()))
        };
        sums[0] = _mm512_fmadd_ps(left, right, sums[0]);
    }
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dot_avx2(left: &[f32], right: &[f32]) -> f32 {
    use std::arch::x86_64::{
        _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };
    let mut sums = [_mm256_setzero_ps(); 4];
    let (left_blocks, left_rest) = left.as_chunks::<32>();
    let (right_blocks, right_rest) = right.as_chunks::<32>();
    for (left, right) in left_blocks.iter().zip(right_blocks) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: four times 8 numbers are the 32 of a block.
            let (left, right) = unsafe {
                (_mm256_loadu_ps(left.as_ptr().add(lane * 8)), _mm256_loadu_ps(right.as_ptr().add(lane * 8)))
            };
            *sum = _mm256_fmadd_ps(left, right, *sum);
        }
    }
    let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let mut lanes = [0f32; 8];
    // SAFETY: there are eight places.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    lanes.iter().sum::<f32>() + dot_portable(left_rest, right_rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cosine::dot;
    use super::*;

    proptest! {
        #[test]
        fn every_kernel_is_within_the_bound(numbers in prop::collection::vec((-1f32..1.0, -1f32..1.0), 1..300)) {
            let (left, right): (Vec<f32>, Vec<f32>) = numbers.into_iter().unzip();
            let scale = (dot(&left, &left).rounded() * dot(&right, &right).rounded()).sqrt();
            let truth = dot(&left, &right).rounded();
            let bound = f64::from(error_bound(left.len())) * scale;
            let mut kernels: Vec<Dot> = vec![dot_portable, fastest_dot()];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has the instructions.
                kernels.push(|left, right| unsafe { dot_avx2(left, right) });
            }
            for kernel in kernels {
                prop_assert!((f64::from(kernel(&left, &right)) - truth).abs() <= bound);
            }
        }
    }
}
