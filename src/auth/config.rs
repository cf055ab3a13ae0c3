//! The gate's part of the configuration, as written; [`super::Gate::new`] judges it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{CertificateConfig, ShareConfig};

/// Whom to believe and what they get. The default believes the built-in issuer alone and treats all alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The identity providers, each with its own keys. None: the built-in issuer.
    pub issuers: Vec<IssuerConfig>,
    /// Who gets more of the machine, or less, or goes first; the first entry that fits a caller counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareConfig>,
    /// Whether an API key may come in `api-key` or `x-api-key` too, for clients that cannot send it as a bearer.
    #[serde(skip_serializing_if = "is_false")]
    pub api_key_headers: bool,
    /// What a verified client certificate stands for.
    #[serde(skip_serializing_if = "is_default")]
    pub certificates: CertificateConfig,
}

impl AuthConfig {
    /// Whether the built-in issuer is the one to believe, because no other is configured.
    pub fn uses_builtin(&self) -> bool {
        self.issuers.is_empty()
    }
}

/// An identity provider: who it is, which keys are its own, and what its tokens must say.
///
/// Wherever a claim is named, a leading slash makes the name a path: `/realm_access/roles`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The exact `iss` of its tokens; a trailing slash counts.
    pub issuer: String,
    /// The audiences that mean this server; a token must name one of them.
    pub audiences: Vec<String>,
    /// Its verification keys, for no other issuer.
    pub keys: Vec<KeyConfig>,
    /// JWS algorithms to take, by name. Default: the usual one of each key
    /// (RSA: RS256, P-256: ES256, P-384: ES384, Ed25519: EdDSA, secret: HS256), or the JWK's own `alg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<String>>,
    /// Header `typ` values to take, in any case; `absent` stands for none.
    /// Default: `absent`, `JWT` and `at+jwt`. `["at+jwt"]` is RFC 9068 to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_types: Option<Vec<String>>,
    /// By how many seconds the issuer's clock may differ: 0 to 300, 60 by default.
    #[serde(default = "default_skew_s")]
    pub clock_skew_s: u64,
    /// Most seconds from issue to expiry: 24 h by default; Entra tokens with continuous evaluation need 28 h.
    #[serde(default = "default_lifetime_s")]
    pub max_lifetime_s: u64,
    /// The claim that holds the audience: `aud` by default, `client_id` for Cognito.
    #[serde(default = "default_audience_claim")]
    pub audience_claim: String,
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
    /// Scopes of a token that has none of the scope claims. Default: none.
    #[serde(default)]
    pub default_scopes: Vec<String>,
    /// Claims that must be there with this value, or one of these: `token_use = "access"`.
    #[serde(default)]
    pub required_claims: BTreeMap<String, OneOrMany>,
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

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_default(config: &CertificateConfig) -> bool {
    *config == CertificateConfig::default()
}

fn default_skew_s() -> u64 {
    60
}

fn default_lifetime_s() -> u64 {
    24 * 3600
}

fn default_audience_claim() -> String {
    "aud".to_owned()
}
