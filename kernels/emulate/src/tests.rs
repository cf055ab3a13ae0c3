//! What kernels may do, gives what a GPU would give; what they may not, is named.

mod tensor_cores;
mod warpgroups;

use super::*;

fn launch(kernel: &str, blocks: u32, threads: u32, arguments: Vec<Argument>) -> Result<(), String> {
    let launch = Launch {
        kernel,
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        shared_bytes: 0,
        programmatic: false,
        architecture: Architecture::Hopper,
        arguments,
    };
    launch.run().map_err(|fault| fault.to_string())
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 37 % 101) as f32 - 50.0).collect()
}

#[test]
fn blocks_sum_through_shared_memory_and_barriers() {
    let (blocks, count) = (3, 1000);
    let input = numbers(blocks * count);
    let (from, to) = (Buffer::new(&input), Buffer::<f32>::poisoned(blocks));
    let arguments = vec![from.pointer(), to.pointer(), Argument::U32(count as u32)];
    launch("probe_block_sums", blocks as u32, 96, arguments).unwrap();
    let exact: Vec<f32> = input
        .chunks(count)
        .map(|block| block.iter().sum())
        .collect();
    assert_eq!(to.values(), exact);
}

#[test]
fn a_missing_barrier_names_kernel_block_reader_and_writer() {
    let (from, to) = (Buffer::new(&numbers(64)), Buffer::<f32>::poisoned(1));
    let said = launch(
        "probe_missing_barrier",
        1,
        64,
        vec![from.pointer(), to.pointer()],
    );
    // Where in shared memory the cell lies is the linker's choice.
    let said = said.unwrap_err();
    let (before, rest) = said.split_once(" at ").unwrap();
    assert_eq!(
        before,
        "probe_missing_barrier: block (0, 0, 0), thread (0, 0, 0) reads 4 bytes"
    );
    let (_, after) = rest.split_once(' ').unwrap();
    assert!(after.starts_with("of shared memory, "), "{after}");
    assert!(
        after.contains("which thread (32, 0, 0) wrote since the last barrier")
            || after.contains("nobody has written"),
        "{after}"
    );
}

#[test]
fn a_write_over_what_others_read_since_the_last_barrier_is_a_fault() {
    let to = Buffer::<f32>::poisoned(64);
    let said = launch("probe_write_after_read", 1, 64, vec![to.pointer()]);
    // Thread 0 comes first here and writes before the others read: they are the ones who meet it.
    assert!(
        said.unwrap_err()
            .ends_with("which thread (0, 0, 0) wrote since the last barrier")
    );
}

#[test]
fn lanes_see_each_others_writes_after_syncwarp_only() {
    let to = Buffer::<f32>::poisoned(32);
    launch(
        "probe_warp_neighbour",
        1,
        32,
        vec![to.pointer(), Argument::U32(1)],
    )
    .unwrap();
    let expected: Vec<f32> = (0..32).map(|lane| ((lane + 1) % 32) as f32).collect();
    assert_eq!(to.values(), expected);
    let said = launch(
        "probe_warp_neighbour",
        1,
        32,
        vec![to.pointer(), Argument::U32(0)],
    )
    .unwrap_err();
    assert!(
        said.contains("nobody has written") || said.contains("wrote since the last barrier"),
        "{said}"
    );
}

#[test]
fn accesses_outside_of_buffers_are_named_by_how_far() {
    let (from, to) = (Buffer::new(&numbers(40)), Buffer::<f32>::poisoned(32));
    let copy = |at: u32, to_at: u32| {
        let arguments = vec![
            from.pointer(),
            to.pointer(),
            Argument::U32(at),
            Argument::U32(to_at),
        ];
        launch("probe_copy", 1, 32, arguments)
    };
    copy(8, 0).unwrap();
    assert_eq!(to.values(), numbers(40)[8..]);
    assert_eq!(
        copy(9, 0).unwrap_err(),
        "probe_copy: block (0, 0, 0), thread (31, 0, 0) reads 4 bytes, 0 after the end of a buffer of 160"
    );
    assert_eq!(
        copy(0, 3).unwrap_err(),
        "probe_copy: block (0, 0, 0), thread (29, 0, 0) writes 4 bytes, 0 after the end of a buffer of 128"
    );
    let said = copy(u32::MAX / 4, 0).unwrap_err();
    assert!(said.contains("where no buffer is"), "{said}");
    let nowhere = vec![
        Argument::Pointer(0),
        to.pointer(),
        Argument::U32(0),
        Argument::U32(0),
    ];
    assert_eq!(
        launch("probe_copy", 1, 1, nowhere).unwrap_err(),
        "probe_copy: block (0, 0, 0), thread (0, 0, 0) reads 4 bytes at address 0, where no buffer is"
    );
}

