//! What a kernel moves, against what can be counted by hand.

use super::super::*;

fn counted(kernel: &str, arguments: Vec<Argument>) -> Traffic {
    let launch = Launch {
        kernel,
        grid: [1, 1, 1],
        block: [32, 1, 1],
        shared_bytes: 16 << 10,
        programmatic: false,
        architecture: Architecture::Hopper,
        arguments,
    };
    launch.run_counted().unwrap()
}

/// Requests, bytes, passes and the least number of them.
fn moved(requests: u64, bytes: u64, passes: u64, least: u64) -> Moved {
    Moved {
        requests,
        bytes,
        passes,
        least,
    }
}

/// By strides: sectors of global and passes over shared memory, of a full warp and of lane 31 alone, which comes twice.
#[test]
fn lanes_that_lie_apart_need_more_sectors_and_passes() {
    let check = |[words, stride]: [u32; 2], [sectors, alone, passes]: [u64; 3]| {
        let len = 32 * stride.max(4) as usize;
        let (from, to) = (Buffer::new(&vec![7u32; len]), Buffer::<u32>::poisoned(len));
        let numbers = [stride, words, 32].map(Argument::U32);
        let arguments = [from.pointer(), to.pointer()].into_iter().chain(numbers);
        let traffic = counted("probe_traffic", arguments.collect());
        let bytes = 33 * 4 * u64::from(words);
        let width = u64::from(words);
        let global = moved(2, bytes, sectors + alone, 4 * width + 1);
        let shared = moved(2, bytes, passes + 1, width + 1);
        let given = [
            traffic.global_reads,
            traffic.global_writes,
            traffic.shared_reads,
            traffic.shared_writes,
        ];
        assert_eq!(given, [global, global, shared, shared], "{words} {stride}");
        assert_eq!(traffic.products, 0);
    };
    // Neighbours: 128 bytes of global memory, one word to each bank.
    check([1, 1], [4, 1, 1]);
    // Every other word: twice the sectors, half of the banks.
    check([1, 2], [8, 1, 2]);
    check([1, 8], [32, 1, 8]);
    check([1, 32], [32, 1, 32]);
    check([1, 33], [32, 1, 1]);
    // Halves of a warp at once; then all lanes of a half meet in one bank in four.
    check([2, 2], [8, 1, 2]);
    check([2, 8], [32, 1, 8]);
    // Quarters at once: without gaps, in the same four banks, and in other ones by a gap of 16 bytes.
    check([4, 4], [16, 1, 4]);
    check([4, 32], [32, 1, 32]);
    check([4, 36], [32, 1, 4]);
}

#[test]
fn lanes_that_stay_away_ask_for_nothing() {
    let (from, to) = (Buffer::new(&[7u32; 128]), Buffer::<u32>::poisoned(128));
    let numbers = [4, 4, 8].map(Argument::U32);
    let arguments = [from.pointer(), to.pointer()].into_iter().chain(numbers);
    let traffic = counted("probe_traffic", arguments.collect());
    assert_eq!(traffic.global_reads, moved(1, 128, 4, 4));
    assert_eq!(traffic.shared_reads, moved(1, 128, 1, 1));
}

#[test]
fn what_all_lanes_want_comes_once() {
    let (from, to) = (Buffer::new(&[7u32, 8]), Buffer::<u32>::poisoned(32));
    let traffic = counted("probe_one_for_all", vec![from.pointer(), to.pointer()]);
    // One lane's word, then everybody's.
    assert_eq!(traffic.global_reads, moved(2, 4 + 128, 2, 2));
    assert_eq!(traffic.shared_reads, moved(1, 128, 1, 1));
    assert_eq!(traffic.shared_writes, moved(1, 4, 1, 1));
    assert_eq!(traffic.global_writes, moved(1, 128, 4, 4));
}

#[test]
fn permuted_rows_are_read_from_all_banks_at_once() {
    for (permuted, passes) in [(0, 32), (1, 4)] {
        let rows = Buffer::new(&[0x3f80u16; 32 * 64]);
        let to = Buffer::<f32>::poisoned(128);
        let arguments = vec![rows.pointer(), to.pointer(), Argument::U32(permuted)];
        let traffic = counted("probe_tile_traffic", arguments);
        assert_eq!(traffic.global_reads, moved(8, 4096, 128, 128));
        // A quarter of a warp writes a row, whose chunks lie in all banks either way.
        assert_eq!(traffic.shared_writes, moved(8, 4096, 32, 32));
        assert_eq!(traffic.shared_reads, moved(1, 512, passes, 4));
        assert_eq!(traffic.products, 16 * 8 * 16);
        assert_eq!(to.values()[0], 16.0);
    }
}
