//! What is asked: conversations of one turn or more, all different, the same for the same seed.

use rand::seq::SliceRandom;

use super::words::Words;
use super::{Calibration, Lengths, Purpose, random};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// How long prompts and answers are; with turns, each user message.
    pub lengths: Lengths,
    /// How prompts are related.
    pub shape: Shape,
}

/// How prompts are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Not at all.
    Random,
    /// Each begins with one of several prefixes; `lengths.input` comes after it.
    SharedPrefix {
        /// Tokens of the prefix.
        prefix: u32,
        /// How many prompts share one; at least 1.
        group: usize,
    },
    /// Conversations: each turn sends everything before it, the answers included.
    MultiTurn {
        /// Requests of a conversation; at least 1.
        turns: usize,
    },
}

/// Turns that follow each other; most have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) turns: Vec<Turn>,
}

/// One request of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    /// What the user says.
    pub(super) text: String,
    /// Tokens that `text` should have, the chat template included in a first turn.
    pub(super) input: u32,
    /// Most tokens of the answer.
    pub(super) max_tokens: u32,
}

impl Workload {
    /// Requests per conversation.
    pub fn turns(&self) -> usize {
        match self.shape {
            Shape::MultiTurn { turns } => turns,
            _ => 1,
        }
    }

    /// The first `count` conversations.
    pub(super) fn conversations(
        &self,
        count: usize,
        calibration: &Calibration,
        seed: u64,
    ) -> Vec<Conversation> {
        let words = Words::new();
        let mut random_words = random(seed, Purpose::Words);
        let prefixes = self.prefixes(count, &words, calibration, seed);
        let turns = self.turns();
        let lengths = self.lengths.draw(count * turns, seed);
        let mut conversations: Vec<_> = lengths
            .chunks(turns)
            .enumerate()
            .map(|(index, lengths)| {
                let turn = |place: usize, (input, max_tokens): (u32, u32)| {
                    let mut wanted = f64::from(input);
                    let mut whole = input;
                    let mut text = String::new();
                    if let Shape::SharedPrefix { prefix, group } = self.shape {
                        // The template comes before the prefix, whose words are then fewer.
                        text.push_str(&prefixes[index / group]);
                        text.push(' ');
                        whole += prefix;
                    } else if place == 0 {
                        wanted -= calibration.overhead;
                    }
                    text.push_str(&words.text(wanted, calibration, &mut random_words));
                    Turn {
                        text,
                        input: whole,
                        max_tokens,
                    }
                };
                let mut turn = turn;
                Conversation {
                    turns: lengths
                        .iter()
                        .enumerate()
                        .map(|(place, lengths)| turn(place, *lengths))
                        .collect(),
                }
            })
            .collect();
        if matches!(self.shape, Shape::SharedPrefix { .. }) {
            // Groups come mixed, as callers do: a whole group at once would flatter a cache.
            conversations.shuffle(&mut random(seed, Purpose::Order));
        }
        conversations
    }

    fn prefixes(
        &self,
        count: usize,
        words: &Words,
        calibration: &Calibration,
        seed: u64,
    ) -> Vec<String> {
        let Shape::SharedPrefix { prefix, group } = self.shape else {
            return Vec::new();
        };
        let mut random = random(seed, Purpose::Prefixes);
        let wanted = f64::from(prefix) - calibration.overhead;
        (0..count.div_ceil(group))
            .map(|_| words.text(wanted, calibration, &mut random))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::bench::load::LengthKind;

    const CALIBRATION: Calibration = Calibration {
        overhead: 10.0,
        tokens_per_word: 2.0,
    };

    fn conversations(shape: Shape, count: usize, seed: u64) -> Vec<Conversation> {
        let workload = Workload {
            lengths: Lengths {
                input: 50,
                output: 20,
                kind: LengthKind::Fixed,
            },
            shape,
        };
        workload.conversations(count, &CALIBRATION, seed)
    }

    fn num_words(text: &str) -> usize {
        text.split(' ').count()
    }

    #[test]
    fn random_prompts_differ_and_have_their_length_with_the_template() {
        let all = conversations(Shape::Random, 200, 1);
        assert_eq!(all.len(), 200);
        let texts: HashSet<&str> = all.iter().map(|one| one.turns[0].text.as_str()).collect();
        assert_eq!(texts.len(), 200);
        for one in &all {
            assert_eq!(one.turns.len(), 1);
            let turn = &one.turns[0];
            assert_eq!((turn.input, turn.max_tokens), (50, 20));
            // (50 − 10) / 2
            assert_eq!(num_words(&turn.text), 20);
        }
    }

    #[test]
    fn a_group_shares_its_prefix_and_nothing_else() {
        let shape = Shape::SharedPrefix {
            prefix: 110,
            group: 4,
        };
        let all = conversations(shape, 10, 1);
        let mut groups: HashMap<String, HashSet<String>> = HashMap::new();
        for one in &all {
            let words: Vec<&str> = one.turns[0].text.split(' ').collect();
            // (110 − 10) / 2 words of prefix, 50 / 2 of its own
            assert_eq!(words.len(), 50 + 25);
            assert_eq!(one.turns[0].input, 160);
            groups
                .entry(words[..50].join(" "))
                .or_default()
                .insert(words[50..].join(" "));
        }
        let mut sizes: Vec<usize> = groups.values().map(HashSet::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 4, 4]);
    }

    #[test]
    fn a_conversation_has_its_turns_and_one_template() {
        let all = conversations(Shape::MultiTurn { turns: 3 }, 5, 1);
        for one in &all {
            let sizes: Vec<usize> = one.turns.iter().map(|turn| num_words(&turn.text)).collect();
            assert_eq!(sizes, [20, 25, 25]);
        }
    }

    #[test]
    fn equal_seeds_ask_the_same_and_others_do_not() {
        let ask = |seed| conversations(Shape::Random, 5, seed);
        assert_eq!(ask(1), ask(1));
        assert_ne!(ask(1), ask(2));
    }
}