#[test]
fn a_16_byte_load_must_be_aligned() {
    let (from, to) = (Buffer::new(&[1u16; 32]), Buffer::<u16>::poisoned(8));
    let load = |at: u32| {
        launch(
            "probe_load8",
            1,
            1,
            vec![from.pointer(), to.pointer(), Argument::U32(at)],
        )
    };
    load(8).unwrap();
    assert_eq!(to.values(), [1; 8]);
    let said = load(4).unwrap_err();
    assert!(
        said.contains("thread (0, 0, 0) reads 16 bytes at a misaligned address"),
        "{said}"
    );
}

#[test]
fn memory_that_nobody_has_written_is_not_read() {
    let to = Buffer::<f32>::poisoned(64);
    let said = launch("probe_unwritten_shared", 1, 64, vec![to.pointer()]).unwrap_err();
    assert!(
        said.starts_with("probe_unwritten_shared: block (0, 0, 0), thread (7, 0, 0) reads 4 bytes"),
        "{said}"
    );
    assert!(
        said.ends_with("of shared memory, byte 0 of which nobody has written"),
        "{said}"
    );
    let from = Buffer::<f32>::poisoned(32);
    let arguments = vec![
        from.pointer(),
        to.pointer(),
        Argument::U32(0),
        Argument::U32(0),
    ];
    assert_eq!(
        launch("probe_copy", 1, 32, arguments).unwrap_err(),
        "probe_copy: block (0, 0, 0), thread (0, 0, 0) reads 4 bytes at 0 of a buffer, byte 0 of which nobody has written"
    );
}

#[test]
fn dynamic_shared_memory_ends_where_the_launch_says() {
    let to = Buffer::<u32>::poisoned(64);
    let mut launch = Launch {
        kernel: "probe_dynamic_shared",
        grid: [1, 1, 1],
        block: [64, 1, 1],
        shared_bytes: 256,
        programmatic: false,
        architecture: Architecture::Hopper,
        arguments: vec![to.pointer()],
    };
    launch.run().unwrap();
    assert_eq!(to.values(), (0..64).rev().collect::<Vec<_>>());
    launch.shared_bytes = 252;
    assert_eq!(
        launch.run().unwrap_err().to_string(),
        "probe_dynamic_shared: block (0, 0, 0), thread (63, 0, 0) writes 4 bytes at 252 of dynamic shared memory, of which \
         the launch has 252"
    );
    launch.shared_bytes = 228 << 10;
    assert_eq!(
        launch.run().unwrap_err().to_string(),
        "probe_dynamic_shared: a block has at most 227 KiB of dynamic shared memory"
    );
}

#[test]
fn threads_that_wait_for_ever_are_named() {
    let said = launch("probe_divergent_barrier", 1, 64, vec![]).unwrap_err();
    assert_eq!(
        said,
        "probe_divergent_barrier: block (0, 0, 0) waits for ever: thread 0 at barrier 0, which others do not reach"
    );
    let to = Buffer::<u32>::poisoned(32);
    assert_eq!(
        launch("probe_lost_lane", 1, 32, vec![to.pointer()]).unwrap_err(),
        "probe_lost_lane: block (0, 0, 0) has lane 0 of warp 0 waiting for lane 3, which has ended"
    );
}

#[test]
fn named_barriers_order_those_who_meet_at_them() {
    let to = Buffer::<u32>::poisoned(32);
    launch(
        "probe_named_barriers",
        1,
        64,
        vec![to.pointer(), Argument::U32(0)],
    )
    .unwrap();
    let expected: Vec<u32> = (0..32)
        .map(|lane| ((lane + 5) % 32) * ((lane + 5) % 32))
        .collect();
    assert_eq!(to.values(), expected);
    let said = launch(
        "probe_named_barriers",
        1,
        64,
        vec![to.pointer(), Argument::U32(1)],
    )
    .unwrap_err();
    assert!(said.contains("of shared memory"), "{said}");
}

