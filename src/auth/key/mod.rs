//! Loads one verification key and decides which algorithms it may serve.
//!
//! A key belongs to one family, fixed when it is loaded: whatever a token's header says, an RSA key never becomes an
//! HMAC secret. Weak and mislabelled keys are refused here, at start.

pub(in crate::auth) mod jwk;
pub(in crate::auth) mod pem;

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::auth::files::KeyFile;
use crate::auth::token::claims::is_plain;
use crate::auth::{KeyConfig, KeyError};

/// A key with the labels that came with it.
#[derive(Debug)]
pub(in crate::auth) struct LoadedKey {
    pub id: Option<String>,
    pub material: Material,
    /// The `alg` of a JWK: then the only algorithm that the key serves.
    pub pinned: Option<Algorithm>,
    /// The `issuer` of a JWK, which may be a template: then the only one that the key vouches for.
    pub issuer: Option<String>,
}

impl LoadedKey {
    /// Loads the key that `config` describes.
    pub fn load(config: &KeyConfig) -> Result<Self, KeyError> {
        let mut key = match (
            &config.pem_file,
            &config.pem,
            &config.jwk_file,
            &config.jwk,
            &config.hmac_secret_file,
        ) {
            (Some(path), None, None, None, None) => {
                let file = KeyFile::read(path)?;
                let text = std::str::from_utf8(&file.bytes).map_err(|_| KeyError::NotPem)?;
                Self::from(pem::public_key(text)?)
            }
            (None, Some(text), None, None, None) => Self::from(pem::public_key(text)?),
            (None, None, Some(path), None, None) => {
                let file = KeyFile::read(path)?;
                let key = jwk::parse(&file.bytes)?;
                if key.is_secret() {
                    file.secret()?;
                }
                key
            }
            (None, None, None, Some(text), None) => {
                let key = jwk::parse(text.as_bytes())?;
                if key.is_secret() {
                    return Err(KeyError::InlineSecret);
                }
                key
            }
            (None, None, None, None, Some(path)) => {
                let file = KeyFile::read(path)?.secret()?;
                let bytes = file.bytes.strip_suffix(b"\n").unwrap_or(&file.bytes);
                Self::from(Material::secret(
                    bytes.strip_suffix(b"\r").unwrap_or(bytes),
                )?)
            }
            _ => return Err(KeyError::NotOneSource),
        };
        match (&key.id, &config.kid) {
            (Some(own), Some(configured)) if own != configured => return Err(KeyError::TwoIds),
            (None, configured) => key.id.clone_from(configured),
            _ => {}
        }
        match &key.id {
            Some(id) if !is_plain(id) => Err(KeyError::BadId),
            _ => Ok(key),
        }
    }

    /// Whether it is a secret, which verifies and signs alike.
    pub fn is_secret(&self) -> bool {
        matches!(self.material.kind, Kind::Secret { .. })
    }

    /// The algorithm to take when none is configured.
    pub fn default_algorithm(&self) -> Algorithm {
        self.pinned.unwrap_or(match self.material.kind {
            Kind::Rsa => Algorithm::RS256,
            Kind::Curve(Curve::P256) => Algorithm::ES256,
            Kind::Curve(Curve::P384) => Algorithm::ES384,
            Kind::Curve(Curve::Ed25519) => Algorithm::EdDSA,
            Kind::Secret { .. } => Algorithm::HS256,
        })
    }

    /// Those of `configured` that this key may serve.
    ///
    /// # Errors
    /// [`KeyError::ShortSecret`] for a secret shorter than the digest of an HMAC algorithm that it would serve.
    pub fn serves(&self, configured: &[Algorithm]) -> Result<Vec<Algorithm>, KeyError> {
        let mut served = Vec::new();
        for &algorithm in configured {
            if self.pinned.is_some_and(|pinned| pinned != algorithm) {
                continue;
            }
            let fits = match (self.material.kind, algorithm) {
                (Kind::Secret { len }, Algorithm::HS256) => long_enough(len, 32, algorithm)?,
                (Kind::Secret { len }, Algorithm::HS384) => long_enough(len, 48, algorithm)?,
                (Kind::Secret { len }, Algorithm::HS512) => long_enough(len, 64, algorithm)?,
                (Kind::Rsa, _) => algorithm.family() == jsonwebtoken::AlgorithmFamily::Rsa,
                (Kind::Curve(Curve::P256), Algorithm::ES256) => true,
                (Kind::Curve(Curve::P384), Algorithm::ES384) => true,
                (Kind::Curve(Curve::Ed25519), Algorithm::EdDSA) => true,
                _ => false,
            };
            if fits {
                served.push(algorithm);
            }
        }
        Ok(served)
    }
}

