use super::*;
use crate::engine::prefix_cache::Chain;

#[test]
fn a_table_grows_by_whole_blocks_and_only_when_a_token_needs_one() {
    let mut blocks = BlockManager::new(4, 3);
    let mut table = Vec::new();
    for (tokens, expected) in [(1, 1), (3, 1), (4, 2), (6, 2), (12, 4)] {
        assert!(blocks.grow(&mut table, tokens));
        assert_eq!((table.len(), blocks.num_used()), (expected, expected));
    }
    assert_eq!(blocks.check([&table[..]]), Ok(()));
}

#[test]
fn growing_past_the_cache_changes_nothing() {
    let mut blocks = BlockManager::new(2, 4);
    let mut table = Vec::new();
    assert!(blocks.grow(&mut table, 4));
    assert!(!blocks.grow(&mut table, 13));
    assert_eq!((table.len(), blocks.num_free()), (1, 1));
}

#[test]
fn a_shared_block_is_free_only_after_its_last_holder_let_go() {
    let mut blocks = BlockManager::new(2, 1);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    assert!(blocks.grow(&mut one, 2));
    blocks.share(one[0], &mut other);
    blocks.release(&mut one);
    assert_eq!(blocks.num_used(), 1);
    assert_eq!(blocks.check([&other[..]]), Ok(()));
    blocks.release(&mut other);
    assert_eq!(blocks.num_used(), 0);
    assert_eq!(blocks.check([]), Ok(()));
}

#[test]
fn the_check_names_a_leaked_block() {
    let mut blocks = BlockManager::new(2, 1);
    let mut leaked = Vec::new();
    assert!(blocks.grow(&mut leaked, 1));
    assert_eq!(
        blocks.check([]),
        Err(Inconsistent::References {
            block: leaked[0],
            counted: 1,
            held: 0
        })
    );
}

#[test]
#[should_panic(expected = "This is a bug.")]
fn releasing_a_block_twice_is_caught() {
    let mut blocks = BlockManager::new(1, 1);
    let mut table = Vec::new();
    assert!(blocks.grow(&mut table, 1));
    let mut copy = table.clone();
    blocks.release(&mut table);
    blocks.release(&mut copy);
}

/// Names of a chain of `len` blocks.
fn names(len: u32) -> Vec<BlockHash> {
    let seed = BlockHash::seed(
        &crate::auth::Permit::for_tests("a").identity().tenant_key(),
        None,
    );
    let tokens: Vec<u32> = (0..len).collect();
    Chain::of(&tokens, 1, seed, []).names().to_vec()
}

/// A table of as many blocks as `names`, each published.
fn published(blocks: &mut BlockManager, names: &[BlockHash]) -> Vec<BlockId> {
    let mut table = Vec::new();
    assert!(blocks.grow(&mut table, names.len()));
    for (&block, &name) in table.iter().zip(names) {
        blocks.publish(block, name);
    }
    table
}

#[test]
fn released_blocks_are_found_again_until_their_memory_is_needed() {
    let mut blocks = BlockManager::new(4, 1);
    let names = names(3);
    let mut table = published(&mut blocks, &names);
    let before = table.clone();
    blocks.release(&mut table);
    assert_eq!(blocks.num_used(), 0);
    let found = blocks.find(&names);
    assert_eq!((found.blocks, found.unheld), (3, 3));
    blocks.adopt(&names, &mut table);
    assert_eq!(table, before);
    assert_eq!(blocks.num_used(), 3);
    assert_eq!(blocks.find(&names).unheld, 0);
    assert_eq!(blocks.check([&table[..]]), Ok(()));
}

#[test]
fn what_nobody_can_find_is_used_first_then_the_end_of_the_oldest_chain() {
    let mut blocks = BlockManager::new(4, 1);
    let names = names(3);
    let mut table = published(&mut blocks, &names);
    let chain = table.clone();
    let mut plain = Vec::new();
    assert!(blocks.grow(&mut plain, 1));
    let nameless = plain[0];
    blocks.release(&mut table);
    blocks.release(&mut plain);
    let mut taken = Vec::new();
    for _ in 0..3 {
        let tokens = taken.len() + 1;
        assert!(blocks.grow(&mut taken, tokens));
    }
    assert_eq!(taken, [nameless, chain[2], chain[1]]);
    assert_eq!(blocks.find(&names).blocks, 1);
    assert_eq!(blocks.evictions(), 2);
    assert_eq!(blocks.check([&taken[..]]), Ok(()));
}

#[test]
fn using_a_chain_again_makes_it_the_last_to_go() {
    let mut blocks = BlockManager::new(4, 1);
    let names = names(4);
    let (old, new) = (&names[..2], &names[2..]);
    let mut first = published(&mut blocks, old);
    let mut second = published(&mut blocks, new);
    blocks.release(&mut first);
    blocks.release(&mut second);
    blocks.adopt(old, &mut first);
    blocks.release(&mut first);
    let mut taken = Vec::new();
    assert!(blocks.grow(&mut taken, 2));
    assert_eq!((blocks.find(old).blocks, blocks.find(new).blocks), (2, 0));
}
