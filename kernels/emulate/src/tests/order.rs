//! Who may see what others wrote, and who waits for whom.

use super::super::*;
use super::*;

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