impl From<Material> for LoadedKey {
    fn from(material: Material) -> Self {
        Self {
            id: None,
            material,
            pinned: None,
            issuer: None,
        }
    }
}

/// The signature algorithm of this name, if it is supported.
pub(in crate::auth) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        // RFC 9864: the name that says which curve. Of those that `EdDSA` may mean, no other is supported.
        "Ed25519" => Some(Algorithm::EdDSA),
        name => name.parse().ok(),
    }
}

/// RFC 7518 §3.2: an HMAC secret has at least as many bytes as the digest.
fn long_enough(given: usize, needed: usize, algorithm: Algorithm) -> Result<bool, KeyError> {
    if given < needed {
        Err(KeyError::ShortSecret {
            algorithm,
            given,
            needed,
        })
    } else {
        Ok(true)
    }
}

/// A key that has passed every check on its own numbers.
pub(in crate::auth) struct Material {
    kind: Kind,
    pub key: DecodingKey,
}

/// What a key is, apart from its bytes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Rsa,
    Curve(Curve),
    Secret { len: usize },
}

/// The curves that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum Curve {
    P256,
    P384,
    Ed25519,
}

impl Material {
    /// An RSA key of 2048 to 8192 bits from big-endian numbers without leading zeros.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let bits = match modulus.first() {
            None | Some(0) => return Err(KeyError::UnknownEncoding),
            Some(first) => modulus.len() * 8 - first.leading_zeros() as usize,
        };
        if !(2048..=8192).contains(&bits) {
            return Err(KeyError::RsaBits { given: bits });
        }
        let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !odd(modulus) || !odd(exponent) || matches!(exponent, [0, ..] | [1]) {
            return Err(KeyError::BadRsaNumbers);
        }
        RsaPublicKeyComponents {
            n: modulus,
            e: exponent,
        }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map_err(|_| KeyError::BadRsaNumbers)?;
        Ok(Self {
            kind: Kind::Rsa,
            key: DecodingKey::from_rsa_raw_components(modulus, exponent),
        })
    }

    /// An uncompressed point (with its leading 4) of an EC curve, or the 32 bytes of an Ed25519 key.
    pub fn curve(curve: Curve, key: &[u8]) -> Result<Self, KeyError> {
        let off_curve = |_| KeyError::NotOnCurve;
        let decoding = match curve {
            Curve::P256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
                    .parse()
                    .map_err(off_curve)?;
                DecodingKey::from_ec_der(key)
            }
            Curve::P384 => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key)
                    .parse()
                    .map_err(off_curve)?;
                DecodingKey::from_ec_der(key)
            }
            Curve::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, key)
                    .parse()
                    .map_err(off_curve)?;
                DecodingKey::from_ed_der(key)
            }
        };
        Ok(Self {
            kind: Kind::Curve(curve),
            key: decoding,
        })
    }

    /// An HMAC secret. Its length is judged against the algorithms later; guessable ones are refused at once.
    pub fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        // The classic confusion: a public key, which everybody has, used as the shared secret.
        if secret.starts_with(b"-----BEGIN") {
            return Err(KeyError::SecretIsPem);
        }
        if is_guessable(secret) {
            return Err(KeyError::GuessableSecret);
        }
        Ok(Self {
            kind: Kind::Secret { len: secret.len() },
            key: DecodingKey::from_secret(secret),
        })
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// Whether `secret` is a published example, repeats a shorter text, or draws on fewer than eight different bytes.
fn is_guessable(secret: &[u8]) -> bool {
    let repeats = (1..=secret.len() / 2).any(|period| {
        secret
            .iter()
            .skip(period)
            .eq(&secret[..secret.len() - period])
    });
    let mut seen = [false; 256];
    secret
        .iter()
        .for_each(|&byte| seen[usize::from(byte)] = true);
    let variety = seen.iter().filter(|seen| **seen).count();
    repeats || variety < 8 || PUBLISHED_SECRETS.contains(&secret)
}

/// Secrets of 32 bytes and more that JWT tutorials print.
const PUBLISHED_SECRETS: [&[u8]; 2] = [
    b"a-string-secret-at-least-256-bits-long",
    b"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
];
