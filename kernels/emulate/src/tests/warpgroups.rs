//! Products by warpgroups: what they give, and what is told of wrong ones.

use super::super::*;
use super::numbers::bf16;

const NONE: u32 = 0;
const SHARED_NOT_FENCED: u32 = 1;
const NO_BARRIER: u32 = 2;
const REGISTERS_NOT_FENCED: u32 = 3;
const READ_TOO_EARLY: u32 = 4;
const NEVER_WAITED_FOR: u32 = 5;
const OVERWRITTEN: u32 = 6;
const ELSEWHERE: u32 = 7;
const COPIED_OVER: u32 = 8;

/// Small whole numbers, so that sums are exact in any order.
fn whole(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 37 + seed) * 11 % 13) as f32 - 6.0;
    (0..count).map(number).collect()
}

fn narrowed(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&x| bf16(x)).collect()
}

/// `[m, n]` of `a`, `[m, k]`, times `b`, `[n, k]`, both with `k` of each row.
fn product(a: &[f32], b: &[f32], k: usize) -> Vec<f32> {
    let row = |a: &[f32]| -> Vec<f32> {
        let dot = |b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        b.chunks(k).map(dot).collect()
    };
    a.chunks(k).flat_map(row).collect()
}

fn launched(
    kernel: &'static str,
    arguments: Vec<Argument>,
    architecture: Architecture,
    threads: u32,
) -> Result<(), String> {
    let launch = Launch {
        kernel,
        grid: [1, 1, 1],
        block: [threads, 1, 1],
        shared_bytes: (64 + 256 + 8) * 128,
        programmatic: false,
        architecture,
        arguments,
    };
    launch.run().map_err(|fault| fault.to_string())
}

fn from_shared(fault: u32) -> Result<Vec<f32>, String> {
    let (a, b) = (whole(64 * 64, 1), whole(256 * 64, 5));
    let (left, right) = (Buffer::new(&narrowed(&a)), Buffer::new(&narrowed(&b)));
    let out = Buffer::<f32>::poisoned(64 * 256);
    let mut arguments: Vec<_> = [left.pointer(), right.pointer(), out.pointer()].into();
    arguments.push(Argument::U32(fault));
    launched("probe_warpgroup", arguments, Architecture::Hopper, 128)?;
    if fault == NONE {
        assert_eq!(out.values(), product(&a, &b, 64));
    }
    Ok(out.values())
}

#[test]
fn warpgroups_multiply_what_lies_in_shared_memory() {
    from_shared(NONE).unwrap();
}

#[test]
fn warpgroups_multiply_registers() {
    let (a, rows) = (whole(64 * 16, 3), whole(128 * 64, 7));
    let (left, right) = (Buffer::new(&narrowed(&a)), Buffer::new(&narrowed(&rows)));
    for at in 0..4usize {
        let out = Buffer::<f32>::poisoned(64 * 128);
        let mut arguments: Vec<_> = [left.pointer(), right.pointer(), out.pointer()].into();
        arguments.push(Argument::U32(at as u32));
        launched(
            "probe_warpgroup_registers",
            arguments,
            Architecture::Hopper,
            128,
        )
        .unwrap();
        let b: Vec<f32> = rows
            .chunks(64)
            .flat_map(|row| row[16 * at..][..16].to_vec())
            .collect();
        assert_eq!(out.values(), product(&a, &b, 16), "{at}");
    }
}

#[test]
fn sums_are_not_there_before_they_are_waited_for() {
    let given = from_shared(READ_TOO_EARLY).unwrap();
    assert!(given.iter().all(|sum| sum.is_nan()));
}

#[test]
fn what_is_wrong_with_a_product_is_told() {
    let probe = "probe_warpgroup: block (0, 0, 0), thread";
    for (fault, thread, told) in [
        (
            SHARED_NOT_FENCED,
            "(0, 0, 0)",
            "multiplies what lies at 80 of shared memory, which thread (5, 0, 0) has not fenced since it wrote it",
        ),
        (
            NO_BARRIER,
            "(0, 0, 0)",
            "reads 16 bytes at 16 of shared memory, which thread (1, 0, 0) wrote since the last barrier",
        ),
        (
            REGISTERS_NOT_FENCED,
            "(0, 0, 0)",
            "multiplies by warpgroups without a fence of its registers",
        ),
        (
            NEVER_WAITED_FOR,
            "(0, 0, 0)",
            "ends with a wgmma that it has not waited for",
        ),
        (
            OVERWRITTEN,
            "(0, 0, 0)",
            "waits for a wgmma whose operand at 96 of shared memory was overwritten meanwhile",
        ),
        (
            ELSEWHERE,
            "(0, 0, 0)",
            "multiplies a matrix whose pattern begins at 128, no multiple of 1024",
        ),
        (
            COPIED_OVER,
            "(0, 0, 0)",
            "reads 16 bytes at 96 of shared memory, where a cp.async has not been waited for",
        ),
    ] {
        let said = from_shared(fault).map(drop).unwrap_err();
        assert_eq!(said, format!("{probe} {thread} {told}"), "fault {fault}");
    }
}

