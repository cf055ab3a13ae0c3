//! Text of a wanted number of tokens, for a server whose tokenizer is not known.
//!
//! Words are drawn evenly from one short list, so that a text's tokens are, on average, its words times what the whole
//! list costs per word; that is measured once ([`Calibration`]).

use rand::Rng;

use super::Calibration;

/// Makes texts.
#[derive(Debug, Clone)]
pub(super) struct Words {
    list: Vec<&'static str>,
}

impl Words {
    pub(super) fn new() -> Self {
        Self {
            list: LIST.split_whitespace().collect(),
        }
    }

    /// The first `count` words of the list, each once: what a calibration sends.
    pub(super) fn sample(&self, count: usize) -> String {
        self.list[..count.min(self.list.len())].join(" ")
    }

    /// How many words the list has.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// A text of about `tokens` tokens, of at least one word.
    pub(super) fn text(
        &self,
        tokens: f64,
        calibration: &Calibration,
        random: &mut impl Rng,
    ) -> String {
        let count = (tokens / calibration.tokens_per_word).round().max(1.0) as usize;
        let mut text = String::with_capacity(count * 8);
        for place in 0..count {
            if place > 0 {
                text.push(' ');
            }
            text.push_str(self.list[random.random_range(0..self.list.len())]);
        }
        text
    }
}

/// 256 plain English words: lower case, no word the beginning of a chat marker.
const LIST: &str = "\
able about above across action after again air all almost along also always among animal answer apple area arm \
around art autumn baby back ball bank barn base basket bean bear because become bed before begin behind below best \
better between big bird black blood blue board boat body bone book both bottom box boy branch bread break bridge \
bright bring brother brown build bus busy butter call camp car care carry cat catch cause center chair chance change \
chart check child circle city class clean clear clock close cloud coast cold color come common cook cool copy corn \
corner cotton count country course cover cow cross crowd cup cut dance dark day deep deer desk dinner dish dog door \
down draw dream dress drink drive drop dry duck dust each early earth east easy edge egg eight empty end enough \
equal even evening every exact eye face fact fall family farm fast father fear feed feel fence field fight fill film \
final find fine finger fire first fish five flat floor flow flower fly fog follow food foot forest form forward four \
fox free fresh friend front fruit full game garden gate gather gentle girl give glass goat gold good grain grand \
grass gray great green ground group grow guess hair half hall hand happy hard harvest hat head hear heart heat heavy \
help hill history hold hole home honey hope horse hot hour house hundred hungry ice idea inch insect iron island \
jacket job join journey jump keep key kind king kitchen lake lamp";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::bench::load::{Purpose, random};

    fn calibration(tokens_per_word: f64) -> Calibration {
        Calibration {
            overhead: 0.0,
            tokens_per_word,
        }
    }

    #[test]
    fn the_list_has_256_different_words() {
        let words = Words::new();
        assert_eq!(words.len(), 256);
        assert_eq!(words.list.iter().collect::<HashSet<_>>().len(), 256);
        assert_eq!(words.sample(2), "able about");
    }

    #[test]
    fn a_text_has_as_many_words_as_the_tokens_cost() {
        let words = Words::new();
        let mut random = random(1, Purpose::Words);
        let mut count = |tokens, per_word| {
            let text = words.text(tokens, &calibration(per_word), &mut random);
            text.split(' ').count()
        };
        assert_eq!(count(100.0, 1.25), 80);
        assert_eq!(count(100.0, 2.0), 50);
        assert_eq!(count(-5.0, 2.0), 1);
    }
}
