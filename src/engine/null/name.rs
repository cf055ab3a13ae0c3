//! The names of null models: `mixtral-8x7b`, or `mixtral-8x7b@a100-w4a16` with a card and a precision.

use std::error::Error;
use std::fmt;

use super::catalogue::{Card, Precision, Shape};

/// Which model a null model stands for, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NullName {
    /// The model whose context, and perhaps whose pace, it has.
    pub shape: Shape,
    /// What it pretends to run on; `None` answers at once.
    pub on: Option<(Card, Precision)>,
}

impl NullName {
    /// Reads a name, without the prefix that says that it is one.
    ///
    /// # Errors
    /// [`NullNameError`] with the names that exist.
    pub fn parse(text: &str) -> Result<Self, NullNameError> {
        let (shape, place) = match text.split_once('@') {
            Some((shape, place)) => (shape, Some(place)),
            None => (text, None),
        };
        let shape = find("shape", shape, Shape::ALL, Shape::name)?;
        let on = match place {
            None => None,
            Some(place) => {
                // A card's name may have a dash, a precision's has none.
                let (card, precision) = place.rsplit_once('-').ok_or(NullNameError::NoDash)?;
                Some((
                    find("device", card, Card::ALL, Card::name)?,
                    find("precision", precision, Precision::ALL, Precision::name)?,
                ))
            }
        };
        Ok(Self { shape, on })
    }

    /// Tokens whose keys and values fit the card beside the weights, in bf16; `None` if nothing limits them.
    ///
    /// # Errors
    /// [`NullCardError`] if the card cannot hold or multiply such weights.
    pub fn kv_cache_tokens(&self) -> Result<Option<usize>, NullCardError> {
        let Some((card, precision)) = self.on else {
            return Ok(None);
        };
        if lacks_fp8(card, precision) {
            return Err(NullCardError::NoFp8 { card });
        }
        match room(self.shape, card, precision) {
            0 => Err(NullCardError::TooLarge {
                card,
                needed: precision.resident_bytes(&self.shape.sizes()),
                fits: that_fit(self.shape, card, precision),
                source: WeightsOf {
                    shape: self.shape,
                    precision,
                },
            }),
            tokens => Ok(Some(tokens)),
        }
    }
}

impl fmt::Display for NullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shape.name())?;
        match self.on {
            None => Ok(()),
            Some((card, precision)) => write!(f, "@{}-{}", card.name(), precision.name()),
        }
    }
}

/// Places that keep the card or the precision, and fit.
fn that_fit(shape: Shape, card: Card, precision: Precision) -> Vec<(Card, Precision)> {
    let same_card = Precision::ALL.map(|other| (card, other));
    let same_precision = Card::ALL.map(|other| (other, precision));
    same_card
        .into_iter()
        .chain(same_precision)
        .filter(|&(card, precision)| {
            !lacks_fp8(card, precision) && room(shape, card, precision) > 0
        })
        .collect()
}

fn lacks_fp8(card: Card, precision: Precision) -> bool {
    precision.is_fp8_product() && card.datasheet().fp8_flops.is_none()
}

/// Tokens of keys and values beside the weights; 0 if the weights alone do not fit.
fn room(shape: Shape, card: Card, precision: Precision) -> usize {
    let sizes = shape.sizes();
    let free = card
        .usable_memory()
        .saturating_sub(precision.resident_bytes(&sizes));
    (free / sizes.kv_bytes_per_token()) as usize
}

fn find<T: Copy, const N: usize>(
    what: &'static str,
    given: &str,
    all: [T; N],
    name: impl Fn(T) -> &'static str,
) -> Result<T, NullNameError> {
    all.into_iter()
        .find(|&one| name(one) == given)
        .ok_or_else(|| NullNameError::Unknown {
            what,
            given: given.to_owned(),
            known: all.map(name).join(", "),
        })
}

/// Why a text names no null model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NullNameError {
    /// A part that is none of those that exist.
    #[error("there is no {what} {given:?}; there are {known}")]
    Unknown {
        /// Shape, device or precision.
        what: &'static str,
        /// What was written.
        given: String,
        /// What could have been.
        known: String,
    },
    /// Something after `@` that is not two names.
    #[error("after @ stand a device and a precision, such as a100-w4a16")]
    NoDash,
}

/// Why a card cannot run a model, not even in pretence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NullCardError {
    /// The weights leave no room for a token's keys and values.
    #[error(
        "the weights need {:.1} GiB, {} has {:.1} GiB for weights and cache",
        gib(*needed),
        card.title(),
        gib(card.usable_memory())
    )]
    TooLarge {
        /// The card.
        card: Card,
        /// Bytes of the weights.
        needed: u64,
        /// What would fit instead.
        fits: Vec<(Card, Precision)>,
        /// Why so many.
        source: WeightsOf,
    },
    /// A precision that the card has no arithmetic for.
    #[error("{} has no fp8 arithmetic", card.title())]
    NoFp8 {
        /// The card.
        card: Card,
    },
}

impl NullCardError {
    /// The next step, for the last line of the message.
    pub fn hint(&self) -> String {
        match self {
            Self::NoFp8 { card } => format!("int8 is as small: write {}-int8", card.name()),
            Self::TooLarge { fits, .. } if fits.is_empty() => {
                "no card of the list holds it in any precision near this one".to_owned()
            }
            Self::TooLarge { fits, .. } => {
                let places: Vec<String> = fits
                    .iter()
                    .map(|(card, precision)| format!("{}-{}", card.name(), precision.name()))
                    .collect();
                format!("these fit: {}", places.join(", "))
            }
        }
    }
}

/// How large a model's weights are, as a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightsOf {
    shape: Shape,
    precision: Precision,
}

impl fmt::Display for WeightsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.shape.sizes();
        let parameters = sizes.num_parameters() as f64;
        write!(
            f,
            "{} is {:.1} B parameters × {:.2} bytes ({})",
            self.shape.name(),
            parameters / 1e9,
            self.precision.resident_bytes(&sizes) as f64 / parameters,
            self.precision.name()
        )
    }
}

impl Error for WeightsOf {}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests;
