//! Turns the signed claims of one issuer into an [`Identity`], typed strictly and compared byte for byte.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::time::TimeRules;
use crate::auth::denied::{Denied, Reason, quoted};
use crate::auth::identity::{Claimed, Credential, Identity};

/// What one issuer's tokens must say, and which claims grant what.
#[derive(Debug, Clone)]
pub(in crate::auth) struct ClaimRules {
    pub issuer: Arc<str>,
    pub audience_claim: Box<str>,
    pub audiences: Vec<Box<str>>,
    /// Lower-cased; `absent` stands for a header without `typ`.
    pub token_types: Vec<Box<str>>,
    /// Whether what marks an ID token is no reason to refuse it.
    pub accept_id_tokens: bool,
    pub time: TimeRules,
    pub subject_claim: Box<str>,
    pub token_id_claim: Box<str>,
    pub tenant_claim: Option<Box<str>>,
    /// The first that is present counts.
    pub client_claims: Vec<Box<str>>,
    /// All that are present count.
    pub scope_claims: Vec<Box<str>>,
    /// Cut off each scope; a scope without it grants nothing.
    pub scope_prefix: Option<Box<str>>,
    /// Granted where none of `scope_claims` is present.
    pub default_scopes: Vec<Box<str>>,
    /// Claims that must be a string among these.
    pub required: Vec<(Box<str>, Vec<Box<str>>)>,
    /// Claims that must be there as a string: what an access token has and an ID token of the same issuer lacks.
    pub present: Vec<Box<str>>,
}

impl ClaimRules {
    /// Checks `claims`, whose signature is known to be good, at Unix second `now`.
    pub fn identity(
        &self,
        token_type: Option<&str>,
        key_id: Option<Arc<str>>,
        claims: Map<String, Value>,
        now: u64,
    ) -> Result<Identity, Denied> {
        let given = claims;
        let claims = &given;
        let expires = self.time.check(claims, now)?;
        self.check_audience(claims)?;
        self.check_type(token_type, claims)?;
        if claims.contains_key("cnf") {
            return Err(Denied::new(
                Reason::InvalidTokenBinding,
                "the token is bound to a key (`cnf`), and no proof of possession is taken",
            ));
        }
        for (name, accepted) in &self.required {
            let given = text(claims, name)?.ok_or_else(|| missing(name))?;
            if !accepted.iter().any(|accepted| **accepted == *given) {
                return Err(Denied::claims(format!(
                    "`{name}` is {}, {} is required",
                    quoted(given),
                    list(accepted)
                )));
            }
        }
        for name in &self.present {
            if text(claims, name)?.is_none() {
                return Err(Denied::new(
                    Reason::InvalidTokenType,
                    format!(
                        "the claim `{name}` is missing, which this issuer's access tokens have"
                    ),
                ));
            }
        }
        let client = self
            .client_claims
            .iter()
            .find_map(|name| text(claims, name).transpose())
            .transpose()?;
        let tenant = match &self.tenant_claim {
            Some(name) => text(claims, name)?,
            None => None,
        };
        Ok(Identity::new(Claimed {
            issuer: self.issuer.clone(),
            subject: text(claims, &self.subject_claim)?
                .ok_or_else(|| missing(&self.subject_claim))?
                .into(),
            tenant: tenant.map(Arc::from),
            client: client.map(Arc::from),
            token_id: text(claims, &self.token_id_claim)?.map(Arc::from),
            scopes: self.scopes(claims)?,
            expires: Some(expires),
            issued: super::time::issued(claims),
            credential: Credential::Token,
            key_id,
            claims: given,
        }))
    }

