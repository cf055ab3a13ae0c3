//! Products of all kinds in all tiles: the same bits in each, and nothing for pairs that no expert has.

use mixgate_emulate::Architecture::Hopper;

use super::experts::{check_product, tiles};
use super::quantised::{self, check_experts, random_blocks};
use super::{Buffer, at, narrow_floats, narrowed, run};
use crate::ops::experts::grouped_linear_launch_with;
use crate::ops::linear::linear_launch_with;
use crate::ops::quantised::launch::{Tile as QuantisedTile, quantised_experts_launch_with};
use crate::ops::tile::Tile;
use crate::ops::{GroupedLinear, GroupedSizes, Launch, Packed, PackedFormat, Side};

/// What multiplies, and how its weights are stored.
#[derive(Debug, Clone, Copy)]
enum Product {
    Bf16(Tile),
    Quantised(PackedFormat, QuantisedTile),
}

impl Product {
    /// The same random weights in every tile: `[experts, n, k]`.
    fn weights(self, [experts, n, k]: [usize; 3]) -> Buffer<u8> {
        match self {
            Self::Bf16(_) => {
                let weights = narrow_floats(41, experts * n * k);
                Buffer::new(bytemuck::cast_slice(&super::bits(&weights)))
            }
            Self::Quantised(format, _) => {
                let blocks = random_blocks(format, [experts, n, k]);
                Buffer::new(&Packed::new(&blocks).unwrap().bytes)
            }
        }
    }

    fn launch(self, tensors: GroupedLinear, side: Side, sizes: GroupedSizes) -> Launch {
        match self {
            Self::Bf16(tile) => grouped_linear_launch_with(tile, tensors, side, sizes),
            Self::Quantised(format, tile) => {
                quantised_experts_launch_with(tile, format, tensors, side, sizes)
            }
        }
    }

    /// The results' bits, sorted row by sorted row. `None` is a pair that goes to no expert: it is not in the order, whose
    /// end nobody has written, and nothing is written for it.
    fn rows(
        self,
        side: Side,
        x: &[f32],
        experts_of: &[Option<u32>],
        top_k: usize,
        [experts, n, k]: [usize; 3],
    ) -> Vec<Vec<u32>> {
        let pairs = experts_of.len();
        let mut order: Vec<u32> = (0..pairs as u32)
            .filter(|&pair| experts_of[pair as usize].is_some())
            .collect();
        order.sort_by_key(|&pair| experts_of[pair as usize]);
        let before = |end: u32| experts_of.iter().flatten().filter(|&&it| it < end).count() as u32;
        let offsets: Vec<u32> = (0..=experts as u32).map(before).collect();
        let order_at = Buffer::<u32>::poisoned(pairs);
        order_at.write(0, &order);
        let (x_at, w_at, offsets_at) = (
            narrowed(x),
            self.weights([experts, n, k]),
            Buffer::new(&offsets),
        );
        let (sorted, by_pair) = (
            Buffer::<u16>::poisoned(pairs * n / 2),
            Buffer::<u32>::poisoned(pairs * n),
        );
        let tensors = GroupedLinear {
            x: at(&x_at),
            w: at(&w_at),
            order: at(&order_at),
            offsets: at(&offsets_at),
            y: match side {
                Side::In => at(&sorted),
                Side::Out => at(&by_pair),
            },
        };
        let sizes = GroupedSizes {
            num_pairs: pairs as u32,
            n: n as u32,
            k: k as u32,
            num_experts: experts as u32,
            top_k: top_k as u32,
        };
        let untouched = by_pair.raw_values();
        run(self.launch(tensors, side, sizes));
        for pair in (0..pairs).filter(|&pair| experts_of[pair].is_none()) {
            let its = pair * n..(pair + 1) * n;
            assert_eq!(by_pair.raw_values()[its.clone()], untouched[its]);
        }
        let row = |(place, &pair): (usize, &u32)| match side {
            Side::In => {
                let its = sorted.read(place * n / 2..(place + 1) * n / 2);
                its.into_iter().map(u32::from).collect()
            }
            Side::Out => by_pair.read(pair as usize * n..(pair as usize + 1) * n),
        };
        order.iter().enumerate().map(row).collect()
    }
}

#[test]
fn everybody_on_one_expert_in_the_largest_tiles_and_in_the_narrowest() {
    // One row more than a block, and more columns than a strip.
    let crowd = [2u32; 130];
    let few = [1u32; 38];
    for side in [Side::In, Side::Out] {
        for tile in tiles().filter(|tile| tile.rows() == 128) {
            check_product(tile, side, &crowd, 2, [4, 40, 72], Hopper);
        }
        for format in PackedFormat::ALL {
            let check = |tile, experts: &[u32], sizes| {
                check_experts(format, tile, side, experts, 2, sizes, Hopper);
            };
            for tile in quantised::tiles(format).filter(|tile| tile.rows() == 128) {
                check(tile, &crowd, [4, 40, 256]);
            }
            check(QuantisedTile::Rows16Columns32, &few, [3, 40, 256]);
        }
    }
}

