//! Reads fields out of JSON, so that whatever is wrong is named by its path, what was given and what is wanted.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::server::ApiError;

/// A JSON object's members.
pub(super) type Object = Map<String, Value>;

/// A value and the path that leads to it, such as `messages[1].content`.
pub(super) struct Field<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
}

impl<'a> Field<'a> {
    /// `object[name]`; `null` counts as absent, as everywhere in OpenAI's API.
    pub(super) fn of(object: &'a Object, parent: &str, name: &str) -> Option<Self> {
        let value = object.get(name).filter(|value| !value.is_null())?;
        Some(Self {
            path: join(parent, name),
            value,
        })
    }

    pub(super) fn text(&self) -> Result<&'a str, ApiError> {
        self.value
            .as_str()
            .ok_or_else(|| self.wrong_type("a string"))
    }

    pub(super) fn flag(&self) -> Result<bool, ApiError> {
        self.value
            .as_bool()
            .ok_or_else(|| self.wrong_type("true or false"))
    }

    pub(super) fn object(&self) -> Result<&'a Object, ApiError> {
        self.value
            .as_object()
            .ok_or_else(|| self.wrong_type("an object"))
    }

    pub(super) fn list(&self) -> Result<Vec<Field<'a>>, ApiError> {
        let items = self
            .value
            .as_array()
            .ok_or_else(|| self.wrong_type("an array"))?;
        let item = |(index, value)| Field {
            path: format!("{}[{index}]", self.path),
            value,
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    pub(super) fn number(&self, range: RangeInclusive<f64>) -> Result<f64, ApiError> {
        let number = self
            .value
            .as_f64()
            .ok_or_else(|| self.wrong_type("a number"))?;
        if range.contains(&number) {
            return Ok(number);
        }
        let (least, most) = range.into_inner();
        Err(self.invalid(format_args!(
            "must be between {least} and {most}, not {number}"
        )))
    }

    /// A whole number. `16.0` is one: JSON has no integers, and some clients write it so.
    pub(super) fn whole(&self, range: RangeInclusive<i64>) -> Result<i64, ApiError> {
        let Value::Number(given) = self.value else {
            return Err(self.wrong_type("a whole number"));
        };
        let whole = match (given.as_i64(), given.as_f64()) {
            (Some(whole), _) => Some(whole),
            // Beyond 2^53 neighbours of a float are more than 1 apart; within it the cast is exact.
            (None, Some(float)) if float.fract() == 0.0 && float.abs() <= EXACT => {
                Some(float as i64)
            }
            (None, Some(float)) if float.fract() != 0.0 => {
                return Err(self.wrong_type("a whole number"));
            }
            _ => None,
        };
        if let Some(whole) = whole.filter(|whole| range.contains(whole)) {
            return Ok(whole);
        }
        let (least, most) = range.into_inner();
        let bounds = if most == i64::MAX && least > i64::MIN {
            format!("at least {least}")
        } else {
            format!("between {least} and {most}")
        };
        Err(self.invalid(format_args!("must be {bounds}, not {given}")))
    }

    /// [`Self::whole`] for counts and ids.
    pub(super) fn count(&self, least: u32, most: u32) -> Result<u32, ApiError> {
        // The range makes the cast exact.
        self.whole(i64::from(least)..=i64::from(most))
            .map(|count| count as u32)
    }

    pub(super) fn wrong_type(&self, wanted: &str) -> ApiError {
        ApiError::wrong_type(&self.path, wanted, kind_of(self.value))
    }

    pub(super) fn invalid(&self, must: impl std::fmt::Display) -> ApiError {
        ApiError::invalid_value(&self.path, must)
    }
}

/// The path of `name` below `parent`.
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// What a value is, in words.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// 2^53
const EXACT: f64 = 9_007_199_254_740_992.0;
