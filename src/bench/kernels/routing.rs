//! Which tokens go to which experts: evenly, in an order that looks random and never changes.

use super::pool::shuffled;

/// Pairs (token, rank), sorted by expert as [`crate::ops::sort_by_expert`] does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pairs {
    /// `[num_tokens * top_k]`: pairs `token * top_k + rank`, expert by expert
    pub order: Vec<u32>,
    /// `[num_experts + 1]`
    pub offsets: Vec<u32>,
}

impl Pairs {
    /// Spreads tokens over experts. As many tokens as have all experts between them get a shuffled deck of experts: no
    /// token has one twice, and experts differ by one row at most where `top_k` divides their number.
    pub fn spread(num_tokens: usize, num_experts: usize, top_k: usize) -> Self {
        let decks = num_tokens.div_ceil(num_experts / top_k);
        let experts: Vec<u32> = (0..decks as u32)
            .flat_map(|deck| {
                let mut cards = shuffled(num_experts, deck);
                cards.truncate(num_experts / top_k * top_k);
                cards
            })
            .take(num_tokens * top_k)
            .collect();
        let mut order: Vec<u32> = (0..experts.len() as u32).collect();
        order.sort_by_key(|&pair| experts[pair as usize]);
        let before = |expert: usize| experts.iter().filter(|&&it| (it as usize) < expert).count();
        let offsets = (0..=num_experts).map(|expert| before(expert) as u32);
        Self {
            offsets: offsets.collect(),
            order,
        }
    }

    /// Experts that have any rows: their weights must be read.
    pub fn num_busy(&self) -> usize {
        self.offsets.windows(2).filter(|it| it[0] < it[1]).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_spread_evenly_and_no_token_has_an_expert_twice() {
        for (tokens, busy) in [(1, 2), (2, 4), (3, 6), (4, 8), (100, 8)] {
            let pairs = Pairs::spread(tokens, 8, 2);
            assert_eq!(pairs.num_busy(), busy);
            assert_eq!(pairs.offsets[8] as usize, 2 * tokens);
            let rows = pairs.offsets.windows(2).map(|it| it[1] - it[0]);
            assert!(rows.clone().max().unwrap() - rows.min().unwrap() <= 1);
            let mut seen = pairs.order.clone();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..2 * tokens as u32));
            for expert in pairs.offsets.windows(2) {
                let its = &pairs.order[expert[0] as usize..expert[1] as usize];
                assert!(its.is_sorted());
                assert!(its.windows(2).all(|two| two[0] / 2 != two[1] / 2));
            }
        }
    }
}
