//! The policy file as it is written. Its doc comments are the words of `docs/policy.md` and of the JSON schema.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::value::{Amount, Cap, ExpiryWord, OneOrMany, PerWord, ShortWord};
use crate::auth::Priority;

/// Who may do what, and how much of it. `mixgate policy check` judges it, `mixgate policy explain` tries it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Mixgate policy")]
pub(super) struct PolicyFile {
    /// From which addresses anybody may call at all. Asked before a credential is looked at.
    #[schemars(extend("x-default" = "every address"))]
    pub addresses: Addresses,
    /// Who may do what. A caller whom no rule matches is refused.
    #[schemars(extend("x-default" = "required"))]
    pub rules: Vec<At<RuleFile>>,
}

/// From which addresses anybody may call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Addresses {
    /// Networks such as `10.0.0.0/8`, or single addresses: only callers from these are heard. An empty list is nobody.
    #[schemars(extend("x-default" = "every address"))]
    pub allow: Option<Vec<At<String>>>,
    /// Networks or addresses whose callers are refused, whatever `allow` says.
    #[schemars(extend("x-default" = "none"))]
    pub deny: Vec<At<String>>,
}

/// One rule: whom it matches, and what they may do. What it does not state, the rules below may.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Rule")]
pub(super) struct RuleFile {
    /// What it is called in explanations and logs. No two rules share a name.
    #[schemars(extend("x-default" = "required"))]
    pub name: Option<At<String>>,
    /// Whom it matches: all conditions must hold. Without conditions it matches everybody.
    #[schemars(extend("x-default" = "everybody"))]
    pub when: Option<When>,
    /// Refuses whom it matches, whatever other rules say, above or below.
    #[schemars(extend("x-default" = "false"))]
    pub deny: Option<At<bool>>,
    /// Models that may be named; an entry may end in `*`. An empty list is none.
    #[schemars(extend("x-default" = "all"))]
    pub models: Option<At<Vec<At<String>>>>,
    /// Routes that may be used, by name (`mixgate routes` lists them), beside what the token's scopes allow; `*` is all.
    /// An empty list is none.
    #[schemars(extend("x-default" = "all"))]
    pub routes: Option<At<Vec<At<String>>>>,
    /// Scopes of the token that count; others are as good as absent. A policy adds no scopes. `*` is all of the token's.
    /// An empty list is none.
    #[schemars(extend("x-default" = "all of the token's"))]
    pub scopes: Option<At<Vec<At<String>>>>,
    /// Most tokens of one completion. A request that asks for more is refused; one that names no number gets at most
    /// this.
    #[schemars(extend("x-default" = "unlimited"))]
    pub max_tokens: Option<At<Cap>>,
    /// Most tokens of prompt and completion together.
    #[schemars(extend("x-default" = "the model's"))]
    pub max_context: Option<At<Cap>>,
    /// Most completions of one request.
    #[schemars(extend("x-default" = "unlimited"))]
    pub max_n: Option<At<Cap>>,
    /// Most seconds from a request's arrival to its end, at most 86400; then it ends with `deadline_exceeded`.
    #[schemars(extend("x-default" = "unlimited"))]
    pub max_request_seconds: Option<At<Cap>>,
    /// Whether requests may bring tools.
    #[schemars(extend("x-default" = "true"))]
    pub tools: Option<At<bool>>,
    /// Whether prompts share the operator's public prefixes with other tenants.
    #[schemars(extend("x-default" = "true"))]
    pub public_prefixes: Option<At<bool>>,
    /// Fields of a chat request that may not be used. An empty list is none.
    #[schemars(extend("x-default" = "none"))]
    pub denied_fields: Option<At<Vec<At<String>>>>,
    /// Which requests go first; who waits long enough rises.
    #[schemars(extend("x-default" = "normal"))]
    pub priority: Option<At<Priority>>,
    /// Tokens for each token of a caller of weight 1 while both wait, 1 to 1000.
    #[schemars(extend("x-default" = "1"))]
    pub weight: Option<At<u64>>,
    /// Headers to add to every response to the caller.
    #[schemars(extend("x-default" = "none"))]
    pub response_headers: Option<At<BTreeMap<String, At<String>>>>,
    /// What happens to a running request when its credential expires: it may `finish`, is `cut`, or has a `grace` such
    /// as `{ grace = "30s" }`.
    #[schemars(extend("x-default" = "finish"))]
    pub on_expiry: Option<At<ExpiryWord>>,
    /// What happens to a request that a budget covers in part: it runs as far as that goes (`clamp`), or is refused.
    #[schemars(extend("x-default" = "clamp"))]
    pub when_short: Option<At<ShortWord>>,
    /// What is counted, and against whom. Each pair of measure and `per` is a limit of its own.
    #[schemars(extend("x-default" = "no limit"))]
    pub limits: Option<At<Vec<At<LimitsFile>>>>,
}

