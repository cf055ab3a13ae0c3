//! Operations of warps, and atomics.

use super::super::*;
use super::*;

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
fn operations_with_a_mask_are_of_its_lanes_alone() {
    let to = Buffer::<u32>::poisoned(10 * 32);
    launch("probe_masked_operations", 1, 32, vec![to.pointer()]).unwrap();
    let values = to.values();
    for lane in 0..32u32 {
        let mine: Vec<u32> = (0..32)
            .filter(|i| (i % 3 == 0) == (lane % 3 == 0))
            .collect();
        let bits = |of: &dyn Fn(u32) -> bool| -> u32 {
            mine.iter().filter(|i| of(**i)).map(|i| 1 << i).sum()
        };
        let folded = |combine: fn(u32, u32) -> u32, of: fn(u32) -> u32| {
            mine.iter().copied().map(of).reduce(combine).unwrap()
        };
        let thirds = lane % 3 == 0;
        let expected = [
            bits(&|i| i > 15),
            // Lane 4 is one of the others.
            if thirds { 2 } else { 1 },
            folded(|a, b| a + b, |i| i),
            mine.iter().map(|i| 7 - *i as i32).min().unwrap() as u32,
            mine.iter().map(|i| *i as i32 - 40).max().unwrap() as u32,
            folded(|a, b| a & b, |i| i | 16),
            folded(|a, b| a | b, |i| 1 << i),
            folded(|a, b| a ^ b, |i| i),
            bits(&|i| i / 8 == lane / 8),
            bits(&|_| true),
        ];
        for (row, expected) in expected.into_iter().enumerate() {
            assert_eq!(
                values[row * 32 + lane as usize],
                expected,
                "row {row}, lane {lane}"
            );
        }
    }
}

#[test]
fn atomics_do_what_their_names_say() {
    let cells = Buffer::new(&[
        7u32,
        0,
        1000,
        9,
        3,
        4,
        (-40i32) as u32,
        u32::MAX,
        0,
        0,
        0,
        0,
    ]);
    let floats = Buffer::new(&[1.0f32, 2.0]);
    let wide = Buffer::new(&[1u64, 1 << 40]);
    let before = Buffer::<u32>::poisoned(64);
    let arguments = [
        cells.pointer(),
        floats.pointer(),
        wide.pointer(),
        before.pointer(),
    ];
    launch("probe_atomics", 1, 32, arguments.into()).unwrap();
    let sum = 31 * 32 / 2;
    let expected = [
        7 + sum,
        (-(sum as i32)) as u32,
        1000 - sum,
        5,
        (-31i32) as u32,
        31,
        0,
        0,
        u32::MAX,
        // 0 ^ 1 ^ … ^ 31
        0,
        // One of the exchanged values is left, the others were found by somebody.
        cells.values()[10],
        32,
    ];
    assert_eq!(cells.values(), expected);
    let before = before.values();
    let mut exchanged = before[..32].to_vec();
    exchanged.push(cells.values()[10]);
    exchanged.sort_unstable();
    assert_eq!(exchanged, (0..=32).collect::<Vec<u32>>());
    // Threads come in order here, so that each finds what it expects.
    assert_eq!(before[32..], (0..32).collect::<Vec<u32>>());
    assert_eq!(floats.values()[0], 17.0);
    assert!((0..32).any(|i| floats.values()[1] == i as f32));
    assert_eq!(wide.values(), [1 + (32 << 33), 1 << 41]);
}
