//! The cosine of two vectors, as good as to the last bit of an f64 and the same on every machine.
//!
//! A product of two f32s is exact in f64, so only the sums round. They are
//! carried with what they lose: a [`Double`] is a number and its error, about
//! 106 bits together, through the sums (Ogita, Rump and Oishi, "Accurate sum and
//! dot product", algorithm 5.3), the product of the squared norms, its root and
//! the quotient (Dekker, "A floating-point technique for extending the available
//! precision"), and is rounded to an f64 once. A vector and any multiple of it
//! that f32 holds exactly score exactly 1, and a multiple scores against
//! every query as the vector does: those that are equally near stand in the
//! order of their keys, by which any of them can be found. Only where products
//! cancel each other that are over 2¹⁰⁰ times as large as what is left of them are the 106 bits
//! too few, and the scores nothing but rounding.
//!
//! The operations are those of IEEE 754 in a written order, and none is fused, so
//! neither the compiler nor the processor can make the last bit another one.
//! Nothing leaves f64's range: squares of f32s lie within 2⁻²⁹⁸ and 2²⁵⁶.

/// A number and what it lost to rounding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Double {
    value: f64,
    error: f64,
}

impl Double {
    pub(super) fn rounded(self) -> f64 {
        self.value + self.error
    }

    /// The sum of two numbers, exactly (Knuth's TwoSum).
    #[inline(always)]
    fn sum(left: f64, right: f64) -> Double {
        let value = left + right;
        let right_part = value - left;
        let left_part = value - right_part;
        Double { value, error: (left - left_part) + (right - right_part) }
    }

    /// The product of two numbers, exactly (Dekker's, by halves of 26 bits). The fused operation
    /// would do, but not every processor that this runs on has it.
    fn product(left: f64, right: f64) -> Double {
        let value = left * right;
        let ((left_high, left_low), (right_high, right_low)) = (halves(left), halves(right));
        let error = left_low * right_low
            - (((value - left_high * right_high) - left_low * right_high) - left_high * right_low);
        Double { value, error }
    }

    fn times(self, other: Double) -> Double {
        let Double { value, error } = Double::product(self.value, other.value);
        Double::sum(value, error + (self.value * other.error + self.error * other.value))
    }

    fn root(self) -> Double {
        let root = self.value.sqrt();
        let square = Double::product(root, root);
        let rest = ((self.value - square.value) - square.error) + self.error;
        Double::sum(root, rest / (2.0 * root))
    }

    /// The quotient, rounded.
    fn over(self, divisor: Double) -> f64 {
        let quotient = self.value / divisor.value;
        let product = Double::product(quotient, divisor.value);
        let rest = (((self.value - product.value) - product.error) + self.error) - quotient * divisor.error;
        quotient + rest / divisor.value
    }
}

/// The upper and the lower half of a number's digits; their sum is the number.
fn halves(number: f64) -> (f64, f64) {
    const SPLITTER: f64 = (1u64 << 27) as f64 + 1.0;
    let scaled = SPLITTER * number;
    let high = scaled - (scaled - number);
    (high, number - high)
}

/// How many sums run side by side: an addition waits for the one before it.
const LANES: usize = 8;

/// The dot product.
pub(super) fn dot(left: &[f32], right: &[f32]) -> Double {
    let mut sums = [0f64; LANES];
    let mut errors = [0f64; LANES];
    let (left_blocks, left_rest) = left.as_chunks::<LANES>();
    let (right_blocks, right_rest) = right.as_chunks::<LANES>();
    for (left, right) in left_blocks.iter().zip(right_blocks) {
        for lane in 0..LANES {
            let sum = Double::sum(sums[lane], f64::from(left[lane]) * f64::from(right[lane]));
            sums[lane] = sum.value;
            errors[lane] += sum.error;
        }
    }
    let rest = left_rest.iter().zip(right_rest).map(|(&left, &right)| f64::from(left) * f64::from(right));
    let mut total = Double { value: 0.0, error: 0.0 };
    for part in sums.into_iter().chain(rest) {
        let sum = Double::sum(total.value, part);
        total = Double { value: sum.value, error: total.error + sum.error };
    }
    Double::sum(total.value, total.error + errors.iter().sum::<f64>())
}

/// A vector's length.
pub(super) fn norm(vector: &[f32]) -> f64 {
    dot(vector, vector).rounded().sqrt()
}

