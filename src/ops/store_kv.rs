//! Scatters a step's keys and values into the paged cache.

use candle_core::Tensor;

use super::OpError;
use super::access::{check_dims, check_index, dims, read, write};

const OP: &str = "store_kv";

/// Writes each token's key and value into its slot.
///
/// - `k`, `v`: `[num_tokens, num_kv_heads, head_dim]`, f32, contiguous
/// - `slots`: `[num_tokens]`, u32: `block * block_size + offset`; no two the same
/// - `k_cache`, `v_cache`: `[num_blocks, block_size, num_kv_heads, head_dim]`, f32, written in place
///
/// # Errors
/// [`OpError::Shape`] naming the argument; [`OpError::Index`] for a slot outside of the cache. Nothing is written
/// unless every slot is inside.
pub fn store_kv(
    k: &Tensor,
    v: &Tensor,
    slots: &Tensor,
    k_cache: &Tensor,
    v_cache: &Tensor,
) -> Result<(), OpError> {
    let [num_tokens, heads, head_dim] = dims(OP, "k", k)?;
    let [num_blocks, block_size, _, _] = dims(OP, "k_cache", k_cache)?;
    check_dims(OP, "v", v, k.dims())?;
    check_dims(OP, "slots", slots, &[num_tokens])?;
    check_dims(
        OP,
        "k_cache",
        k_cache,
        &[num_blocks, block_size, heads, head_dim],
    )?;
    check_dims(OP, "v_cache", v_cache, k_cache.dims())?;
    let slots = &*read::<u32>(OP, "slots", slots)?;
    for &slot in slots {
        check_index(OP, "slots", slot as usize, num_blocks * block_size)?;
    }
    let width = heads * head_dim;
    for (argument, rows, cache) in [("k_cache", k, k_cache), ("v_cache", v, v_cache)] {
        let source = &*read::<f32>(OP, "k", rows)?;
        write(OP, argument, cache, &[rows], |cache: &mut [f32]| {
            for (row, &slot) in source.chunks_exact(width).zip(slots) {
                cache[slot as usize * width..][..width].copy_from_slice(row);
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{floats, indices, poisoned, tensor, values};

    #[test]
    fn rows_land_in_their_slots_and_nowhere_else() {
        let (k, v) = (
            tensor(&floats(1, 12), &[2, 2, 3]),
            tensor(&floats(2, 12), &[2, 2, 3]),
        );
        let (k_cache, v_cache) = (poisoned(&[3, 2, 2, 3]), poisoned(&[3, 2, 2, 3]));
        store_kv(&k, &v, &indices(&[5, 2]), &k_cache, &v_cache).unwrap();
        for (rows, cache) in [
            (values(&k), values(&k_cache)),
            (values(&v), values(&v_cache)),
        ] {
            assert_eq!(cache[30..36], rows[0..6]);
            assert_eq!(cache[12..18], rows[6..12]);
            assert_eq!(cache.iter().filter(|x| x.is_nan()).count(), 36 - 12);
        }
    }

    #[test]
    fn a_slot_outside_of_the_cache_is_refused_before_anything_is_written() {
        let k = tensor(&floats(1, 12), &[2, 2, 3]);
        let (k_cache, v_cache) = (poisoned(&[3, 2, 2, 3]), poisoned(&[3, 2, 2, 3]));
        let error = store_kv(&k, &k, &indices(&[0, 6]), &k_cache, &v_cache).unwrap_err();
        assert_eq!(
            error.to_string(),
            "store_kv: `slots` holds 6, which is not below 6"
        );
        assert!(values(&k_cache).iter().all(|x| x.is_nan()));
    }
}