#[test]
fn warpgroups_are_whole_and_hoppers() {
    let (a, out) = (
        Buffer::new(&[0u16; 256 * 64]),
        Buffer::<f32>::poisoned(64 * 256),
    );
    let arguments = vec![a.pointer(), a.pointer(), out.pointer(), Argument::U32(NONE)];
    let probe = "probe_warpgroup: block (0, 0, 0), thread (0, 0, 0) multiplies by warpgroups";
    let said = launched(
        "probe_warpgroup",
        arguments.clone(),
        Architecture::Ampere,
        128,
    );
    assert_eq!(
        said.unwrap_err(),
        format!("{probe}, which Hopper alone does")
    );
    let said = launched("probe_warpgroup", arguments, Architecture::Hopper, 96);
    assert_eq!(
        said.unwrap_err(),
        format!("{probe} in a block of 96 threads, which are no whole ones")
    );
}

/// Where element (k, n) of a right matrix lies that is described as N-major and permuted by 128 bytes, by CUTLASS's canonical
/// layout (mma_traits_sm90_gmma.hpp): `Swizzle<3,4,3> o ((8,8,m),(8,k)):((1,8,leading),(64,stride))`, in elements of 16 bits.
fn n_major(k: usize, n: usize, [start, leading, stride]: [usize; 3]) -> usize {
    let mode_n = [(n % 8, 1), (n / 8 % 8, 8), (n / 64, leading / 2)];
    let mode_k = [(k % 8, 64), (k / 8, stride / 2)];
    let elements: usize = mode_n.iter().chain(&mode_k).map(|(i, by)| i * by).sum();
    swizzled(start + 2 * elements)
}

/// The same of a K-major one: `Swizzle<3,4,3> o ((8,m),(8,2)):((64,stride),(1,8))`.
fn k_major(k: usize, n: usize, [start, _, stride]: [usize; 3]) -> usize {
    swizzled(start + 2 * (n % 8 * 64 + n / 8 * stride / 2 + k % 8 + k / 8 * 8))
}

/// `Swizzle<3,4,3>`: three bits from the fourth on, by the three that are three further up.
fn swizzled(address: usize) -> usize {
    address ^ (address & 0b111 << 7) >> 3
}

/// Bits of a descriptor (PTX ISA, "Matrix Descriptor Format").
fn descriptor([start, leading, stride]: [usize; 3], swizzle: u64) -> u64 {
    let fields = [(start, 0), (leading, 16), (stride, 32)];
    let bits = fields.map(|(bytes, at)| (bytes as u64 >> 4 & 0x3fff) << at);
    bits.iter().sum::<u64>() | swizzle << 62
}

/// Bytes of shared memory that the probes have.
const SHARED: usize = (64 + 256 + 8) * 128;

fn described(
    matrix: u64,
    image: &[u16],
    (columns, by_rows_of_k): (usize, bool),
) -> Result<Vec<f32>, String> {
    let a = Buffer::new(&narrowed(&whole(64 * 16, 3)));
    let (image, out) = (Buffer::new(image), Buffer::<f32>::poisoned(64 * columns));
    let arguments = vec![
        a.pointer(),
        image.pointer(),
        Argument::U32(SHARED as u32),
        out.pointer(),
        Argument::U32((matrix >> 32) as u32),
        Argument::U32(matrix as u32),
        Argument::U32(columns as u32),
        Argument::U32(by_rows_of_k as u32),
    ];
    let probe = "probe_warpgroup_described";
    launched(probe, arguments, Architecture::Hopper, 128)?;
    Ok(out.values())
}

