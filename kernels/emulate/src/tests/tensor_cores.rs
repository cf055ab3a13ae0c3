//! Sums of tensor cores, to their bits: goldens of MMA-Sim, which was compared with the hardware
//! (`scripts/goldens/tensor_cores.py` says what is in them).

use super::super::*;

/// Files of records: `a`, `b` (transposed), `c`, then `d` for each architecture.
const BF16: &[u8] = include_bytes!("../../goldens/bf16.bin");
const F16: &[u8] = include_bytes!("../../goldens/f16.bin");
const E4M3: &[u8] = include_bytes!("../../goldens/e4m3.bin");

/// Bytes of an operand: 16 or 8 rows of 32 bytes, 16 rows of 8 numbers of four bytes.
const A: usize = 512;
const B: usize = 256;
const C: usize = 512;

/// What all records have at `from`, as words.
fn gathered(file: &[u8], record: usize, from: usize, bytes: usize) -> Vec<u32> {
    let records = file.chunks_exact(record);
    assert!(records.len() > 0 && records.remainder().is_empty());
    let words = records.flat_map(|record| record[from..from + bytes].chunks_exact(4));
    words
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// Multiplies each record's matrices, in one launch.
fn multiply(
    file: &[u8],
    results: usize,
    kind: u32,
    architecture: Architecture,
) -> Result<Vec<u32>, Fault> {
    let record = A + B + C * (1 + results);
    let operand = |from, bytes| Buffer::new(&gathered(file, record, from, bytes));
    let (a, b, c) = (operand(0, A), operand(A, B), operand(A + B, C));
    let d = Buffer::<u32>::poisoned(c.len());
    let launch = Launch {
        kernel: "probe_mma_sums",
        grid: [(file.len() / record) as u32, 1, 1],
        block: [32, 1, 1],
        shared_bytes: 0,
        programmatic: false,
        architecture,
        arguments: vec![
            a.pointer(),
            b.pointer(),
            c.pointer(),
            d.pointer(),
            Argument::U32(kind),
        ],
    };
    launch.run()?;
    Ok(d.values())
}

fn check(file: &[u8], kind: u32, architectures: &[Architecture]) {
    let record = A + B + C * (1 + architectures.len());
    for (index, &architecture) in architectures.iter().enumerate() {
        let given = multiply(file, architectures.len(), kind, architecture).unwrap();
        let golden = gathered(file, record, A + B + C * (1 + index), C);
        assert_eq!(given.len(), golden.len());
        for (at, (given, golden)) in given.into_iter().zip(golden).enumerate() {
            let place = [at / 128, at % 128 / 8, at % 8];
            assert_eq!(
                given,
                golden,
                "{architecture:?}, record, row and column {place:?}: {given:#x}, {:e}, not {golden:#x}, {:e}",
                f32::from_bits(given),
                f32::from_bits(golden)
            );
        }
    }
}

#[test]
fn sums_of_bf16_have_the_bits_of_both_architectures() {
    check(BF16, 0, &[Architecture::Ampere, Architecture::Hopper]);
}

#[test]
fn sums_of_f16_have_the_bits_of_both_architectures() {
    check(F16, 1, &[Architecture::Ampere, Architecture::Hopper]);
}

#[test]
fn sums_of_e4m3_have_hoppers_bits_and_ampere_has_none() {
    check(E4M3, 2, &[Architecture::Hopper]);
    let said = multiply(E4M3, 1, 2, Architecture::Ampere).unwrap_err();
    assert_eq!(
        said.to_string(),
        "probe_mma_sums: block (0, 0, 0), thread (0, 0, 0) multiplies E4M3, which Ampere's tensor cores do not"
    );
}
