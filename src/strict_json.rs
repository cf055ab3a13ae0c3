//! JSON without its traps: every name unique at every depth, bounded nesting, finite numbers.
//!
//! serde_json alone keeps the last of two equal names. Two parsers that disagree on which one counts are how a token
//! or a request means one thing to whoever stands in front and another thing here, so such a document means nothing.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses `bytes` as one JSON object and nothing after it.
///
/// # Errors
/// A sentence on what is wrong, with a place or a name, never with a value.
pub(crate) fn object(bytes: &[u8], max_depth: usize) -> Result<Map<String, Value>, String> {
    match value(bytes, max_depth)? {
        Value::Object(members) => Ok(members),
        _ => Err("the top level is not an object".to_owned()),
    }
}

/// Parses `bytes` as one JSON value and nothing after it, nested at most `max_depth` deep.
///
/// # Errors
/// A sentence on what is wrong, with a place or a name, never with a value.
pub(crate) fn value(bytes: &[u8], max_depth: usize) -> Result<Value, String> {
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let strict = Strict {
        max_depth,
        depth_left: max_depth,
    };
    let value = strict
        .deserialize(&mut parser)
        .map_err(|error| error.to_string())?;
    parser.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// Builds a [`Value`], refusing repeated names and deep nesting.
#[derive(Clone, Copy)]
struct Strict {
    max_depth: usize,
    depth_left: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => Err(E::custom(format_args!(
                "nested deeper than {} levels",
                self.max_depth
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                let name: String = name.chars().take(MAX_SHOWN).collect();
                return Err(A::Error::custom(format_args!(
                    "the name {name:?} occurs twice in one object"
                )));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Characters of a name in an error.
const MAX_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Value, String> {
        value(text.as_bytes(), 4)
    }

    #[test]
    fn a_document_means_what_serde_json_says_it_means() {
        let text = r#"{"b":[1,-2,3.5,true,null,"\u00e9\n"],"a":{"c":{}}}"#;
        assert_eq!(
            parse(text).unwrap(),
            json!({"b": [1, -2, 3.5, true, null, "é\n"], "a": {"c": {}}})
        );
    }

    #[test]
    fn a_repeated_name_is_refused_at_any_depth_however_it_is_spelled() {
        let twice = |text| parse(text).unwrap_err().contains("occurs twice");
        assert!(twice(r#"{"a":1,"b":2,"a":1}"#));
        assert!(twice(r#"[{"x":{"k":1,"\u006b":2}}]"#));
    }

    #[test]
    fn nesting_ends_where_it_was_told_to_and_before_the_stack_does() {
        assert!(parse("[[[[]]]]").is_ok());
        let error = parse("[[[[[]]]]]").unwrap_err();
        assert!(error.starts_with("nested deeper than 4 levels"), "{error}");
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(value(deep.as_bytes(), usize::MAX).is_err());
    }

    #[test]
    fn only_an_object_alone_is_an_object() {
        assert!(object(b"{}", 1).is_ok());
        assert!(object(b"[]", 1).is_err());
        assert!(object(b"{} {}", 1).is_err());
    }
}