/// Conditions of a rule. Each takes one value or several, any of which will do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct When {
    /// The token's issuer, exactly.
    #[schemars(extend("x-default" = "any"))]
    pub issuer: Option<At<OneOrMany>>,
    /// The subject; it may end in `*`.
    #[schemars(extend("x-default" = "any"))]
    pub subject: Option<At<OneOrMany>>,
    /// The tenant, as the issuer's `tenant_claim` says; it may end in `*`.
    #[schemars(extend("x-default" = "any"))]
    pub tenant: Option<At<OneOrMany>>,
    /// The application that asked for the token; it may end in `*`.
    #[schemars(extend("x-default" = "any"))]
    pub client: Option<At<OneOrMany>>,
    /// A scope that the token carries.
    #[schemars(extend("x-default" = "any"))]
    pub scope: Option<At<OneOrMany>>,
    /// How the caller proved who it is: `token`, `api_key` or `certificate`.
    #[schemars(extend("x-default" = "any"))]
    pub credential: Option<At<OneOrMany>>,
    /// Claims by name, or by path if the name starts with a slash: `{ "/realm_access/roles" = ["a", "b"] }`. A claim
    /// meets a value if it is that string, number or boolean, or a list that holds it.
    #[schemars(extend("x-default" = "any"))]
    pub claims: BTreeMap<String, At<OneOrMany>>,
    /// Networks such as `10.0.0.0/8`, or single addresses.
    #[schemars(extend("x-default" = "any"))]
    pub addresses: Option<At<OneOrMany>>,
}

/// Limits of one kind of bearer.
///
/// An amount is a number, `"unlimited"` (which frees from what rules below state), or comes from a claim:
/// `{ claim = "/tpm", at_most = 60000, otherwise = 1000 }`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
pub(super) struct LimitsFile {
    /// Whose use is counted together: each `subject`, each `tenant`, each `client`, or each value of a claim, such as
    /// `claim:/dept`.
    #[schemars(extend("x-default" = "subject"))]
    pub per: Option<At<PerWord>>,
    /// Requests admitted; a bucket that refills over a minute.
    #[schemars(extend("x-default" = "no limit"))]
    pub requests_per_minute: Option<At<Amount>>,
    /// Prompt and completion tokens; a bucket that refills over a minute.
    #[schemars(extend("x-default" = "no limit"))]
    pub tokens_per_minute: Option<At<Amount>>,
    /// Sequences that wait or run at the same time.
    #[schemars(extend("x-default" = "no limit"))]
    pub concurrent_sequences: Option<At<Amount>>,
    /// Prompt and completion tokens of one UTC day.
    #[schemars(extend("x-default" = "no limit"))]
    pub tokens_per_day: Option<At<Amount>>,
    /// Prompt and completion tokens of one UTC month.
    #[schemars(extend("x-default" = "no limit"))]
    pub tokens_per_month: Option<At<Amount>>,
}

/// A value, and where in the file it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub value: T,
    /// Byte offset of its start.
    pub offset: usize,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let offset = spanned.span().start;
        let value = spanned.into_inner();
        Ok(Self { value, offset })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
