//! Why the gate does not come up. It fails closed: no error here leaves a server running with a part of its rules.

use std::io;
use std::path::PathBuf;

use jsonwebtoken::Algorithm;

/// Why [`super::Gate::new`] refused a configuration.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Nobody could ever come in.
    #[error("no issuer is configured and the built-in one was not given")]
    NoIssuer,
    /// The built-in issuer stands in for configured ones, never beside them.
    #[error("the built-in issuer was given beside {count} configured ones")]
    BuiltinBesideIssuers {
        /// How many are configured.
        count: usize,
    },
    /// Two entries for one `iss`.
    #[error("the issuer `{issuer}` is configured twice")]
    DuplicateIssuer {
        /// The string that they share.
        issuer: String,
    },
    /// A fault in one issuer's entry.
    #[error("issuer `{issuer}`: {problem}")]
    Issuer {
        /// Which one.
        issuer: String,
        /// What is wrong.
        problem: IssuerProblem,
    },
    /// A fault in one of its keys.
    #[error("issuer `{issuer}`, key {number}: {problem}")]
    Key {
        /// Which issuer.
        issuer: String,
        /// Which of its keys, counted from 1.
        number: usize,
        /// What is wrong.
        problem: KeyError,
    },
    /// A fault in the rules for client certificates.
    #[error("auth.certificates: {problem}")]
    Certificates {
        /// What is wrong.
        problem: &'static str,
    },
}

impl GateError {
    /// The next step, for the last line of the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoIssuer => {
                Some("add [[auth.issuers]], or start without any to use the built-in issuer")
            }
            Self::BuiltinBesideIssuers { .. } => Some(
                "its tokens are for a server without issuers; ask your identity provider for one",
            ),
            Self::DuplicateIssuer { .. } => Some("put all keys of one issuer into one entry"),
            Self::Issuer { problem, .. } => problem.hint(),
            Self::Key { problem, .. } => problem.hint(),
            Self::Certificates { .. } => None,
        }
    }
}

/// A fault in an issuer's entry.
#[derive(Debug, thiserror::Error)]
pub enum IssuerProblem {
    /// A name under which this server itself vouches for callers.
    #[error("`issuer` is a name that this server keeps for itself")]
    Reserved,
    /// `issuer` or another name is empty, long or holds control characters.
    #[error("`{field}` has an entry that is not 1 to 256 plain characters")]
    NotPlain {
        /// Which setting.
        field: &'static str,
    },
    /// A list that would let nobody in.
    #[error("`{field}` is empty, which would admit nobody")]
    Empty {
        /// Which setting.
        field: &'static str,
    },
    /// A number outside its range.
    #[error("`{field}` is {given}, it must be {min} to {max}")]
    Range {
        /// Which setting.
        field: &'static str,
        /// As configured.
        given: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// An algorithm that is unknown, or `none`.
    #[error("the algorithm `{given}` is not supported")]
    UnknownAlgorithm {
        /// As configured.
        given: String,
    },
    /// Nowhere to take keys from.
    #[error(
        "it has no `keys`, no `jwks_url`, no `discovery` and no `preset`, which would admit nobody"
    )]
    NoKeys,
    /// More than one place to take keys from.
    #[error("it has more than one of `keys`, `jwks_url` and `discovery`")]
    SeveralKeySources,
    /// A template whose discovery document could be anywhere.
    #[error("where the discovery document of a template is cannot be told")]
    NoUsualDiscovery,
    /// A URL that keys may not come from.
    #[error("`{field}` is `{given}`: {fault}")]
    Url {
        /// Which setting.
        field: &'static str,
        /// As configured, or as it follows from `issuer`.
        given: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// The certificates that may vouch for the key server.
    #[error("`ca_file`: {0}")]
    CaFile(FileError),
    /// A file without any.
    #[error("`ca_file`: {} holds no certificates in PEM", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// Tenants, and no place for them in the issuer.
    #[error("`tenants` are named, and `issuer` has no `{{tenantid}}`")]
    TenantsWithoutTemplate,
    /// A tenant that no token can name, or one that is named twice.
    #[error("the tenant `{given}` is no tenant id, or is named twice")]
    Tenant {
        /// As configured, or as it stands in `issuer`.
        given: String,
    },
    /// A provider whose access tokens are opaque.
    #[error("this provider signs ID tokens only, and `accept_id_tokens` is not true")]
    OnlyIdTokens,
    /// A subject that may be another person tomorrow.
    #[error("`subject_claim` is `{claim}`, a name that may pass to somebody else")]
    ReassignableSubject {
        /// As configured.
        claim: String,
    },
    /// An algorithm for which there is no key.
    #[error("no key serves the algorithm {algorithm:?}")]
    UnservedAlgorithm {
        /// Which one.
        algorithm: Algorithm,
    },
    /// Several keys, and one of them cannot be named.
    #[error("it has {count} keys, and key {number} has no `kid`")]
    KeyWithoutId {
        /// How many keys.
        count: usize,
        /// Which one, counted from 1.
        number: usize,
    },
    /// Two keys of one name.
    #[error("two keys have the `kid` `{kid}`")]
    DuplicateId {
        /// The name.
        kid: String,
    },
}

