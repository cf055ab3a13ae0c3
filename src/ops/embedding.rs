//! Looks up the embedding of each token.

use candle_core::{DType, Tensor};
use half::bf16;

use super::OpError;
use super::access::{check_dims, check_dtype, check_index, dims, read, write};
use super::launch::{Address, Launch, threads_for};

const OP: &str = "embedding";

/// Writes the embedding of each id, widened to `f32`.
///
/// - `table`: `[vocab, hidden]`, f32 or bf16, contiguous
/// - `ids`: `[num_tokens]`, u32
/// - `out`: `[num_tokens, hidden]`, f32, contiguous, written
///
/// # Errors
/// [`OpError::Shape`] naming the argument; [`OpError::Index`] for an id that is not in the table.
pub fn embedding(table: &Tensor, ids: &Tensor, out: &Tensor) -> Result<(), OpError> {
    let [vocab, hidden] = dims(OP, "table", table)?;
    let [num_tokens] = dims(OP, "ids", ids)?;
    check_dims(OP, "out", out, &[num_tokens, hidden])?;
    check_dtype(OP, "table", table, &[DType::F32, DType::BF16])?;
    let ids = &*read::<u32>(OP, "ids", ids)?;
    for &id in ids {
        check_index(OP, "ids", id as usize, vocab)?;
    }
    let rows = |id: u32| id as usize * hidden..(id as usize + 1) * hidden;
    if table.dtype() == DType::F32 {
        let weights = &*read::<f32>(OP, "table", table)?;
        write(OP, "out", out, &[table], |out: &mut [f32]| {
            for (row, &id) in out.chunks_exact_mut(hidden).zip(ids) {
                row.copy_from_slice(&weights[rows(id)]);
            }
        })
    } else {
        let weights = &*read::<bf16>(OP, "table", table)?;
        write(OP, "out", out, &[table], |out: &mut [f32]| {
            for (row, &id) in out.chunks_exact_mut(hidden).zip(ids) {
                for (value, weight) in row.iter_mut().zip(&weights[rows(id)]) {
                    *value = weight.to_f32();
                }
            }
        })
    }
}

/// Launches [`embedding`] on a device (`kernels/embedding.cu`).
///
/// - `table`: `[vocab, hidden]`, bf16
/// - `ids`: `[num_tokens]`, u32, below `vocab`; or 2³¹ + a row of `chosen`
/// - `chosen`: `[rows]`, u32, below `vocab`
/// - `out`: `[num_tokens, hidden]`, f32
/// - `residual`: `[num_tokens, hidden]`, f32: zeros are written
///
/// `hidden` is a multiple of 8.
pub fn embedding_launch(
    [table, ids, chosen, out, residual]: [Address; 5],
    num_tokens: u32,
    hidden: u32,
) -> Launch {
    let arguments = vec![
        table.into(),
        ids.into(),
        chosen.into(),
        out.into(),
        residual.into(),
        hidden.into(),
    ];
    Launch::linear(OP, num_tokens, threads_for(hidden / 8, 256), arguments)
}

/// Launches the gathering of bf16 rows on a device (`kernels/embedding.cu`): those that logits are due of.
///
/// - `from`: `[rows, width]`, bf16
/// - `indices`: `[count]`, u32, below `rows`
/// - `out`: `[count, width]`, bf16
///
/// `width` is a multiple of 8.
pub fn gather_rows_launch([from, indices, out]: [Address; 3], count: u32, width: u32) -> Launch {
    let arguments = vec![from.into(), indices.into(), out.into(), width.into()];
    Launch::linear("gather_rows", count, threads_for(width / 8, 256), arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{floats, poisoned, tensor, values};
    use candle_core::Device;

    #[test]
    fn each_token_receives_its_row_of_the_table_in_either_type() {
        let table = tensor(&floats(1, 5 * 3), &[5, 3])
            .to_dtype(DType::BF16)
            .unwrap();
        let wide = table.to_dtype(DType::F32).unwrap();
        let ids = Tensor::new(&[4u32, 0, 4], &Device::Cpu).unwrap();
        let (a, b) = (poisoned(&[3, 3]), poisoned(&[3, 3]));
        embedding(&table, &ids, &a).unwrap();
        embedding(&wide, &ids, &b).unwrap();
        let rows = values(&wide);
        let expected = [&rows[12..15], &rows[0..3], &rows[12..15]].concat();
        assert_eq!(values(&a), expected);
        assert_eq!(values(&b), expected);
    }

    #[test]
    fn an_id_beyond_the_vocabulary_is_refused_by_number() {
        let table = tensor(&floats(1, 6), &[2, 3]);
        let ids = Tensor::new(&[1u32, 2], &Device::Cpu).unwrap();
        let error = embedding(&table, &ids, &poisoned(&[2, 3])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "embedding: `ids` holds 2, which is not below 2"
        );
    }
}