#[test]
fn right_matrices_lie_as_their_canonical_layouts_say() {
    for columns in [64, 128] {
        let b = whole(columns * 16, 7);
        let exact = product(&whole(64 * 16, 3), &b, 16);
        // Matrices close to each other, apart, and in another order.
        for distances in [
            [0, 2048, 1024],
            [4096, 8192, 3072],
            [1024, 1024, 8192],
            [2048, 16384, 1024],
        ] {
            let mut image = vec![bf16(99.0); SHARED / 2];
            for (n, row) in b.chunks(16).enumerate() {
                for (k, &value) in row.iter().enumerate() {
                    image[n_major(k, n, distances) / 2] = bf16(value);
                }
            }
            let given = described(descriptor(distances, 1), &image, (columns, true));
            assert_eq!(given.unwrap(), exact, "{columns} {distances:?}");
        }
        for distances in [[0, 16, 1024], [64, 16, 1024], [2080, 16, 2048]] {
            let mut image = vec![bf16(99.0); SHARED / 2];
            for (n, row) in b.chunks(16).enumerate() {
                for (k, &value) in row.iter().enumerate() {
                    image[k_major(k, n, distances) / 2] = bf16(value);
                }
            }
            let given = described(descriptor(distances, 1), &image, (columns, false));
            assert_eq!(given.unwrap(), exact, "{columns} {distances:?}");
        }
    }
}

#[test]
fn what_a_descriptor_cannot_mean_is_told() {
    let zeros = vec![0; SHARED / 2];
    let said =
        |matrix, columns, by_rows| described(matrix, &zeros, (columns, by_rows)).unwrap_err();
    let thread = "probe_warpgroup_described: block (0, 0, 0), thread (0, 0, 0) multiplies";
    for (matrix, by_rows_of_k, told) in [
        (
            descriptor([0, 2048, 1024], 2),
            true,
            "a matrix that is not permuted by 128 bytes, which is all that the emulation knows",
        ),
        (
            descriptor([32, 2048, 1024], 1),
            true,
            "rows of k from 32 on, no multiple of 1024",
        ),
        (
            descriptor([512, 2048, 1024], 1),
            true,
            "a matrix whose pattern begins at 512, no multiple of 1024",
        ),
        (
            descriptor([0, 2048, 512], 1),
            false,
            "a matrix with 512 bytes from eight rows to the next, no multiple of 1024",
        ),
        (
            descriptor([0, 16, 1024], 1),
            true,
            "a matrix with 16 bytes from 64 columns to the next, no multiple of 1024",
        ),
        (
            descriptor([0, 2048, 1024], 1) | 1 << 49,
            true,
            "a matrix whose descriptor (0x4002004000800000) has bits that the emulation knows nothing of",
        ),
    ] {
        assert_eq!(said(matrix, 128, by_rows_of_k), format!("{thread} {told}"));
    }
    // With 64 columns there is nothing at the leading distance.
    assert!(described(descriptor([0, 16, 1024], 1), &zeros, (64, true)).is_ok());
}

#[test]
fn rows_of_k_are_multiplied_as_kernels_lay_them_out() {
    let (a, rows) = (whole(64 * 16, 3), whole(64 * 128, 7));
    let (left, right) = (Buffer::new(&narrowed(&a)), Buffer::new(&narrowed(&rows)));
    let said = |at: usize, overwritten: bool| {
        let out = Buffer::<f32>::poisoned(64 * 128);
        let mut arguments: Vec<_> = [left.pointer(), right.pointer(), out.pointer()].into();
        let numbers = [at as u32, overwritten as u32];
        arguments.extend(numbers.map(Argument::U32));
        let probe = "probe_warpgroup_rows_of_k";
        launched(probe, arguments, Architecture::Hopper, 128).map(|()| out.values())
    };
    for at in 0..4 {
        let b: Vec<f32> = (0..128 * 16)
            .map(|i| rows[(16 * at + i % 16) * 128 + i / 16])
            .collect();
        assert_eq!(said(at, false).unwrap(), product(&a, &b, 16), "{at}");
    }
    // Row 19 of the second matrix, chunk 5 ^ 3: column 64 + 40, of which lane 0 has the first two.
    let place = 64 * 128 + 19 * 128 + 6 * 16;
    assert_eq!(
        said(1, true).unwrap_err(),
        format!(
            "probe_warpgroup_rows_of_k: block (0, 0, 0), thread (0, 0, 0) waits for a wgmma whose operand at {place} of shared memory was overwritten meanwhile"
        )
    );
}