#[test]
fn warp_operations_are_those_of_the_programming_guide() {
    let to = Buffer::<u32>::poisoned(5 * 32);
    launch("probe_warp_operations", 1, 32, vec![to.pointer()]).unwrap();
    let values = to.values();
    for lane in 0..32u32 {
        let row = |row: usize| values[row * 32 + lane as usize];
        assert_eq!(row(0), lane.saturating_sub(1));
        assert_eq!(row(1), if lane % 8 < 4 { lane + 4 } else { lane });
        assert_eq!(
            row(2),
            (0..32).filter(|i| i % 3 == 0).map(|i| 1u32 << i).sum()
        );
        assert_eq!(row(3), 2);
        assert_eq!(row(4), lane ^ 1);
    }
}

#[test]
fn asynchronous_copies_arrive_at_their_wait_and_not_before() {
    let input = numbers(256);
    let (from, to) = (Buffer::new(&input), Buffer::<f32>::poisoned(160));
    let copy = |early: u32, alone: u32| {
        let flags = [Argument::U32(early), Argument::U32(alone)];
        launch(
            "probe_copy_async",
            1,
            32,
            [&[from.pointer(), to.pointer()], &flags[..]].concat(),
        )
    };
    copy(0, 0).unwrap();
    let values = to.values();
    let shifted: Vec<f32> = (0..32).map(|i| input[(4 * i + 4) % 128]).collect();
    assert_eq!(values[..32], shifted);
    for (i, value) in values[32..].iter().enumerate() {
        let expected = if i / 4 == 2 { 0.0 } else { input[128 + i] };
        assert_eq!(*value, expected, "what is not valid is filled with zeroes");
    }
    let said = copy(1, 0).unwrap_err();
    assert!(
        said.ends_with("of shared memory, where a cp.async has not been waited for"),
        "{said}"
    );
    let said = copy(0, 1).unwrap_err();
    assert!(said.contains("of shared memory"), "{said}");
    // A fault leaves nothing behind that the next kernel would be blamed for.
    copy(0, 0).unwrap();
}

#[test]
fn blocks_meet_by_atomics_only() {
    let (cell, to) = (Buffer::new(&[0u32]), Buffer::<u32>::poisoned(4));
    let meet = |atomics: u32| {
        launch(
            "probe_blocks_meet",
            4,
            1,
            vec![cell.pointer(), to.pointer(), Argument::U32(atomics)],
        )
    };
    meet(1).unwrap();
    assert_eq!((cell.values(), to.values()), (vec![4], vec![0, 1, 2, 3]));
    assert_eq!(
        meet(0).unwrap_err(),
        "probe_blocks_meet: block (1, 0, 0), thread (0, 0, 0) writes 4 bytes at 0 of a buffer, which another block wrote in \
         the same launch"
    );
}

#[test]
fn a_kernel_that_begins_early_touches_nothing_of_kernels_before_its_wait() {
    let (weights, x) = (Buffer::new(&numbers(64)), Buffer::new(&numbers(64)));
    let to = Buffer::<f32>::poisoned(64);
    let run = |programmatic: bool, mistake: u32| {
        let launch = Launch {
            kernel: "probe_begins_early",
            grid: [2, 1, 1],
            block: [32, 1, 1],
            shared_bytes: 0,
            programmatic,
            architecture: Architecture::Hopper,
            arguments: vec![
                weights.pointer(),
                x.pointer(),
                to.pointer(),
                Argument::U32(mistake),
            ],
        };
        launch.run().map_err(|fault| fault.to_string())
    };
    let double = || launch("probe_double", 2, 32, vec![x.pointer()]).unwrap();
    let products =
        |x: Vec<f32>| -> Vec<f32> { numbers(64).iter().zip(x).map(|(a, b)| a * b).collect() };
    double();
    run(true, 0).unwrap();
    assert_eq!(to.values(), products(x.values()));
    let reads = "reads 4 bytes at 128 of a buffer, which a kernel wrote, before";
    let writes = "writes 4 bytes at 128 of a buffer before";
    let copies = "reads 16 bytes at 128 of a buffer, which a kernel wrote, before";
    for (mistake, said) in [(1, reads), (2, copies), (3, writes), (4, writes)] {
        let said = format!(
            "probe_begins_early: block (1, 0, 0), thread (0, 0, 0) {said} it has waited for the kernel before"
        );
        assert_eq!(run(true, mistake).unwrap_err(), said, "mistake {mistake}");
    }
    assert_eq!(
        run(true, 5).unwrap_err(),
        "probe_begins_early: block (1, 0, 0), thread (3, 0, 0) ends without having waited for the kernel before"
    );
    // None of it is a mistake where the kernel before has ended.
    for mistake in 1..=5 {
        run(false, mistake).unwrap();
    }
    // What was uploaded since is no kernel's; what a kernel wrote again, is.
    x.write(0, &numbers(64));
    run(true, 1).unwrap();
    double();
    assert!(run(true, 1).unwrap_err().contains(reads));
    // Weights that a kernel writes are no weights.
    launch("probe_double", 2, 32, vec![weights.pointer()]).unwrap();
    let said = run(true, 0).unwrap_err();
    assert!(
        said.contains("thread (0, 0, 0) reads 4 bytes at 0 of a buffer, which a kernel wrote"),
        "{said}"
    );
}

