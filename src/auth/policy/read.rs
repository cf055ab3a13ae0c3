//! From text to [`PolicyFile`], with everything that is wrong with its form: not only the first fault.

use serde::Deserialize;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

use super::fault::{Faults, did_you_mean};
use super::file::PolicyFile;

/// What `text` says, less what is wrong with it: that is told to `faults`.
pub(super) fn read(text: &str, faults: &mut Faults<'_>) -> PolicyFile {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            faults.add(offset, one_line(error.message()), None);
        }
        return PolicyFile::default();
    }
    // Each round finds one fault and takes out what is at fault, until the rest is well-formed.
    loop {
        let error = match PolicyFile::deserialize(Deserializer::from(table.clone())) {
            Ok(file) => return file,
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let key = take_out(table.get_mut(), &span);
        tell(faults, span.start, key.as_deref(), &error);
        if key.is_none() {
            return PolicyFile::default();
        }
    }
}

/// Turns serde's words into ours.
fn tell(faults: &mut Faults<'_>, offset: usize, key: Option<&str>, error: &Error) {
    let message = one_line(error.message());
    // unknown field `given`, expected one of `a`, `b`; the same of a variant
    let mut words = message.split('`').skip(1).step_by(2);
    let what = if message.starts_with("unknown field") {
        "key"
    } else if message.starts_with("unknown variant") {
        "value"
    } else {
        let message = match key {
            Some(key) => format!("`{key}`: {message}"),
            None => message,
        };
        return faults.add(offset, message, None);
    };
    let given = words.next().unwrap_or_default();
    let known: Vec<&str> = words.collect();
    let hint = did_you_mean(given, known.iter().copied())
        .unwrap_or_else(|| format!("known are {}", known.join(", ")));
    faults.add(offset, format!("unknown {what} `{given}`"), Some(hint));
}

/// Removes what has this span, else the smallest value around it. Returns the key under which it stood; `None` if there
/// is nothing.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    take_exactly(table, span).or_else(|| take_around(table, span))
}

fn take_exactly(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    take(table, &|found| found == span)
}

fn take_around(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    take(table, &|found| {
        found.start <= span.start && span.end <= found.end
    })
}

/// Removes the innermost entry whose key or value has a span that `is_it`.
fn take(table: &mut DeTable<'_>, is_it: &dyn Fn(&Range<usize>) -> bool) -> Option<String> {
    for (key, value) in table.iter_mut() {
        if let Some(taken) = take_inside(value, key.get_ref(), is_it) {
            return Some(taken);
        }
    }
    let mut entries = table.iter();
    let (key, _) = entries.find(|(key, value)| is_it(&key.span()) || is_it(&value.span()))?;
    let key = key.clone();
    table.remove(&key);
    Some(key.into_inner().into_owned())
}

fn take_inside<'a>(
    value: &mut Spanned<DeValue<'a>>,
    key: &str,
    is_it: &dyn Fn(&Range<usize>) -> bool,
) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => take(table, is_it),
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                if let Some(taken) = take_inside(item, key, is_it) {
                    return Some(taken);
                }
            }
            let before = items.len();
            let mut taken = false;
            let kept = std::mem::replace(items, DeArray::new())
                .into_iter()
                .filter(|item| {
                    let is_it = !taken && is_it(&item.span());
                    taken |= is_it;
                    !is_it
                });
            *items = kept.collect();
            (items.len() < before).then(|| key.to_owned())
        }
        _ => None,
    }
}

fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or("not TOML").to_owned()
}
