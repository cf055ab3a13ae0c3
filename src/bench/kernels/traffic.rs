//! What every kernel moves, as the emulation counts it, against `kernels/traffic.txt`: a kernel may not come to need more
//! sectors of global memory or more passes over the banks of shared memory unseen.

use std::collections::BTreeMap;

use mixgate_emulate::{Architecture, Moved, Traffic};

use super::Shape;
use super::cases::{self, Kernel, Layer};
use super::pool::Pool;
use super::tests::least;
use crate::ops::emulated::Emulated;

/// As wide as an emulation can bear, with the heads of Mixtral 8x7B: every tile of every storage has work.
fn shape() -> Shape {
    Shape {
        hidden: 256,
        intermediate: 256,
        heads: 4,
        kv_heads: 1,
        head_dim: 128,
        vocab: 1000,
        experts: 4,
        top_k: 2,
        block_size: 16,
        contexts: vec![40, 300],
        least_prompt: 20,
        cached: 100,
        most_chunk: 1024,
        most_logit_rows: 20,
        least_library_rows: 1 << 20,
    }
}

/// Enough for the largest tiles: 100 rows of each expert.
const MANY: usize = 200;

const HEADER: &str = "\
# What each kernel moves in the emulation, in the kernels' bench at a small model's shapes. Of global memory: sectors of 32 bytes
# that the requests of its warps touch, and how many times as many that is as would do without gaps. Of shared memory: passes
# over its banks, and how many times as many as would do without conflicts (what wgmma reads is not counted). Then thousands of
# multiply-adds on tensor cores. Checked by `cargo test --release --lib traffic`, which writes it with MIXGATE_WRITE_DOCS=1.
#
";

/// Compilers differ by a few accesses.
const SLACK: f64 = 1.02;

const COLUMNS: [&str; 6] = [
    "kernel",
    "global reads",
    "global writes",
    "shared reads",
    "shared writes",
    "products",
];

/// Passes, and the least number of them.
type Ways = [(u64, u64); 4];

fn ways(traffic: &Traffic) -> Ways {
    let of = |moved: Moved| (moved.passes, moved.least);
    [
        of(traffic.global_reads),
        of(traffic.global_writes),
        of(traffic.shared_reads),
        of(traffic.shared_writes),
    ]
}

fn line(cells: [&str; 6]) -> String {
    let [name, rest @ ..] = cells;
    let padded = rest.map(|cell| format!("  {cell:<16}")).concat();
    format!("{name:<28}{padded}").trim_end().to_owned() + "\n"
}

fn table(traffic: &BTreeMap<&'static str, Traffic>) -> String {
    let mut table = HEADER.to_owned() + &line(COLUMNS);
    for (kernel, traffic) in traffic {
        let cells = ways(traffic).map(|(passes, least)| match passes {
            0 => "none".to_owned(),
            _ => format!("{passes} ×{:.2}", passes as f64 / least as f64),
        });
        let [a, b, c, d] = &cells;
        table += &line([kernel, a, b, c, d, &(traffic.products / 1000).to_string()]);
    }
    table
}

/// What a line of the table allows.
fn allowed(text: &str) -> BTreeMap<&str, [u64; 4]> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    let of = |line: &'_ str| -> Option<[u64; 4]> {
        let mut numbers = line.split("  ").map(str::trim).filter(|it| !it.is_empty());
        numbers.next()?;
        let mut next = || match numbers.next()?.split(' ').next()? {
            "none" => Some(0),
            passes => passes.parse().ok(),
        };
        Some([next()?, next()?, next()?, next()?])
    };
    lines
        .map(|line| {
            let name = line.split(' ').next().unwrap();
            (name, of(line).unwrap_or_else(|| panic!("{line}")))
        })
        .collect()
}

/// Runs a kernel's bench once, on one set of tensors.
fn run(device: &Emulated, kernel: Kernel, rows: usize) {
    let effort = least();
    let mut pool = Pool::new(device, &effort);
    let case = kernel.prepare(&mut pool, &shape(), rows).unwrap();
    let mut work = case.sets[0].iter();
    work.try_for_each(|it| it.on(device)).unwrap();
}

fn traffic() -> BTreeMap<&'static str, Traffic> {
    let hopper = Emulated::counting(Architecture::Hopper);
    let ampere = Emulated::counting(Architecture::Ampere);
    for kernel in cases::all(&shape()) {
        let rows: &[usize] = match kernel {
            Kernel::Decode(_) => &[1, 6],
            // One tile of each size; Hopper has no use for the largest of Ampere's.
            Kernel::Experts(_) | Kernel::Linear(Layer::Qkv, None) => &[1, 20, 100, MANY],
            // Quantised ones are experts_out.
            Kernel::Linear(..) | Kernel::Library(_) => continue,
            _ => &[1, 20, 150],
        };
        for &rows in rows.iter().filter(|&&rows| kernel.takes(&shape(), rows)) {
            run(&hopper, kernel, rows);
            if rows == MANY {
                run(&ampere, kernel, rows);
            }
        }
    }
    // Of kernels that both have, Hopper's.
    let mut traffic = ampere.traffic();
    traffic.extend(hopper.traffic());
    traffic
}

#[test]
fn no_kernel_moves_more_than_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/traffic.txt");
    let traffic = traffic();
    if std::env::var_os("MIXGATE_WRITE_DOCS").is_some() {
        std::fs::write(path, table(&traffic)).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let allowed = allowed(&text);
    let names: Vec<&str> = allowed.keys().copied().collect();
    assert_eq!(names, traffic.keys().copied().collect::<Vec<_>>());
    for (kernel, traffic) in &traffic {
        for (way, ((passes, _), &most)) in COLUMNS[1..]
            .iter()
            .zip(ways(traffic).into_iter().zip(&allowed[kernel]))
        {
            assert!(
                passes as f64 <= SLACK * most as f64,
                "{kernel}: {way} take {passes} sectors or passes where {most} did; if they must, write kernels/traffic.txt anew"
            );
        }
    }
}
