//! The keys of one issuer, and which of them may vouch for a token.

use jsonwebtoken::{Algorithm, DecodingKey};

use crate::auth::denied::{Denied, quoted};
use crate::auth::key::LoadedKey;
use crate::auth::token::claims::list;
use crate::auth::token::compact::Compact;
use crate::auth::token::header::Header;
use crate::auth::{IssuerProblem, KeyError};

use super::preset::TEMPLATE;

/// A key with all that may limit its use.
#[derive(Debug)]
pub(in crate::auth) struct Key {
    /// Absent only for an issuer's single key.
    pub id: Option<Box<str>>,
    pub algorithms: Vec<Algorithm>,
    pub verifying: DecodingKey,
    /// The issuer that its JWK names, which may be a template: for tokens of that issuer only.
    pub issuer: Option<Box<str>>,
}

impl Key {
    /// The key with those of the `configured` algorithms that it serves; without any, with its usual one.
    ///
    /// # Errors
    /// [`KeyError::ServesNothing`], or a secret too short for what it would serve.
    pub fn new(loaded: LoadedKey, configured: Option<&[Algorithm]>) -> Result<Self, KeyError> {
        let usual = [loaded.default_algorithm()];
        let algorithms = loaded.serves(configured.unwrap_or(&usual))?;
        if algorithms.is_empty() {
            return Err(KeyError::ServesNothing);
        }
        Ok(Self {
            id: loaded.id.map(Into::into),
            algorithms,
            verifying: loaded.material.key,
            issuer: loaded.issuer.map(Into::into),
        })
    }

    /// Whether its JWK lets it vouch for tokens of `iss` with this `tid`.
    pub fn may_vouch_for(&self, iss: &str, tenant: Option<&str>) -> bool {
        match (self.issuer.as_deref(), tenant) {
            (None, _) => true,
            (Some(template), Some(tenant)) => template.replace(TEMPLATE, tenant) == iss,
            (Some(exact), None) => exact == iss,
        }
    }

    fn described(&self) -> String {
        match &self.id {
            Some(id) => format!("the key {}", quoted(id)),
            None => "this issuer's key".to_owned(),
        }
    }
}

/// All keys of an issuer at one time.
#[derive(Debug)]
pub(in crate::auth) struct KeySet {
    keys: Vec<Key>,
    algorithms: Vec<Algorithm>,
}

impl KeySet {
    /// These keys. Several need distinct ids; [`KeySet::check_ids`] says whether they have them.
    pub fn new(keys: Vec<Key>) -> Self {
        let mut algorithms = Vec::new();
        for algorithm in keys.iter().flat_map(|key| &key.algorithms) {
            if !algorithms.contains(algorithm) {
                algorithms.push(*algorithm);
            }
        }
        Self { keys, algorithms }
    }

    /// What any of the keys serves.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.id.as_deref())
    }

    /// Whether a token with this `kid` can be judged with these keys; if not, newer ones may.
    pub fn knows(&self, id: Option<&str>) -> bool {
        id.is_none() || self.by_id(id).is_some()
    }

    /// Checks the signature with the one key that may vouch for the token.
    ///
    /// # Errors
    /// `InvalidToken`, whatever is wrong.
    pub fn verify(&self, header: &Header, token: &Compact<'_>) -> Result<&Key, Denied> {
        let algorithm = header.algorithm;
        takes(&self.algorithms, algorithm)?;
        let key = self.choose(header.key_id.as_deref(), algorithm)?;
        if !key.algorithms.contains(&algorithm) {
            return Err(Denied::token(format!(
                "the key that the token names does not serve {algorithm:?}"
            )));
        }
        match jsonwebtoken::crypto::verify(
            token.signature,
            token.signing_input,
            &key.verifying,
            algorithm,
        ) {
            Ok(true) => Ok(key),
            Ok(false) | Err(_) => Err(Denied::token(format!(
                "the signature does not match {}",
                key.described()
            ))
            .at("signature")),
        }
    }

    /// The key of this id; without an id, the only key that serves the algorithm.
    fn choose(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, Denied> {
        if let Some(key) = self.by_id(id) {
            return Ok(key);
        }
        let Some(id) = id else {
            let mut eligible = self
                .keys
                .iter()
                .filter(|key| key.algorithms.contains(&algorithm));
            return match (eligible.next(), eligible.count()) {
                (Some(only), 0) => Ok(only),
                (_, others) => Err(Denied::token(format!(
                    "the token names no key (`kid`), and this issuer has {} for {algorithm:?}",
                    others + 1
                ))),
            };
        };
        let known: Vec<&str> = self.ids().collect();
        Err(Denied::token(format!(
            "the key id is {}, this issuer has {}",
            quoted(id),
            list(&known)
        )))
    }

    fn by_id(&self, id: Option<&str>) -> Option<&Key> {
        let id = id?;
        match &self.keys[..] {
            [only @ Key { id: None, .. }] => Some(only),
            keys => keys.iter().find(|key| key.id.as_deref() == Some(id)),
        }
    }

    /// Several keys need distinct ids: a token must name exactly one.
    pub fn check_ids(&self) -> Result<(), IssuerProblem> {
        if self.keys.len() == 1 {
            return Ok(());
        }
        for (index, key) in self.keys.iter().enumerate() {
            let Some(id) = &key.id else {
                return Err(IssuerProblem::KeyWithoutId {
                    count: self.keys.len(),
                    number: index + 1,
                });
            };
            if self.keys[..index]
                .iter()
                .any(|earlier| earlier.id.as_ref() == Some(id))
            {
                return Err(IssuerProblem::DuplicateId {
                    kid: id.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// Whether an issuer with these algorithms takes this one.
///
/// # Errors
/// `InvalidToken`, naming both.
pub(super) fn takes(taken: &[Algorithm], given: Algorithm) -> Result<(), Denied> {
    if taken.contains(&given) {
        return Ok(());
    }
    let taken: Vec<String> = taken.iter().map(|taken| format!("{taken:?}")).collect();
    Err(Denied::token(format!(
        "the algorithm is {given:?}, this issuer's tokens have {}",
        list(&taken)
    )))
}
