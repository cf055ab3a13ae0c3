//! The gate's part of the configuration, as written; [`super::Gate::new`] judges it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Preset, ShareConfig};

/// Whom to believe and what they get. The default believes the built-in issuer alone and treats all alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The identity providers, each with its own keys. None: the built-in issuer.
    pub issuers: Vec<IssuerConfig>,
    /// Who gets more of the machine, or less, or goes first; the first entry that fits a caller counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareConfig>,
}

impl AuthConfig {
    /// Whether the built-in issuer is the one to believe, because no other is configured.
    pub fn uses_builtin(&self) -> bool {
        self.issuers.is_empty()
    }
}

/// An identity provider: who it is, which keys are its own, and what its tokens must say.
///
/// Wherever a claim is named, a leading slash makes the name a path: `/realm_access/roles`. What is left out here comes
/// from the `preset`, if one is named, and otherwise from the default that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The product behind it: fills in what is left out. [`Preset`] says what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The exact `iss` of its tokens; a trailing slash counts. `{tenantid}` in it stands for each of `tenants`.
    pub issuer: String,
    /// The tenants that may come in where `issuer` is a template; the `tid` of a token must be one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// The audiences that mean this server; a token must name one of them.
    pub audiences: Vec<String>,
    /// Where it publishes its keys. One of `keys`, `jwks_url` and `discovery`; a preset stands for `discovery = true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Finds the keys by OpenID Connect discovery: `true` for the issuer's usual place, or the document's URL. The
    /// document must name the issuer exactly as it is written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// Takes `http://` for keys on this machine's loopback; everything else is https. Default: no.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_http_loopback: bool,
    /// A PEM file with the only certificates that may vouch for the key server. Default: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Refuses to fetch keys from private, link-local and loopback addresses. Default: no.
    #[serde(default, skip_serializing_if = "is_false")]
    pub refuse_private_addresses: bool,
    /// Whether `/readyz` waits until its keys were fetched once. Default: yes.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub required: bool,
    /// For how many seconds fetched keys serve beyond their time while no new ones can be had: 0 to 604 800.
    /// Default: 86 400, a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_if_error_s: Option<u64>,
    /// Its verification keys, for no other issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyConfig>,
    /// JWS algorithms to take, by name. Default: the usual one of each key
    /// (RSA: RS256, P-256: ES256, P-384: ES384, Ed25519: EdDSA, secret: HS256), or the JWK's own `alg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<String>>,
    /// Header `typ` values to take, in any case; `absent` stands for none.
    /// Default: `absent`, `JWT` and `at+jwt`. `["at+jwt"]` is RFC 9068 to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_types: Option<Vec<String>>,
    /// Takes ID tokens too, which are meant for the application that asked, not for an API. Default: no.
    #[serde(default, skip_serializing_if = "is_false")]
    pub accept_id_tokens: bool,
    /// By how many seconds the issuer's clock may differ: 0 to 300, 60 by default.
    #[serde(default = "default_skew_s")]
    pub clock_skew_s: u64,
    /// Most seconds from issue to expiry. Default: 24 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_s: Option<u64>,
    /// The claim that holds the audience. Default: `aud`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience_claim: Option<String>,
    /// The claim that names the caller for good. Default: `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_claim: Option<String>,
    /// The claim that names the token, for revocation. Default: `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id_claim: Option<String>,
    /// The claim that groups subjects into tenants. Without it, each subject is its own tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_claim: Option<String>,
    /// The claim that names the application. Default: `client_id`, else `azp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_claim: Option<String>,
    /// The claims that grant scopes. `scope` is a string, `permissions` and `roles` are arrays, others may be either.
    /// Default: `scope` (a string) and `scp` (a string or an array). Nothing else ever grants anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_claims: Option<Vec<String>>,
    /// What stands before the scopes that mean this server, such as `mixgate/`. It is cut off, and scopes without it
    /// grant nothing. Default: scopes are taken whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_prefix: Option<String>,
    /// Scopes of a token that has none of the scope claims. Default: none.
    #[serde(default)]
    pub default_scopes: Vec<String>,
    /// Claims that must be there with this value, or one of these: `token_use = "access"`. A preset's own stay, unless
    /// the same claim is named here.
    #[serde(default)]
    pub required_claims: BTreeMap<String, OneOrMany>,
}

/// Whether and where to look for an OpenID Connect discovery document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Discovery {
    /// At the issuer's usual place, or not at all.
    Usual(bool),
    /// At this URL.
    At(String),
}

/// One verification key, from exactly one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// The `kid` that tokens name it by. A JWK brings its own; a single key needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// A file with a public key: `BEGIN PUBLIC KEY` or `BEGIN RSA PUBLIC KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pem_file: Option<PathBuf>,
    /// The same, written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
    /// A file with one JWK. A secret (`oct`) must be readable by its owner alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwk_file: Option<PathBuf>,
    /// One public JWK as JSON text, written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwk: Option<String>,
    /// A file with an HMAC secret, readable by its owner alone: its bytes, less one line end at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hmac_secret_file: Option<PathBuf>,
}

/// A value or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// The only one.
    One(String),
    /// Any of these.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

fn default_skew_s() -> u64 {
    60
}

fn yes() -> bool {
    true
}

fn is_true(flag: &bool) -> bool {
    *flag
}

fn is_false(flag: &bool) -> bool {
    !*flag
}
