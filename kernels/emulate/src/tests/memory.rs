//! What may be read and written, and launched.

use super::super::*;
use super::*;

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
    let large = |architecture, kib: u32| {
        let launch = Launch {
            kernel: "probe_dynamic_shared",
            grid: [1, 1, 1],
            block: [32, 1, 1],
            shared_bytes: kib << 10,
            programmatic: false,
            architecture,
            arguments: vec![],
        };
        launch.run().map_err(|fault| fault.to_string())
    };
    // Within the limit, what is wrong is that it was given nothing to write to.
    let nothing = "probe_dynamic_shared: the kernel has another number of arguments";
    let too_much = |most: &str| {
        format!("probe_dynamic_shared: a block has at most {most} KiB of dynamic shared memory")
    };
    for (architecture, kib, said) in [
        (Architecture::Ampere, 163, nothing.to_owned()),
        (Architecture::Ampere, 164, too_much("163")),
        (Architecture::Hopper, 227, nothing.to_owned()),
        (Architecture::Hopper, 228, too_much("227")),
    ] {
        assert_eq!(large(architecture, kib).unwrap_err(), said);
    }
}
