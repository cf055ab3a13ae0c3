//! A small case of each family of kernels, for tools that follow every access on a GPU and take a hundred times as long
//! (`compute-sanitizer`, see `scripts/gpu-check/run`). They are cases of the other tests, which say what is compared.

/// Kernels whose threads work together through shared memory: there is something for racecheck to find.
mod shared {
    use mixgate_emulate::Architecture::Hopper;

    use crate::ops::parity::{attention, experts, quantised, route, rows, sample};
    use crate::ops::{PackedFormat, Side};

    /// Pairs of four tokens with two experts of eight each, unevenly.
    const EXPERTS: [u32; 8] = [3, 1, 3, 5, 0, 3, 7, 3];

    #[test]
    fn decode() {
        attention::case(&[(1, 37), (1, 5)], [8, 2, 128], 16).attend(&attention::seeds(2));
    }

    /// Enough keys for several splits, whose results a second kernel puts together.
    #[test]
    fn decode_and_combine() {
        attention::case(&[(1, 300)], [4, 1, 64], 16).attend(&attention::seeds(1));
    }

    #[test]
    fn prefill() {
        attention::case(&[(19, 40), (2, 2)], [4, 1, 128], 16).attend(&attention::seeds(2));
    }

    /// By one kernel, then by two.
    #[test]
    fn route_and_sort() {
        route::check_route(&[(3, 264, 8, 2), (9, 264, 8, 2)]);
        let pairs = EXPERTS.repeat(5);
        route::check_sort_by_expert(&[(pairs, 8)]);
    }

    #[test]
    fn norms() {
        rows::check_add_rms_norm(&[(2, 260)]);
        rows::check_add_experts_rms_norm(&[(2, 260, 2, &[])]);
    }

    #[test]
    fn products_in_bf16() {
        for tile in experts::tiles() {
            experts::check_linear(&[(tile, 3, 136, 200, Hopper)]);
            for side in [Side::In, Side::Out] {
                experts::check_product(tile, side, &EXPERTS, 2, [8, 24, 200], Hopper);
            }
        }
    }

    fn products_in(format: PackedFormat) {
        for tile in quantised::tiles(format) {
            quantised::check_linear(format, tile, [3, 40, 512], Hopper);
            for side in [Side::In, Side::Out] {
                quantised::check_experts(format, tile, side, &EXPERTS, 2, [8, 40, 256], Hopper);
            }
        }
    }

    #[test]
    fn products_in_w4a16() {
        products_in(PackedFormat::W4a16);
    }

    #[test]
    fn products_in_q8_0() {
        products_in(PackedFormat::Q8_0);
    }

    #[test]
    fn products_in_q4_k() {
        products_in(PackedFormat::Q4K);
    }

    #[test]
    fn products_in_fp8() {
        products_in(PackedFormat::Fp8);
    }

    #[test]
    fn choice() {
        sample::check_vocabulary(2000);
    }

    #[test]
    fn logprobs() {
        sample::check_logprobs(&[(1000, 20)]);
    }
}

/// Kernels whose threads do not meet.
mod apart {
    use crate::ops::Device;
    use crate::ops::parity::{Buffer, at, rows, sample};
    use crate::ops::test_device::TestDevice;

    #[test]
    fn embedding() {
        rows::check_embedding(&[(5, 264, &[4, 0, 4])]);
    }

    #[test]
    fn gather() {
        rows::gather_rows_matches_cpu();
    }

    #[test]
    fn rope() {
        rows::check_rope_store_kv(&[(4, 2, 64)]);
    }

    #[test]
    fn token_counts() {
        sample::count_tokens_matches_cpu();
    }

    /// No kernel of ours: blocks of the cache are copied by the device.
    #[test]
    fn copies() {
        let numbers: Vec<u32> = (0..100).collect();
        let (from, to) = (Buffer::new(&numbers), Buffer::<u32>::new(&[7; 100]));
        let device = TestDevice::default();
        device
            .copy(at(&from).offset(40), at(&to).offset(200), 120)
            .unwrap();
        let expected = [&[7; 50][..], &numbers[10..40], &[7; 20]].concat();
        assert_eq!(to.values(), expected);
    }
}
