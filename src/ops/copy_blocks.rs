//! Copies blocks of the paged cache, for sequences that go on from the same prompt in different ways.

use candle_core::Tensor;

use super::OpError;
use super::access::{check_index, dims, shape, write};

const OP: &str = "copy_blocks";

/// Copies whole blocks, one after the other: a later copy reads what an earlier one wrote.
///
/// - `copies`: `[num_copies * 2]`, on the host: source block, destination block
/// - `cache`: `[num_blocks, block_size, num_kv_heads, head_dim]`, f32, contiguous, written in place
///
/// # Errors
/// [`OpError::Shape`] naming the argument; [`OpError::Index`] for a block outside of the cache. Nothing is written
/// unless every block is inside.
pub fn copy_blocks(copies: &[u32], cache: &Tensor) -> Result<(), OpError> {
    let [num_blocks, block_size, heads, head_dim] = dims(OP, "cache", cache)?;
    let (pairs, unpaired) = copies.as_chunks::<2>();
    if !unpaired.is_empty() {
        let given = format!("of length {}", copies.len());
        return Err(shape(OP, "copies", "of even length", given));
    }
    for &block in copies {
        check_index(OP, "copies", block as usize, num_blocks)?;
    }
    let width = block_size * heads * head_dim;
    write(OP, "cache", cache, &[], |cache: &mut [f32]| {
        for pair in pairs {
            let [from, to] = pair.map(|block| block as usize * width);
            cache.copy_within(from..from + width, to);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{floats, indices, tensor, values};

    /// Four blocks of two tokens, each token two heads of three.
    fn cache() -> Tensor {
        tensor(&floats(1, 4 * 12), &[4, 2, 2, 3])
    }

    /// The blocks of [`cache`] in this order.
    fn blocks(order: [usize; 4]) -> Vec<f32> {
        let before = values(&cache());
        let block = |at: usize| before[at * 12..][..12].to_vec();
        order.into_iter().flat_map(block).collect()
    }

    #[test]
    fn whole_blocks_are_copied_and_the_others_stay() {
        let cache = cache();
        copy_blocks(&[3, 0], &cache).unwrap();
        assert_eq!(values(&cache), blocks([3, 1, 2, 3]));
        copy_blocks(&[], &cache).unwrap();
        assert_eq!(values(&cache), blocks([3, 1, 2, 3]));
    }

    #[test]
    fn copies_follow_one_another() {
        for (copies, expected) in [
            ([0, 1, 1, 2], [0, 0, 0, 3]),
            ([1, 2, 0, 1], [0, 0, 1, 3]),
            ([0, 2, 3, 2], [0, 1, 3, 3]),
        ] {
            let cache = cache();
            copy_blocks(&copies, &cache).unwrap();
            assert_eq!(values(&cache), blocks(expected), "{copies:?}");
        }
    }

    #[test]
    fn half_a_copy_or_a_block_outside_of_the_cache_is_refused_before_anything_is_written() {
        let cache = cache();
        for (copies, expected) in [
            (
                &[0, 1, 2][..],
                "copy_blocks: `copies` is of length 3, expected of even length",
            ),
            (
                &[0, 1, 4, 2],
                "copy_blocks: `copies` holds 4, which is not below 4",
            ),
            (
                &[0, 1, 2, 4],
                "copy_blocks: `copies` holds 4, which is not below 4",
            ),
        ] {
            let error = copy_blocks(copies, &cache).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(values(&cache), blocks([0, 1, 2, 3]));
    }

    #[test]
    fn what_is_no_cache_is_refused() {
        let error = copy_blocks(&[0, 1], &tensor(&floats(1, 12), &[2, 6])).unwrap_err();
        assert!(error.to_string().contains("4-dimensional"), "{error}");
        let wrong_type = indices(&[0; 8]).reshape((2, 2, 2, 1)).unwrap();
        let error = copy_blocks(&[0, 1], &wrong_type).unwrap_err();
        assert!(error.to_string().contains("F32"), "{error}");
    }
}