fn bf16(x: f32) -> u16 {
    (x.to_bits() >> 16) as u16
}

#[test]
fn ldmatrix_and_mma_multiply_as_matrices_do() {
    // Small whole numbers: exact in every type.
    let a: Vec<f32> = (0..256).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
    let b: Vec<f32> = (0..128).map(|i| (i * 5 % 11) as f32 - 5.0).collect();
    let product = |b_at: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
        let element = |i: usize| (0..16).map(|k| a[i / 8 * 16 + k] * b_at(k, i % 8)).sum();
        (0..128).map(element).collect()
    };
    let bits = |values: &[f32]| Buffer::new(&values.iter().map(|&x| bf16(x)).collect::<Vec<_>>());
    let to = Buffer::<f32>::poisoned(128);
    let (left, right) = (bits(&a), bits(&b));
    launch(
        "probe_mma_bf16",
        1,
        32,
        vec![left.pointer(), right.pointer(), to.pointer()],
    )
    .unwrap();
    assert_eq!(to.values(), product(&|k, n| b[n * 16 + k]));

    let halves = |values: &[f32]| Buffer::new(&values.iter().map(|&x| half(x)).collect::<Vec<_>>());
    let (left, right, to) = (halves(&a), halves(&b), Buffer::<f32>::poisoned(128));
    launch(
        "probe_mma_f16_transposed",
        1,
        32,
        vec![left.pointer(), right.pointer(), to.pointer()],
    )
    .unwrap();
    assert_eq!(to.values(), product(&|k, n| b[k * 8 + n]));
}

/// Whole numbers below 2048 as a half.
fn half(x: f32) -> u16 {
    if x == 0.0 {
        return 0;
    }
    let exponent = x.abs().log2().floor() as i32;
    let fraction = (x.abs() / 2f32.powi(exponent) * 1024.0) as u16 - 1024;
    u16::from(x < 0.0) << 15 | ((exponent + 15) as u16) << 10 | fraction
}

#[test]
fn byte_products_add_up_in_integers() {
    let a: Vec<i8> = (0..512).map(|i| (i * 7 % 255 - 127) as i8).collect();
    let b: Vec<i8> = (0..256).map(|i| (i * 11 % 255 - 127) as i8).collect();
    let words = |bytes: &[i8]| -> Vec<u32> {
        let word = |four: &[i8]| {
            u32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8])
        };
        bytes.chunks(4).map(word).collect()
    };
    let (left, right, to) = (
        Buffer::new(&words(&a)),
        Buffer::new(&words(&b)),
        Buffer::<i32>::poisoned(128),
    );
    launch(
        "probe_mma_s8",
        1,
        32,
        vec![left.pointer(), right.pointer(), to.pointer()],
    )
    .unwrap();
    let element = |i: usize| {
        (0..32)
            .map(|k| a[i / 8 * 32 + k] as i32 * b[i % 8 * 32 + k] as i32)
            .sum()
    };
    assert_eq!(to.values(), (0..128).map(element).collect::<Vec<i32>>());
}

