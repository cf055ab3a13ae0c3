//! What one caller may do, and the questions that a request asks of it.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::denied::{Denied, Reason, quoted};
use crate::auth::limits::Limit;
use crate::auth::token::claims::list;
use crate::auth::{Access, Identity, Share};

/// What one caller may do now, from the rules in force when the request came. Immutable; a request keeps the rights
/// that it came with, whatever is reloaded meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Rights {
    /// Weight, priority and longest time.
    pub share: Share,
    /// Models that may be named; `None` for all. An entry may end in `*`.
    pub models: Option<Arc<[Box<str>]>>,
    /// Routes that may be used, by name; `None` for all.
    pub routes: Option<Arc<[Box<str>]>>,
    /// Scopes of the credential that count; `None` for all.
    pub scopes: Option<Arc<[Box<str>]>>,
    /// Most `max_tokens` of one completion; also what a request without `max_tokens` gets at most.
    pub max_tokens: Option<u32>,
    /// Most tokens of prompt and completion together.
    pub max_context: Option<u32>,
    /// Most completions of one request.
    pub max_n: Option<u32>,
    /// Whether requests may bring tools.
    pub tools: bool,
    /// Whether its prompts share the operator's public prefixes with other tenants.
    pub public_prefixes: bool,
    /// Request fields that may not be used at all.
    pub denied_fields: Arc<[Box<str>]>,
    /// What counts against whom. Empty: no limit.
    pub limits: Arc<[Limit]>,
    /// What happens to a request whose explicit `max_tokens` a budget does not cover.
    pub when_short: WhenShort,
    /// What happens to a running request whose credential expires.
    pub on_expiry: Expiry,
    /// Headers to add to every response to this caller: lower-case name, value.
    pub response_headers: Arc<[(Box<str>, Box<str>)]>,
    /// The names of the rules that matched, from top to bottom. Empty: there is no policy.
    pub rules: Arc<[Arc<str>]>,
}

impl Default for Rights {
    /// Everything, without limit.
    fn default() -> Self {
        Self {
            share: Share::default(),
            models: None,
            routes: None,
            scopes: None,
            max_tokens: None,
            max_context: None,
            max_n: None,
            tools: true,
            public_prefixes: true,
            denied_fields: Arc::default(),
            limits: Arc::default(),
            when_short: WhenShort::Clamp,
            on_expiry: Expiry::Finish,
            response_headers: Arc::default(),
            rules: Arc::default(),
        }
    }
}

impl Rights {
    /// Whether `model` may be named. Asked before whether it exists.
    pub fn allows_model(&self, model: &str) -> bool {
        let allowed = self.models.as_deref();
        allowed.is_none_or(|allowed| allowed.iter().any(|pattern| fits(pattern, model)))
    }

    /// Refuses a model that may not be named, whether or not it exists.
    ///
    /// # Errors
    /// 403 `model_not_allowed`.
    pub fn check_model(&self, model: &str) -> Result<(), Denied> {
        if self.allows_model(model) {
            return Ok(());
        }
        let allowed = list(self.models.as_deref().unwrap_or_default());
        let detail = format!("the model is {}, allowed is {allowed}", quoted(model));
        Err(Denied::new(Reason::ModelNotAllowed, detail))
    }

    /// Refuses a number in a request that is above what this caller may have.
    ///
    /// # Errors
    /// 400 `parameter_not_allowed`, naming the field and the most.
    pub fn check_most(param: &'static str, asked: usize, most: Option<u32>) -> Result<(), Denied> {
        match most {
            Some(most) if asked > most as usize => {
                let most = Some(u64::from(most));
                let detail = format!("`{param}` is {asked}");
                Err(Denied::new(
                    Reason::ParameterNotAllowed { param, most },
                    detail,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a field that this caller may not use; to be asked only of fields that ask for something. Those that
    /// bring tools fall under [`Rights::tools`] too, and two names of one thing are one field.
    ///
    /// # Errors
    /// 400 `parameter_not_allowed`, naming the field.
    pub fn check_field(&self, param: &'static str) -> Result<(), Denied> {
        let both = |field: &str| [field, param].iter().all(|name| MAX_TOKENS.contains(name));
        let is_denied = self
            .denied_fields
            .iter()
            .any(|field| **field == *param || both(field));
        if is_denied || !self.tools && TOOL_FIELDS.contains(&param) {
            let reason = Reason::ParameterNotAllowed { param, most: None };
            return Err(Denied::new(
                reason,
                format!("`{param}` is not allowed here"),
            ));
        }
        Ok(())
    }

    /// Whether `identity` has `scope` and it counts: for what a route shows beyond what it asks for.
    pub fn has_scope(&self, identity: &Identity, scope: &str) -> bool {
        identity.has_scope(scope) && counts(&self.scopes, scope)
    }

    /// Refuses a route that `identity` may not use, by its scopes or by the policy.
    ///
    /// # Errors
    /// 403 `insufficient_scope` if the credential lacks the scope, 403 `access_denied` if the policy is in the way.
    pub fn check_route(
        &self,
        identity: &Identity,
        access: Access,
        route: &str,
    ) -> Result<(), Denied> {
        let scope = match access {
            Access::Public => return Ok(()),
            Access::Verified => None,
            Access::Scope(scope) => Some(scope),
        };
        if let Some(scope) = scope.filter(|scope| !identity.has_scope(scope)) {
            let held: Vec<&str> = identity.scopes().collect();
            let detail = format!(
                "the scope {} is needed, the token has {}",
                quoted(scope),
                list(&held)
            );
            return Err(Denied::new(Reason::InsufficientScope(scope), detail));
        }
        let refuse = |detail: String| Err(Denied::new(Reason::RouteNotAllowed, detail));
        match scope {
            Some(scope) if !counts(&self.scopes, scope) => {
                refuse(format!("the policy does not let the scope `{scope}` count"))
            }
            _ if !counts(&self.routes, route) => {
                refuse(format!("the policy does not allow the route `{route}`"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `name` is among `names`, of which `*` stands for all, as their absence does.
fn counts(names: &Option<Arc<[Box<str>]>>, name: &str) -> bool {
    let names = names.as_deref();
    names.is_none_or(|names| names.iter().any(|it| **it == *name || **it == *"*"))
}

/// Whether `pattern`, which may end in `*`, means `name`.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => *pattern == *name,
    }
}

/// What happens to a request that a budget covers in part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenShort {
    /// It runs as far as the budget goes and then ends with an error and exact usage.
    #[default]
    Clamp,
    /// It is refused.
    Refuse,
}

/// What happens to a running request whose credential expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// It was valid when it was admitted: it runs to its end.
    #[default]
    Finish,
    /// It may run for this much longer.
    Grace(Duration),
    /// It ends within a step.
    Cut,
}

/// OpenAI's earlier and its present name.
const MAX_TOKENS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// Fields of a request that bring tools, or speak of them.
const TOOL_FIELDS: [&str; 4] = ["tools", "tool_choice", "functions", "function_call"];