/// What vectors are compared with.
pub(super) struct Query<'a> {
    numbers: &'a [f32],
    square: Double,
}

impl Query<'_> {
    pub(super) fn new(numbers: &[f32]) -> Query<'_> {
        Query { numbers, square: dot(numbers, numbers) }
    }

    /// The cosine of the angle between the query and a vector of its length.
    pub(super) fn cosine(&self, vector: &[f32]) -> f64 {
        let score = dot(self.numbers, vector).over(self.square.times(dot(vector, vector)).root());
        // Nearly parallel vectors may come out past 1 in the last bit; adding zero makes −0 the same as 0.
        score.clamp(-1.0, 1.0) + 0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cosine(left: &[f32], right: &[f32]) -> f64 {
        Query::new(left).cosine(right)
    }

    /// A number's digits, and the power of two that divides them: sums of squares need more than
    /// the 53 digits of a plain f64.
    type Number = (i32, i32);

    /// A vector and its multiples, all exact in f32: the digits leave room for those of the factors.
    fn multiples(numbers: &[Number], exponent: i32) -> Vec<Vec<f32>> {
        const FACTORS: [f32; 7] = [1.0, 3.0, 0.75, 5.0, 2.0, 0.625, 1.0 / 1024.0];
        let scale = 2f32.powi(exponent);
        let number = |&(digits, shift): &Number| digits as f32 * scale * 2f32.powi(-shift);
        let vector: Vec<f32> = numbers.iter().map(number).collect();
        FACTORS.iter().map(|factor| vector.iter().map(|number| number * factor).collect()).collect()
    }

    fn numbers(lengths: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Number>> {
        let digits = prop_oneof![4 => -(1 << 20)..1 << 20, 1 => Just(0), 1 => -8..8];
        let vector = prop::collection::vec((digits, 0..12), lengths);
        vector.prop_filter("a vector has a direction", |vector| vector.iter().any(|&(digits, _)| digits != 0))
    }

    fn two_of_one_length() -> impl Strategy<Value = (Vec<Number>, Vec<Number>)> {
        (1..=300usize).prop_flat_map(|length| (numbers(length), numbers(length)))
    }

    proptest! {
        #[test]
        fn parallel_vectors_score_exactly_one(vector in numbers(1..=300), exponent in -80..90i32) {
            let multiples = multiples(&vector, exponent);
            for (left, right) in multiples.iter().flat_map(|left| multiples.iter().map(move |right| (left, right))) {
                prop_assert_eq!(cosine(left, right), 1.0);
                let opposite: Vec<f32> = right.iter().map(|number| -number).collect();
                prop_assert_eq!(cosine(left, &opposite), -1.0);
            }
        }

        #[test]
        fn a_multiple_scores_as_the_vector_does(
            (query, vector) in two_of_one_length(),
            exponent in -80..90i32,
        ) {
            let queries = multiples(&query, -exponent);
            let score = cosine(&queries[0], &multiples(&vector, exponent)[0]);
            for (query, vector) in queries.iter().zip(multiples(&vector, exponent).iter().rev()) {
                prop_assert_eq!(cosine(query, vector), score);
            }
        }
    }

    #[test]
    fn sizes_at_both_ends_of_f32_and_right_angles() {
        for length in [1, 7, 8, 9, 4_096] {
            for size in [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
                let vector = vec![size; length];
                assert_eq!(cosine(&vector, &vector), 1.0, "{length} times {size:e}");
                assert_eq!(cosine(&vec![1.0; length], &vector), 1.0, "{length} times {size:e}");
                assert_eq!(cosine(&vec![-f32::MAX; length], &vector), -1.0, "{length} times {size:e}");
            }
        }
        assert_eq!(cosine(&[3.0, 4.0], &[1.0, 0.0]), 0.6);
        // A plain sum loses the 1 beside the large numbers.
        let expected = 1.0 / (6.0f64.sqrt() * f64::from(1e30f32));
        let score = cosine(&[1.0, 1.0, 1.0], &[1e30, 1.0, -1e30]);
        assert!((score / expected - 1.0).abs() < 1e-15, "{score:e} instead of {expected:e}");
        for right_angle in [cosine(&[1.0, 0.0], &[-0.0, 2.0]), cosine(&[0.1, 0.3], &[-0.3, 0.1])] {
            assert_eq!(right_angle.to_bits(), 0);
        }
    }
}