#[test]
fn a_single_token_goes_into_quantised_experts() {
    for format in PackedFormat::ALL {
        for tile in [QuantisedTile::Rows16Columns32, QuantisedTile::Rows16] {
            check_experts(format, tile, Side::In, &[6, 2], 2, [8, 136, 256], Hopper);
            check_experts(format, tile, Side::In, &[5], 1, [8, 8, 512], Hopper);
        }
    }
}

#[test]
fn an_output_of_experts_has_the_same_bits_in_every_tile_and_alone() {
    let (top_k, sizes) = (2, [3, 72, 200]);
    let experts_of: Vec<Option<u32>> = (0..140).map(|pair| Some(pair * pair % 7 % 3)).collect();
    let bf16: Vec<Product> = tiles().map(Product::Bf16).collect();
    for side in [Side::In, Side::Out] {
        let x = narrow_floats(42, experts_of.len() * sizes[2]);
        let all = bf16[0].rows(side, &x, &experts_of, top_k, sizes);
        for &product in &bf16 {
            let rows = product.rows(side, &x, &experts_of, top_k, sizes);
            assert_eq!(rows, all, "{product:?} {side:?}");
        }
        // The first pair, of the first expert, in no company.
        let alone = [experts_of[0]];
        for &product in &bf16 {
            let rows = product.rows(side, &x, &alone, 1, sizes);
            assert_eq!(rows[0], all[0], "{product:?} {side:?}");
        }
    }
}

#[test]
fn an_output_of_a_plain_product_has_the_same_bits_in_every_tile_and_alone() {
    let (m, n, k) = (131, 72, 200);
    let (x, w) = (
        narrow_floats(43, m * k),
        narrowed(&narrow_floats(44, n * k)),
    );
    let product = |tile, x: &[f32]| {
        let (m, x) = (x.len() / k, narrowed(x));
        let y = Buffer::<u32>::poisoned(m * n);
        let tensors = [at(&x), at(&w), at(&y)];
        let sizes = [m, n, k].map(|size| size as u32);
        run(linear_launch_with(tile, tensors, sizes));
        y.values()
    };
    let all = product(Tile::Rows16, &x);
    for tile in tiles() {
        assert_eq!(product(tile, &x), all, "{tile:?}");
        let last = product(tile, &x[(m - 1) * k..]);
        assert_eq!(last, all[(m - 1) * n..], "{tile:?}");
    }
}

/// Tokens that only fill the batch: in the middle, at the end, all but one, all.
#[test]
fn pairs_that_go_nowhere_change_nothing_for_others() {
    let (top_k, sizes, tokens) = (2, [4, 40, 256], 20);
    let bf16 = tiles().map(Product::Bf16);
    let quantised = quantised::tiles(PackedFormat::W4a16)
        .map(|tile| Product::Quantised(PackedFormat::W4a16, tile));
    let x = narrow_floats(45, tokens * top_k * sizes[2]);
    let expert = |pair: usize| Some((pair * pair % 7 % 4) as u32);
    let fillers: [fn(usize) -> bool; 4] = [
        |token| token % 5 == 2,
        |token| token >= 17,
        |token| token != 11,
        |_| true,
    ];
    for product in bf16.chain(quantised) {
        for side in [Side::In, Side::Out] {
            for fills in fillers {
                let of_token = |pair: usize| {
                    if fills(pair / top_k) {
                        None
                    } else {
                        expert(pair)
                    }
                };
                let among: Vec<Option<u32>> = (0..tokens * top_k).map(of_token).collect();
                let real: Vec<Option<u32>> =
                    among.iter().filter(|it| it.is_some()).copied().collect();
                // Tokens go in, sorted rows come out of the first product.
                let rows = x.chunks(sizes[2]).enumerate();
                let few: Vec<f32> = match side {
                    Side::In => rows
                        .filter(|(token, _)| *token < tokens && !fills(*token))
                        .flat_map(|(_, row)| row.to_vec())
                        .collect(),
                    Side::Out => x[..real.len() * sizes[2]].to_vec(),
                };
                let given = product.rows(side, &x, &among, top_k, sizes);
                let wanted = match real.is_empty() {
                    true => Vec::new(),
                    false => product.rows(side, &few, &real, top_k, sizes),
                };
                assert_eq!(given, wanted, "{product:?} {side:?}");
            }
        }
    }
}
