//! The policy file's schema, and its page of documentation, both from the types of [`super::file`].

use std::fmt::Write;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::file::PolicyFile;

/// A policy to start from, each line explained.
pub const EXAMPLE: &str = include_str!("../../../docs/policy.example.toml");

/// The JSON schema of a policy file, pretty-printed.
pub fn schema() -> String {
    serde_json::to_string_pretty(&whole()).unwrap_or_default() + "\n"
}

/// The page about the policy file, in Markdown.
pub fn reference() -> String {
    let schema = whole();
    let mut page = String::from(INTRODUCTION);
    let example = EXAMPLE.trim_end();
    let _ = write!(page, "```toml\n{example}\n```\n\n# Reference\n");
    let none = Value::Null;
    let definition = |name: &str| schema["$defs"].get(name).unwrap_or(&none);
    for (heading, table) in [
        ("The file", &schema),
        ("`[addresses]`", definition("Addresses")),
        ("`[[rules]]`", definition("Rule")),
        ("`[rules.when]`", definition("When")),
        ("`[[rules.limits]]`", definition("Limits")),
        ("An amount from a claim", definition("Claimed")),
    ] {
        let about = table["description"].as_str().unwrap_or_default();
        let _ = write!(page, "\n## {heading}\n\n{about}\n\n{HEAD}");
        for (name, field) in table["properties"].as_object().into_iter().flatten() {
            let default = field["x-default"].as_str().unwrap_or("required");
            let about = field["description"].as_str().unwrap_or_default();
            let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
            let kind = kind(field, &schema);
            let _ = writeln!(page, "| `{name}` | {kind} | {default} | {about} |");
        }
    }
    page + COMMANDS
}

fn whole() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<PolicyFile>().to_value();
    without_null(&mut schema);
    schema
}

/// TOML has no null: what is optional is left out.
fn without_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(object) => {
            object.values_mut().for_each(without_null);
            if let Some(Value::Array(kinds)) = object.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = &mut **kinds {
                    let only = only.take();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [Value::Object(only)] = &mut **choices {
                    let only: Map<String, Value> = std::mem::take(only);
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
            // Defaults of types are nulls and empty tables; `x-default` has them in words.
            object.remove("default");
        }
        _ => {}
    }
}

/// The kind of a value, in words.
fn kind(field: &Value, schema: &Value) -> String {
    if let Some(reference) = field["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        let definition = &schema["$defs"][name];
        return match name {
            "Claimed" => "an amount from a claim".to_owned(),
            _ => kind(definition, schema),
        };
    }
    for choices in ["anyOf", "oneOf"] {
        if let Some(choices) = field[choices].as_array() {
            let words: Vec<String> = choices.iter().map(|it| kind(it, schema)).collect();
            return words.join(" or ");
        }
    }
    if let Some(values) = field["enum"].as_array() {
        let words: Vec<String> = values.iter().map(code).collect();
        return words.join(" or ");
    }
    if !field["const"].is_null() {
        return code(&field["const"]);
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", plural(&kind(&field["items"], schema))),
        Some("object") => "table".to_owned(),
        Some(kind) => kind.to_owned(),
        None => "any".to_owned(),
    }
}

fn plural(kind: &str) -> String {
    match kind {
        "string" | "table" | "integer" => format!("{kind}s"),
        other => other.to_owned(),
    }
}

fn code(value: &Value) -> String {
    format!("`{value}`")
}

const HEAD: &str = "| key | type | default | what it is |\n|---|---|---|---|\n";

const INTRODUCTION: &str = r#"# Policy

A policy says who may do what, and how much of it. It is one file, named by the setting `policy_file`; a relative path is
meant from the configuration's folder. Without it, everybody with a good token may do what its scopes say.

1. Rules are read from top to bottom. A rule matches a caller if all its conditions hold; without conditions it matches
   everybody. Every rule that matches counts.
2. Each right comes from the first matching rule that states it. A specific rule above a general one overrides it, right
   by right.
3. A limit is named by what it measures and for whom (`per`), and comes from the first matching rule that states that
   pair. `"unlimited"` frees from what the rules below state.
4. A matching rule with `deny = true` refuses the caller, wherever it stands.
5. Whom no rule matches is refused. A right that no matching rule states has its default.
6. An empty list is none, never all.
7. Nothing in a request changes any of this, except that it may ask for less.

"#;

const COMMANDS: &str = r#"
# Trying it

`mixgate policy check` says what is wrong with the file, all of it, each with its line. `mixgate policy explain --token -`
reads a token and prints which rule gave or refused what; `--claims FILE` does so for claims that nobody has signed.
`mixgate policy schema` prints the JSON schema (`docs/policy.schema.json`), for editors.

# Changing it

The server reads the file anew when it changes and at `SIGHUP`, and puts it in force whole. A file with a fault leaves
the old policy in force: the log says what is wrong, `mixgate_policy_last_reload_success` is 0, and
`mixgate_policy_reloads_total{outcome="refused"}` counts it. Requests under way keep the rights that they came with.
"#;
