//! What the ledger holds, as its callers see it.

/// What was used of a budget in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRecord {
    /// Stands for the limit and its bearer.
    pub key: [u8; 32],
    /// The UTC day or month: `2026-11-24` or `2026-11`.
    pub period: String,
    /// Tokens used, not those reserved.
    pub tokens: u64,
}

/// A right that was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RevocationRecord {
    /// What is revoked.
    pub what: RevokedName,
    /// The issuer by which the name is meant.
    pub issuer: String,
    /// Unix seconds at which it was revoked.
    pub at: u64,
    /// Unix seconds after which the record may be forgotten, because nothing that it names can be valid any more.
    pub until: Option<u64>,
}

/// What a revocation names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevokedName {
    /// One token, by its `jti`.
    Token(String),
    /// All tokens of a subject that were issued before `at`.
    Subject(String),
    /// All tokens of a client that were issued before `at`.
    Client(String),
    /// All tokens that a key has signed, by its `kid`.
    Key(String),
    /// All tokens of the issuer that were issued before `at`.
    Issuer,
}

/// An API key as it is stored. The secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// The public half of the key: how it is found.
    pub id: String,
    /// A hash of the whole key.
    pub hash: [u8; 32],
    /// Whom it stands for.
    pub subject: String,
    /// The subject's tenant.
    pub tenant: Option<String>,
    /// Scopes, separated by spaces.
    pub scopes: String,
    /// What it is for, in its maker's words.
    pub note: Option<String>,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds.
    pub expires: Option<u64>,
    /// Unix seconds.
    pub revoked: Option<u64>,
    /// The UTC day on which it was last used: `2026-11-24`.
    pub last_used: Option<String>,
}

/// What is known of a request when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The `x-request-id`.
    pub id: String,
    /// Whose it is.
    pub issuer: String,
    /// Its subject.
    pub subject: String,
    /// Its tenant.
    pub tenant: Option<String>,
    /// Its client application.
    pub client: Option<String>,
    /// `token`, `api_key` or `certificate`.
    pub credential: &'static str,
    /// The id of the API key, if it was one.
    pub api_key: Option<String>,
    /// The served model.
    pub model: String,
    /// Tokens of its prompt: what it counts as having used once the first token was generated.
    pub prompt: u64,
    /// Unix milliseconds of its arrival.
    pub started_ms: u64,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestEnd {
    /// `stop`, `length`, `client_gone` or an error's code.
    pub reason: &'static str,
    /// The HTTP status; 499 for a client that went away.
    pub status: u16,
    /// Until the first token.
    pub ttft_ms: Option<u64>,
    /// From arrival to end.
    pub total_ms: u64,
}