impl IssuerProblem {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Empty { field: "audiences" } => {
                Some("name the API identifier that your identity provider puts into `aud`")
            }
            Self::NoKeys => Some("write discovery = true, or jwks_url, or [[auth.issuers.keys]]"),
            Self::SeveralKeySources => Some("keep one of them: two would have to agree for ever"),
            Self::NoUsualDiscovery => Some("write discovery = \"https://…\" with its URL"),
            Self::Url { .. } => {
                Some("keys come over https; http is for loopback, with allow_http_loopback = true")
            }
            Self::CaFile(error) => error.hint(),
            Self::TenantsWithoutTemplate => Some("write {tenantid} where the tenant's id stands"),
            Self::Empty { field: "tenants" } => {
                Some("list the tenant ids that may come in; there is no way to let in all")
            }
            Self::Tenant { .. } => Some(
                "Entra's are 32 lower-case hexadecimal digits with dashes; common, organizations and consumers are none",
            ),
            Self::OnlyIdTokens => Some(
                "anybody with an account gets an ID token: also set required_claims, such as hd, or shares by subject",
            ),
            Self::ReassignableSubject { .. } => Some("take oid, which is never given away"),
            Self::UnknownAlgorithm { .. } => Some(
                "take some of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, Ed25519",
            ),
            Self::KeyWithoutId { .. } => {
                Some("with several keys each needs the `kid` that its tokens carry")
            }
            _ => None,
        }
    }
}

/// Why a key was not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The entry must have one of the five sources.
    #[error("exactly one of pem_file, pem, jwk_file, jwk and hmac_secret_file must be set")]
    NotOneSource,
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No PEM block.
    #[error("this is no PEM block")]
    NotPem,
    /// A chain or bundle.
    #[error("there are several PEM blocks where one key is expected")]
    SeveralPemBlocks,
    /// A certificate, for example.
    #[error("the PEM block is a `{label}`, `PUBLIC KEY` is expected")]
    WrongLabel {
        /// What it says it is.
        label: String,
    },
    /// A private key where a public one belongs.
    #[error("this is a private key; verification needs only the public one")]
    PrivateKey,
    /// A curve or encoding that is not taken.
    #[error("the key is neither RSA, P-256, P-384 nor Ed25519 in its usual encoding")]
    UnknownEncoding,
    /// An RSA key too small to be safe or too large to be quick.
    #[error("the RSA key has {given} bits, 2048 to 8192 are taken")]
    RsaBits {
        /// Bits of the modulus.
        given: usize,
    },
    /// An even number, an exponent of 1, or one that is too large.
    #[error("the RSA key's modulus or exponent is not usable")]
    BadRsaNumbers,
    /// The point is not on its curve.
    #[error("the public key is not a point of its curve")]
    NotOnCurve,
    /// The JWK is no clean JSON object.
    #[error("the JWK is not clean JSON: {fault}")]
    JwkJson {
        /// What is wrong.
        fault: String,
    },
    /// A member of the JWK.
    #[error("the JWK's `{member}` must be {expected}")]
    Jwk {
        /// Which one.
        member: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A secret in the configuration file.
    #[error("an `oct` JWK is a secret and must not stand in the configuration")]
    InlineSecret,
    /// A public key as a secret.
    #[error("the secret is a PEM block, which others may have")]
    SecretIsPem,
    /// An example, a repetition or nearly one.
    #[error("the secret is a published example or repeats itself")]
    GuessableSecret,
    /// Shorter than its algorithm's digest.
    #[error("the secret has {given} bytes, {algorithm:?} needs at least {needed}")]
    ShortSecret {
        /// For which algorithm.
        algorithm: Algorithm,
        /// Bytes given.
        given: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The configuration and the JWK name different ids.
    #[error("`kid` in the configuration differs from the JWK's own")]
    TwoIds,
    /// A secret that everybody can read.
    #[error("the key is a secret (`oct`), and it is published")]
    PublishedSecret,
    /// An id that is empty, long or holds control characters.
    #[error("`kid` is not 1 to 256 plain characters")]
    BadId,
    /// None of the configured algorithms fits the key.
    #[error("the key serves none of the configured algorithms")]
    ServesNothing,
}

impl KeyError {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(error) => error.hint(),
            Self::PrivateKey => Some(
                "write the public half: openssl pkey -in key.pem -pubout; if this key was copied here, replace it",
            ),
            Self::WrongLabel { label } if label == "CERTIFICATE" => {
                Some("write the key alone: openssl x509 -in cert.pem -pubkey -noout")
            }
            Self::InlineSecret => Some("put it into a file of mode 0600 and name it as jwk_file"),
            Self::GuessableSecret | Self::ShortSecret { .. } | Self::SecretIsPem => {
                Some("make one: (umask 077; openssl rand -hex 64 > secret)")
            }
            Self::ServesNothing => Some("leave `algorithms` out to take each key's usual one"),
            _ => None,
        }
    }
}

/// Why a key file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system's reason.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a key at all.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
    /// Others may have read it.
    #[error("{} holds a secret and has mode {mode:04o}: others may have read it", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl FileError {
    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exposed { .. } => {
                Some("chmod 600 the file; replace the secret if others did read it")
            }
            _ => None,
        }
    }
}