    /// One of the token's audiences must be one of ours.
    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Denied> {
        let name = &self.audience_claim;
        let given: Vec<&str> = match find(claims, name) {
            None => return Err(missing(name)),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) if (1..=MAX_AUDIENCES).contains(&many.len()) => many
                .iter()
                .map(Value::as_str)
                .collect::<Option<_>>()
                .ok_or_else(|| {
                    Denied::claims(format!("`{name}` has an entry that is not a string"))
                })?,
            Some(_) => {
                return Err(Denied::claims(format!(
                    "`{name}` is neither a string nor an array of 1 to {MAX_AUDIENCES} strings"
                )));
            }
        };
        if given
            .iter()
            .any(|given| self.audiences.iter().any(|ours| **ours == **given))
        {
            return Ok(());
        }
        let detail = format!(
            "the audience is {}, {} is wanted",
            list(&given),
            list(&self.audiences)
        );
        Err(Denied::new(Reason::InvalidAudience, detail))
    }

    /// An access token and nothing else: genuine ID, refresh and logout tokens of the same issuer are refused.
    fn check_type(
        &self,
        token_type: Option<&str>,
        claims: &Map<String, Value>,
    ) -> Result<(), Denied> {
        let refuse = |detail: String| Err(Denied::new(Reason::InvalidTokenType, detail));
        let stated = token_type.unwrap_or(ABSENT).to_ascii_lowercase();
        let stated = if stated == "application/at+jwt" {
            "at+jwt"
        } else {
            &stated
        };
        if !self
            .token_types
            .iter()
            .any(|accepted| **accepted == *stated)
        {
            return refuse(format!(
                "the header's `typ` is {}, {} is taken",
                quoted(stated),
                list(&self.token_types)
            ));
        }
        let marks = |name: &&str| {
            claims.contains_key(*name) && !(self.accept_id_tokens && *name != LOGOUT_MARKER)
        };
        if let Some(marker) = ID_TOKEN_MARKERS.into_iter().find(marks) {
            return refuse(format!("the claim `{marker}` marks an ID or logout token"));
        }
        for (name, others) in [("token_use", OTHER_USES), ("typ", OTHER_TYPES)] {
            if let Some(kind) = text(claims, name)?
                && others.iter().any(|other| kind.eq_ignore_ascii_case(other))
                && !(self.accept_id_tokens && kind.eq_ignore_ascii_case("id"))
            {
                return refuse(format!(
                    "the claim `{name}` is {}: not an access token",
                    quoted(kind)
                ));
            }
        }
        Ok(())
    }

    /// The union of the configured scope claims. Strings split on space, array entries are taken whole.
    fn scopes(&self, claims: &Map<String, Value>) -> Result<Vec<Box<str>>, Denied> {
        let mut scopes: Vec<Box<str>> = Vec::new();
        let mut stated = false;
        for name in &self.scope_claims {
            let held: Vec<&str> = match (find(claims, name), &**name) {
                (None, _) => continue,
                // The standards make `scope` a string, and role lists arrays; the other form is somebody's smuggling.
                (Some(Value::String(text)), name) if !["permissions", "roles"].contains(&name) => {
                    text.split(' ').filter(|scope| !scope.is_empty()).collect()
                }
                (Some(Value::Array(items)), name) if name != "scope" => items
                    .iter()
                    .map(Value::as_str)
                    .collect::<Option<_>>()
                    .ok_or_else(|| {
                        Denied::claims(format!("`{name}` has an entry that is not a string"))
                    })?,
                (Some(_), name) => {
                    return Err(Denied::claims(format!("`{name}` has the wrong type")));
                }
            };
            stated = true;
            if scopes.len() + held.len() > MAX_SCOPES {
                return Err(Denied::claims(format!("more than {MAX_SCOPES} scopes")));
            }
            if !held.iter().all(|scope| is_plain(scope)) {
                return Err(Denied::claims(format!(
                    "`{name}` has an entry that is not 1 to 256 plain characters"
                )));
            }
            let ours = held
                .into_iter()
                .filter_map(|scope| match &self.scope_prefix {
                    Some(prefix) => scope
                        .strip_prefix(&**prefix)
                        .filter(|rest| !rest.is_empty()),
                    None => Some(scope),
                });
            scopes.extend(ours.map(Box::from));
        }
        Ok(if stated {
            scopes
        } else {
            self.default_scopes.clone()
        })
    }
}

/// The `iss` claim of unverified claims, to look up the issuer and for nothing else.
pub(in crate::auth) fn issuer(claims: &Map<String, Value>) -> Result<&str, Denied> {
    match claims.get("iss") {
        Some(Value::String(issuer)) => Ok(issuer),
        Some(_) => Err(Denied::token("the claim `iss` is not one string")),
        None => Err(Denied::token("the claim `iss` is missing")),
    }
}

/// Whether `text` has 1 to 256 bytes and no control character: what may become a log field or a map key.
pub(in crate::auth) fn is_plain(text: &str) -> bool {
    (1..=256).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Names for a sentence: `a`, `b` or `c`; the first five.
pub(in crate::auth) fn list(names: &[impl AsRef<str>]) -> String {
    let mut shown: Vec<String> = names
        .iter()
        .take(5)
        .map(|name| quoted(name.as_ref()))
        .collect();
    if names.len() > shown.len() {
        shown.push(format!("{} more", names.len() - shown.len()));
    }
    match shown.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((only, _)) => only.clone(),
        None => "nothing".to_owned(),
    }
}

fn missing(name: &str) -> Denied {
    Denied::claims(format!("the claim `{name}` is missing"))
}

/// A claim that is a plain string if it is there.
fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Denied> {
    match find(claims, name) {
        None => Ok(None),
        Some(Value::String(text)) if is_plain(text) => Ok(Some(text)),
        Some(_) => Err(Denied::claims(format!(
            "`{name}` is not a string of 1 to 256 plain characters"
        ))),
    }
}

/// A claim by name, or by path if the configured name starts with a slash: `/realm_access/roles`.
pub(in crate::auth) fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(path) = name.strip_prefix('/') else {
        return claims.get(name);
    };
    let mut steps = path.split('/');
    let mut value = claims.get(steps.next()?)?;
    for step in steps {
        value = value.as_object()?.get(step)?;
    }
    Some(value)
}

/// Stands in `token_types` for a header without `typ`.
pub(in crate::auth) const ABSENT: &str = "absent";

/// OpenID Connect puts these in ID and logout tokens, never in access tokens.
const ID_TOKEN_MARKERS: [&str; 4] = ["nonce", "at_hash", "c_hash", LOGOUT_MARKER];

/// In logout tokens only, which stand for nobody.
const LOGOUT_MARKER: &str = "events";

/// Cognito's `token_use` of tokens that grant no access.
const OTHER_USES: &[&str] = &["id", "refresh"];

/// Keycloak's `typ` claim of tokens that grant no access.
const OTHER_TYPES: &[&str] = &["ID", "Refresh", "Offline", "Logout"];

const MAX_AUDIENCES: usize = 64;
const MAX_SCOPES: usize = 256;
