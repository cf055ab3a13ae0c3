use super::*;
use crate::ops::test_device::TestDevice;

/// Small, and yet of a shape that every kernel and every storage has.
fn small() -> Shape {
    Shape {
        hidden: 256,
        intermediate: 256,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 64,
        experts: 4,
        top_k: 2,
        block_size: 16,
        contexts: vec![40, 136],
        least_prompt: 3,
        cached: 37,
        most_chunk: 1024,
        most_logit_rows: 2,
        least_library_rows: 2,
    }
}

pub(super) fn least() -> Effort {
    Effort {
        copy_bytes: 1 << 16,
        matrix_width: 64,
        cold_bytes: 1,
        most_sets: 256,
        graph_time: Duration::ZERO,
        replays: 1,
        room: u64::MAX,
    }
}

fn rows_of(rows: &[usize], effort: &Effort) -> (Ceilings, Vec<Row>, Vec<String>) {
    let (mut ceilings, mut measured, mut skipped) = (None, Vec::new(), Vec::new());
    let wanted = Wanted {
        rows: rows.to_vec(),
        only: Vec::new(),
    };
    let device = TestDevice::default();
    measure(&device, Ok(&device), &small(), &wanted, effort, |heard| {
        match heard {
            Heard::Ceilings(known) => ceilings = Some(known),
            Heard::Row(row) => measured.push(row),
            Heard::Skipped { name, .. } => skipped.push(name),
        }
        Ok(())
    })
    .unwrap();
    (ceilings.unwrap(), measured, skipped)
}

