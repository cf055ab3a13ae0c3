//! Made-up weights: a kernel's bytes are those of the CPU.

use half::bf16;

use super::{Buffer, at, run};
use crate::ops::synthetic::{Draw, synthetic_launch};
use crate::ops::{Blocks, Packed, PackedFormat};

/// Rows of one, two in turn or up to three tensors after each other; none but the last case fills whole strips.
const CASES: [(&[usize], bool, usize); 5] = [
    (&[5], false, 256),
    (&[37], false, 512),
    (&[21, 21], true, 256),
    (&[40, 3, 7], false, 768),
    (&[64, 32], false, 256),
];

fn draws(rows: &[usize]) -> Vec<(Draw, usize)> {
    let seeds = [0x9b02_71c4_fd1a_0e65u64, 3, u64::MAX - 5];
    let draw = |(&rows, seed)| (Draw { seed, bound: 0.031 }, rows);
    rows.iter().zip(seeds).map(draw).collect()
}

/// Puts the rows of parts together.
fn joined<T: Copy>(parts: &[Vec<T>], in_turn: bool, row: usize) -> Vec<T> {
    if !in_turn {
        return parts.concat();
    }
    let rows = parts[0].len() / row;
    (0..rows)
        .flat_map(|at| parts.iter().flat_map(move |part| &part[at * row..][..row]))
        .copied()
        .collect()
}

#[test]
fn synthetic_bf16_has_the_bits_of_the_cpus() {
    for (rows, in_turn, columns) in CASES {
        let parts = draws(rows);
        let of_each: Vec<Vec<bf16>> = (parts.iter())
            .map(|(draw, rows)| {
                let mut weights = vec![bf16::ZERO; rows * columns];
                draw.fill(0, &mut weights);
                weights
            })
            .collect();
        let expected: Vec<u16> = joined(&of_each, in_turn, columns)
            .into_iter()
            .map(bf16::to_bits)
            .collect();
        let given = Buffer::<u16>::poisoned(expected.len());
        run(synthetic_launch(None, at(&given), &parts, in_turn, columns));
        assert_eq!(given.values(), expected, "{rows:?} of {columns}");
    }
}

#[test]
fn synthetic_packed_forms_have_the_bytes_that_packing_the_cpus_blocks_gives() {
    for format in PackedFormat::ALL {
        let storage = format.storage();
        for (rows, in_turn, columns) in CASES {
            let parts = draws(rows);
            let of_each: Vec<Vec<u8>> = (parts.iter())
                .map(|&(draw, rows)| {
                    let sizes = [1, rows, columns];
                    Blocks::drawn(storage, sizes, &[draw]).unwrap().bytes
                })
                .collect();
            let blocks = Blocks {
                storage,
                experts: 1,
                rows: rows.iter().sum(),
                columns,
                bytes: joined(&of_each, in_turn, storage.row_bytes(columns)),
            };
            let expected = Packed::new(&blocks).unwrap().bytes;
            let given = Buffer::<u8>::poisoned(expected.len());
            let launch = synthetic_launch(Some(format), at(&given), &parts, in_turn, columns);
            run(launch);
            let given = given.values();
            let first = (0..given.len()).find(|&at| given[at] != expected[at]);
            assert_eq!(first, None, "{format:?}, {rows:?} of {columns}");
        }
    }
}