#[test]
fn eight_bit_floats_have_every_value_they_should_and_products_add() {
    // OCP 8-bit floating point, 2023: four bits of exponent with bias 7, three of fraction, no infinities.
    let value = |code: u8| -> f32 {
        let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        let size = match exponent {
            0 => fraction * 2f32.powi(-9),
            _ => (8.0 + fraction) * 2f32.powi(exponent - 10),
        };
        if code & 0x80 == 0 { size } else { -size }
    };
    let codes: Vec<u8> = (0..=255).filter(|code| code & 0x7f != 0x7f).collect();
    let multiply = |a: &[u8], b: &[u8]| -> Vec<f32> {
        let (left, right) = (Buffer::new(a), Buffer::new(b));
        let to = Buffer::<f32>::poisoned(128);
        let arguments = vec![left.pointer(), right.pointer(), to.pointer()];
        launch("probe_mma_e4m3", 1, 32, arguments).unwrap();
        to.values()
    };
    // Eight of each row's 32 at a time: b has a one where its column is.
    let one = 0x38;
    for shift in (0..32).step_by(8) {
        let a: Vec<u8> = (0..512).map(|i| codes[i % codes.len()]).collect();
        let b: Vec<u8> = (0..256)
            .map(|i| if i % 32 == i / 32 + shift { one } else { 0 })
            .collect();
        for (i, given) in multiply(&a, &b).into_iter().enumerate() {
            assert_eq!(given, value(a[i / 8 * 32 + i % 8 + shift]));
        }
    }
    let a: Vec<u8> = (0..512).map(|i| codes[i * 37 % codes.len()]).collect();
    let b: Vec<u8> = (0..256).map(|i| codes[i * 101 % codes.len()]).collect();
    for (i, given) in multiply(&a, &b).into_iter().enumerate() {
        let terms =
            (0..32).map(|k| value(a[i / 8 * 32 + k]) as f64 * value(b[i % 8 * 32 + k]) as f64);
        let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
        // 32 terms summed in f32 in some order.
        assert!((given as f64 - exact).abs() <= 32.0 * f32::EPSILON as f64 * size);
    }
}

#[test]
fn conversions_round_to_nearest_even() {
    let cases: Vec<f32> = vec![
        0.0,
        -0.0,
        1.0,
        -2.5,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        65504.0,
        65519.9,
        65520.0,
        6.0e-8,
        2.9e-8,
        3.1e-8,
        6.1e-5,
        6.097e-5,
        f32::INFINITY,
        3.0e38,
        2047.5,
        2048.5,
    ];
    let count = cases.len();
    let from = Buffer::new(&cases);
    let (narrow, halves, back) = (
        Buffer::<u32>::poisoned(count),
        Buffer::<u32>::poisoned(count),
        Buffer::<f32>::poisoned(count),
    );
    let arguments = vec![
        from.pointer(),
        narrow.pointer(),
        halves.pointer(),
        back.pointer(),
        Argument::U32(count as u32),
    ];
    launch("probe_conversions", 1, 32, arguments).unwrap();
    for (at, x) in cases.iter().enumerate() {
        assert_eq!(
            narrow.values()[at] as u16,
            half::bf16::from_f32(*x).to_bits(),
            "{x} as bf16"
        );
        assert_eq!(
            halves.values()[at] as u16,
            half::f16::from_f32(*x).to_bits(),
            "{x} as f16"
        );
        assert_eq!(
            back.values()[at],
            half::f16::from_f32(*x).to_f32(),
            "{x} there and back"
        );
    }
}

#[test]
fn launches_that_cannot_be_are_refused() {
    assert_eq!(
        launch("no_such", 1, 1, vec![]).unwrap_err(),
        "no_such: there is no such kernel"
    );
    assert_eq!(
        launch("probe_copy", 1, 32, vec![]).unwrap_err(),
        "probe_copy: the kernel has another number of arguments"
    );
    assert_eq!(
        launch("probe_divergent_barrier", 1, 1025, vec![]).unwrap_err(),
        "probe_divergent_barrier: a block has 1 to 1024 threads"
    );
    assert_eq!(
        launch("probe_divergent_barrier", 0, 1, vec![]).unwrap_err(),
        "probe_divergent_barrier: no such grid"
    );
}