/// The emulated device judges every access of every launch: to read what was not filled would fail here.
#[test]
fn every_kernel_is_measured_with_the_bytes_and_operations_that_it_needs() {
    let (ceilings, measured, skipped) = rows_of(&[1, 2, 3], &least());
    assert!(ceilings.copy_gb_per_s > 0.0 && ceilings.bf16_tflop_per_s > 0.0);
    assert!(ceilings.library_tflop_per_s.unwrap() > 0.0);
    assert_eq!((ceilings.library_missing, ceilings.datasheet), (None, None));
    assert_eq!(skipped, [""; 0]);
    for row in &measured {
        assert!(row.us > 0.0 && row.percent > 0.0, "{row:?}");
        let gigabytes = row.gb_per_s * row.us * 1e3;
        assert!((gigabytes / row.cost.bytes as f64 - 1.0).abs() < 1e-9);
    }
    let cost = |name: &str, rows: usize| {
        let found = measured
            .iter()
            .find(|it| it.name == name && it.rows == rows);
        let row = found.unwrap_or_else(|| panic!("{name} {rows} is missing"));
        (row.cost.bytes, row.cost.flops)
    };
    // By hand: 3 rows × 256 × (4 + 4 + 4 + 2) bytes, and 256 weights of 4.
    assert_eq!(cost("add_rms_norm", 3), (10_752 + 1024, 0));
    // 3 × (an id of 4, 512 of weights, 1,024 written, 1,024 zeros).
    assert_eq!(cost("embedding", 3), (3 * 2564, 0));
    // 3 × (512 wide × (4 + 2), 32 cosines and 32 sines of 4, 8 of position and slot).
    assert_eq!(cost("rope_store_kv", 3), (3 * (3072 + 256 + 8), 0));
    // (3 rows + 4 gates) × 512; 6 pairs × 16; 5 offsets. 3 × 256 × 4 products.
    assert_eq!(cost("route + sort_by_expert", 3), (3584 + 96 + 20, 6144));
    assert_eq!(
        cost("add_experts_rms_norm", 3),
        (6 * 1028 + 3 * 2560 + 1024, 0)
    );
    // Weights 512 × 256 × 2, rows 3 × 512, results 3 × 512 × 4.
    let flops = 2 * 3 * 512 * 256;
    assert_eq!(cost("linear qkv bf16", 3), (262_144 + 1536 + 6144, flops));
    // 512 / 32 strips × 2 steps × 2,112 bytes in place of the bf16 weights.
    assert_eq!(cost("linear qkv w4a16", 3), (67_584 + 1536 + 6144, flops));
    // One token has two of the four experts: 2 × (512 × 256 + 256 × 256) × 2 bytes of weights; a row of 512 bytes; for each
    // of 2 pairs 512 written, 512 read and 1,024 written; twice 2 + 5 indices.
    let weights = 2 * 196_608 * 2;
    let flops = 2 * 2 * 196_608;
    assert_eq!(
        cost("experts in + out bf16", 1),
        (weights + 512 + 2 * 2048 + 56, flops)
    );
    // Three tokens have all four.
    assert_eq!(
        cost("experts in + out bf16", 3),
        (4 * 393_216 + 3 * 512 + 6 * 2048 + 88, 3 * flops)
    );
    // 17/16 bytes per weight: 4,352 for each 32 × 128.
    assert_eq!(
        cost("experts in + out q8_0", 1),
        (2 * 196_608 * 17 / 16 + 512 + 2 * 2048 + 56, flops)
    );
    // 3 sequences × 136 keys and values × 128 wide × 2 bytes; queries and results 3 × 256 × 2; 27 blocks, 3 + 4 starts,
    // 3 lengths. 4 × 3 × 136 × 256 operations.
    assert_eq!(cost("paged decode 136", 3), (208_896 + 3072 + 148, 417_792));
    // 3 keys and values; 1 block, 1 + 2 starts, 1 length. 1 + 2 + 3 pairs of row and key.
    for name in ["paged prefill", "paged prefill by warps"] {
        assert_eq!(cost(name, 3), (1536 + 3072 + 20, 4 * 6 * 256));
    }
    // A chunk of 3 on 37: 40 keys and values × 128 × 2 bytes × 2; 3 blocks, 3 starts, 1 length.
    // 3 × 37 + 6 pairs.
    assert_eq!(
        cost("paged prefill on cached", 3),
        (20_480 + 3072 + 28, 4 * 117 * 256)
    );
    // 64 logits of 4, 16 words, an id; a table of 64 counts and one of them written; 2 words of mask.
    for (choice, more) in [
        ("greedy", 0),
        ("top-k", 0),
        ("top-p", 0),
        ("min-p", 0),
        ("penalties", 260),
        ("mask", 8),
    ] {
        let name = format!("sample {choice}");
        assert_eq!(cost(&name, 2), (2 * (256 + 64 + 4 + more), 0));
    }
    // The same but for the id of 4 and its log-probability, and 20 × 8.
    assert_eq!(cost("logprobs", 2), (2 * (256 + 64 + 4 + 4 + 160), 0));
    // Sequences of 40 tokens: 160 bytes, 3 places, a table's number, 64 counts.
    assert_eq!(cost("count_tokens", 2), (2 * (160 + 12 + 4 + 256), 0));
    // An index of 4, 512 read, 512 written.
    assert_eq!(cost("gather_rows", 2), (2 * 1028, 0));
    // Formats of the same 512 × 256 weights, per 32 rows × 128 columns: 4,352 (q8_0) and 4,160 (fp8) bytes; per 32 rows × 256
    // columns 4,736 (q4_k). Then as above.
    for (format, weights) in [
        ("q8_0", 16 * 2 * 4352),
        ("fp8", 16 * 2 * 4160),
        ("q4_k", 16 * 4736),
    ] {
        let flops = 2 * 3 * 512 * 256;
        let name = format!("linear qkv {format}");
        assert_eq!(cost(&name, 3), (weights + 1536 + 6144, flops));
    }
    assert_eq!(cost("linear qkv cublaslt", 3), cost("linear qkv bf16", 3));

    let has = |name: &str, rows| measured.iter().any(|it| it.name == name && it.rows == rows);
    assert!(has("linear lm_head bf16", 2) && !has("linear lm_head bf16", 3));
    assert!(!has("paged prefill", 2) && !has("linear o cublaslt", 1));
    let names = names(&small());
    assert_eq!(names.len(), 42);
    assert!(
        names
            .iter()
            .all(|name| measured.iter().any(|row| row.name == *name))
    );
}

