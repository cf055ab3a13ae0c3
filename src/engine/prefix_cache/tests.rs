use super::*;
use crate::auth::Permit;

fn seed(subject: &str, salt: Option<&str>) -> BlockHash {
    BlockHash::seed(&Permit::for_tests(subject).identity().tenant_key(), salt)
}

fn chain(prompt: &[TokenId], seed: BlockHash, public: &[&[TokenId]]) -> Chain {
    Chain::of(prompt, 2, seed, public.iter().copied())
}

#[test]
fn a_block_is_named_by_all_tokens_up_to_its_end() {
    let a = seed("a", None);
    let names = chain(&[1, 2, 3, 4, 5], a, &[]).names().to_vec();
    assert_eq!(names.len(), 2, "the fifth token fills no block");
    assert_eq!(chain(&[1, 2, 3, 4], a, &[]).names(), names);
    let other_start = chain(&[1, 9, 3, 4], a, &[]);
    assert_ne!(other_start.names()[1], names[1]);
}

#[test]
fn growing_a_chain_names_the_same_blocks_as_making_it_whole() {
    let a = seed("a", None);
    let mut grown = chain(&[1, 2], a, &[]);
    grown.push(&[3, 4]);
    assert_eq!(grown, chain(&[1, 2, 3, 4], a, &[]));
    let mut from_nothing = chain(&[], a, &[]);
    from_nothing.push(&[1, 2]);
    assert_eq!(from_nothing, chain(&[1, 2], a, &[]));
}

#[test]
fn tenants_and_salts_share_no_name() {
    let prompt = [1, 2, 3, 4];
    let seeds = [
        seed("a", None),
        seed("b", None),
        seed("a", Some("")),
        seed("a", Some("x")),
        seed("b", Some("x")),
    ];
    let mut names: Vec<BlockHash> = Vec::new();
    for seed in seeds {
        names.extend(chain(&prompt, seed, &[]).names());
    }
    for (at, name) in names.iter().enumerate() {
        assert!(!names[..at].contains(name));
    }
}

#[test]
fn only_whole_blocks_of_a_public_prefix_are_shared_by_all() {
    let public: &[&[TokenId]] = &[&[1, 2, 3, 4, 5]];
    let (a, b) = (seed("a", None), seed("b", None));
    let prompt = [1, 2, 3, 4, 5, 6, 7, 8];
    let (of_a, of_b) = (chain(&prompt, a, public), chain(&prompt, b, public));
    assert_eq!(of_a.names()[..2], of_b.names()[..2]);
    assert_ne!(of_a.names()[2], of_b.names()[2]);
    assert_ne!(of_a.names()[3], of_b.names()[3]);
    let without = chain(&prompt, a, &[]);
    assert_ne!(without.names()[0], of_a.names()[0]);
}

#[test]
fn the_longest_public_prefix_counts_and_only_if_the_prompt_begins_with_it() {
    let (a, b) = (seed("a", None), seed("b", None));
    let public: &[&[TokenId]] = &[&[1, 2], &[1, 2, 3, 4], &[1, 2, 3, 4, 9, 9]];
    let prompt = [1, 2, 3, 4, 5, 6];
    let (of_a, of_b) = (chain(&prompt, a, public), chain(&prompt, b, public));
    assert_eq!(of_a.names()[..2], of_b.names()[..2]);
    assert_ne!(of_a.names()[2], of_b.names()[2]);
}

#[test]
fn a_chain_that_grows_beyond_its_public_part_becomes_private() {
    let public: &[&[TokenId]] = &[&[1, 2]];
    let (mut of_a, mut of_b) = (
        chain(&[1, 2], seed("a", None), public),
        chain(&[1, 2], seed("b", None), public),
    );
    assert_eq!(of_a.names(), of_b.names());
    of_a.push(&[3, 4]);
    of_b.push(&[3, 4]);
    assert_ne!(of_a.names()[1], of_b.names()[1]);
}

#[test]
fn of_two_equal_blocks_the_older_is_found_and_eviction_forgets_it() {
    let mut cache = PrefixCache::new(4);
    let name = chain(&[1, 2], seed("a", None), &[]).names()[0];
    cache.insert(name, BlockId(3));
    cache.insert(name, BlockId(1));
    assert_eq!(cache.find(&name), Some(BlockId(3)));
    assert!(!cache.holds(BlockId(1)));
    cache.evict(BlockId(1));
    assert_eq!((cache.len(), cache.evictions()), (1, 0));
    cache.evict(BlockId(3));
    assert_eq!(cache.find(&name), None);
    assert_eq!((cache.len(), cache.evictions()), (0, 1));
    assert!(cache.is_consistent());
}
