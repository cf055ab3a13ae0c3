//! Values of the policy file that may be written in more than one way.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::auth::{Expiry, Per, WhenShort};

/// A value or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OneOrMany(pub Vec<String>);

/// The most of something, or that there is no most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cap {
    /// This many; its range depends on what it is.
    Most(u64),
    /// As if nothing below stated one.
    Unlimited,
}

/// How much a limit allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Amount {
    /// The same for each bearer.
    Fixed(u64),
    /// As if nothing below stated this limit.
    Unlimited,
    /// What the caller's own claim says, within bounds.
    Claimed(Claimed),
}

/// An amount that a claim names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Claimed {
    /// The claim, by name or by path.
    pub claim: String,
    /// Never more than this, whatever the claim says.
    pub at_most: u64,
    /// For callers without the claim, or with one that is no whole number.
    pub otherwise: u64,
}

/// [`Expiry`] as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpiryWord(pub Expiry);

/// [`WhenShort`] as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ShortWord {
    /// It runs as far as the budget goes.
    Clamp,
    /// It is refused.
    Refuse,
}

impl From<ShortWord> for WhenShort {
    fn from(word: ShortWord) -> Self {
        match word {
            ShortWord::Clamp => Self::Clamp,
            ShortWord::Refuse => Self::Refuse,
        }
    }
}

/// [`Per`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PerWord(pub Per);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(OneOrMany(all))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Most;
        impl Visitor<'_> for Most {
            type Value = Cap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or \"unlimited\"")
            }

            fn visit_u64<E: Error>(self, most: u64) -> Result<Cap, E> {
                Ok(Cap::Most(most))
            }

            fn visit_i64<E: Error>(self, most: i64) -> Result<Cap, E> {
                whole(most, &self).map(Cap::Most)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Cap, E> {
                match text {
                    UNLIMITED => Ok(Cap::Unlimited),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Most)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Much;
        impl<'de> Visitor<'de> for Much {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a whole number, \"unlimited\" or { claim = …, at_most = …, otherwise = … }",
                )
            }

            fn visit_u64<E: Error>(self, most: u64) -> Result<Amount, E> {
                Ok(Amount::Fixed(most))
            }

            fn visit_i64<E: Error>(self, most: i64) -> Result<Amount, E> {
                whole(most, &self).map(Amount::Fixed)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
                match text {
                    UNLIMITED => Ok(Amount::Unlimited),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Amount, A::Error> {
                Claimed::deserialize(MapAccessDeserializer::new(map)).map(Amount::Claimed)
            }
        }
        deserializer.deserialize_any(Much)
    }
}

impl<'de> Deserialize<'de> for ExpiryWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ends;
        impl<'de> Visitor<'de> for Ends {
            type Value = ExpiryWord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"finish\", \"cut\" or { grace = \"30s\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ExpiryWord, E> {
                match text {
                    "finish" => Ok(ExpiryWord(Expiry::Finish)),
                    "cut" => Ok(ExpiryWord(Expiry::Cut)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ExpiryWord, A::Error> {
                let Grace { grace } = Grace::deserialize(MapAccessDeserializer::new(map))?;
                let period = period(&grace)
                    .ok_or_else(|| A::Error::invalid_value(Unexpected::Str(&grace), &PERIOD))?;
                Ok(ExpiryWord(Expiry::Grace(period)))
            }
        }
        deserializer.deserialize_any(Ends)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grace {
    grace: String,
}

impl<'de> Deserialize<'de> for PerWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let per = match &*text {
            "subject" => Per::Subject,
            "tenant" => Per::Tenant,
            "client" => Per::Client,
            other => match other.strip_prefix("claim:") {
                Some(name) if !name.is_empty() && name != "/" => Per::Claim(name.into()),
                _ => return Err(D::Error::invalid_value(Unexpected::Str(&text), &PER)),
            },
        };
        Ok(Self(per))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(most) => most.fmt(f),
            Self::Unlimited => f.write_str(UNLIMITED),
            Self::Claimed(claimed) => write!(
                f,
                "the claim {}, at most {}, otherwise {}",
                claimed.claim, claimed.at_most, claimed.otherwise
            ),
        }
    }
}

/// TOML's numbers are signed.
fn whole<E: Error>(number: i64, wanted: &dyn serde::de::Expected) -> Result<u64, E> {
    u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), wanted))
}

/// A number of seconds, minutes or hours, such as `30s`: up to a day.
fn period(text: &str) -> Option<Duration> {
    let (number, seconds) = [("s", 1), ("m", 60), ("h", 3600)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (is_number && (1..=DAY).contains(&seconds)).then(|| Duration::from_secs(seconds))
}

macro_rules! schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(OneOrMany, "OneOrMany", {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
});
schema!(Cap, "Cap", {
    "anyOf": [{"type": "integer", "minimum": 1}, {"const": "unlimited"}]
});
schema!(ExpiryWord, "Expiry", {
    "anyOf": [
        {"enum": ["finish", "cut"]},
        {
            "type": "object",
            "properties": {"grace": {"type": "string", "pattern": "^[0-9]+[smh]$"}},
            "required": ["grace"],
            "additionalProperties": false
        }
    ]
});
schema!(PerWord, "Per", {
    "anyOf": [{"enum": ["subject", "tenant", "client"]}, {"type": "string", "pattern": "^claim:."}]
});

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let claimed = generator.subschema_for::<Claimed>();
        json_schema!({
            "anyOf": [{"type": "integer", "minimum": 1}, {"const": "unlimited"}, claimed]
        })
    }
}

pub(super) const UNLIMITED: &str = "unlimited";
const PERIOD: &str = "a time such as 30s, 5m or 1h, at most a day";
const PER: &str = "subject, tenant, client or claim:NAME";
const DAY: u64 = 24 * 3600;