#[test]
fn only_what_is_wanted_is_measured_and_a_missing_library_is_said() {
    let device = TestDevice::default();
    let wanted = Wanted {
        rows: vec![2],
        only: vec!["route".to_owned(), "o cublaslt".to_owned()],
    };
    let (mut ceilings, mut names) = (None, Vec::new());
    let missing = Err("it is not installed".to_owned());
    measure(&device, missing, &small(), &wanted, &least(), |heard| {
        match heard {
            Heard::Ceilings(known) => ceilings = Some(known),
            Heard::Row(row) => names.push(row.name),
            Heard::Skipped { name, .. } => panic!("{name}"),
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(names, ["route + sort_by_expert"]);
    let ceilings = ceilings.unwrap();
    assert_eq!(ceilings.library_missing.unwrap(), "it is not installed");
    assert_eq!(ceilings.compute_ceiling, By::Own);
}

#[test]
fn the_faster_product_is_the_ceiling() {
    let ceilings = |library| Ceilings::new(1.0, 300.0, library, None);
    let fast = ceilings(Ok(700.0));
    assert_eq!(
        (fast.tflop_per_s(), fast.compute_ceiling),
        (700.0, By::Library)
    );
    let slow = ceilings(Ok(200.0));
    assert_eq!((slow.tflop_per_s(), slow.compute_ceiling), (300.0, By::Own));
    assert_eq!(ceilings(Err(String::new())).tflop_per_s(), 300.0);
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let effort = Effort {
        room: 800_000,
        ..least()
    };
    let (_, measured, skipped) = rows_of(&[1], &effort);
    // Two sets of four experts in bf16 are 3.1 MB; in w4a16 they are 811 kB.
    assert!(skipped.contains(&"experts in + out bf16".to_owned()));
    assert!(skipped.contains(&"experts in + out w4a16".to_owned()));
    assert!(measured.iter().any(|row| row.name == "add_rms_norm"));
    assert!(measured.iter().all(|row| !row.name.contains("experts in")));
}

#[test]
fn sets_take_turns_until_the_first_has_left_the_caches() {
    let device = TestDevice::default();
    let sets = |cold_bytes, most_sets| {
        let effort = Effort {
            cold_bytes,
            most_sets,
            ..least()
        };
        let mut pool = Pool::new(&device, &effort);
        let cost = Cost {
            bytes: 1000,
            flops: 0,
        };
        let case = pool
            .case(cost, |_, _| Ok(Vec::<pool::Work>::new()))
            .unwrap();
        case.sets.len()
    };
    assert_eq!([sets(1, 9), sets(4001, 9), sets(100_000, 9)], [2, 5, 9]);
}

#[test]
fn the_nearer_ceiling_bounds_a_row() {
    let sheet = crate::bench::datasheet::Datasheet {
        gb_per_s: 4000.0,
        bf16_tflop_per_s: 1000.0,
    };
    let ceilings = Ceilings::new(2000.0, 300.0, Ok(500.0), Some(sheet));
    let row = |bytes, flops| {
        let cost = Cost { bytes, flops };
        Row::new(
            "it".to_owned(),
            1,
            Duration::from_micros(10),
            cost,
            &ceilings,
        )
    };
    // 10 MB take 5 µs of 10 at 2 TB/s; 1 GFLOP takes 2 µs at 500 TFLOP/s, 4 GFLOP 8 µs.
    let (slow, fast) = (
        row(10_000_000, 4_000_000_000),
        row(10_000_000, 1_000_000_000),
    );
    assert_eq!((slow.bound, fast.bound), (Bound::Compute, Bound::Memory));
    assert!((slow.percent - 80.0).abs() < 1e-9 && (fast.percent - 50.0).abs() < 1e-9);
    assert!((slow.percent_of_datasheet.unwrap() - 40.0).abs() < 1e-9);
    assert!((fast.gb_per_s - 1000.0).abs() < 1e-6 && (fast.tflop_per_s - 100.0).abs() < 1e-6);
}
