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
