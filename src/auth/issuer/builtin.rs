//! The built-in issuer: an Ed25519 key made on first start, for a server without an identity provider.
//!
//! Whoever can read its file can be anybody, so it lives in one file of mode 0600 in a folder of mode 0700 and never
//! leaves the machine. Its tokens are worthless to a server that has issuers configured.
//!
//! A rotation puts a new key in the file's place and the old one's public half beside it, where it verifies until it
//! retires ([`rotation`]); a running server follows within a second ([`live`]).

pub(in crate::auth) mod live;
mod rotation;

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};

use crate::auth::files::KeyFile;
use crate::auth::{FileError, key::pem};

/// Signs tokens for this server's own use.
#[derive(Clone)]
pub struct BuiltinIssuer {
    signing: EncodingKey,
    current: IssuerKey,
    /// Replaced by now, oldest first; some may have retired since they were read.
    earlier: Vec<IssuerKey>,
    /// `None`: in memory only.
    folder: Option<PathBuf>,
}

/// The public half of one of the built-in issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKey {
    key_id: String,
    public: [u8; 32],
    created: Option<u64>,
    retires: Option<u64>,
}

impl IssuerKey {
    fn new(public: [u8; 32], created: Option<u64>, retires: Option<u64>) -> Self {
        // RFC 7638 §3: the required members in lexicographic order, without white space.
        let canonical = format!(
            r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
            URL_SAFE_NO_PAD.encode(public)
        );
        Self {
            key_id: URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes())),
            public,
            created,
            retires,
        }
    }

    /// What tokens name it by: the RFC 7638 thumbprint.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// When it was made, in Unix seconds, if that is known.
    pub fn created(&self) -> Option<u64> {
        self.created
    }

    /// When it stops to verify, in Unix seconds; `None` for the key that signs.
    pub fn retires(&self) -> Option<u64> {
        self.retires
    }

    /// Whether tokens that it signed are still taken at Unix second `now`.
    pub fn verifies(&self, now: u64) -> bool {
        self.retires.is_none_or(|at| now < at)
    }

    /// As others may have it, to verify tokens that were minted here.
    pub fn jwk(&self) -> Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": URL_SAFE_NO_PAD.encode(self.public),
            "use": "sig",
            "alg": "EdDSA",
            "kid": self.key_id,
        })
    }

    pub(in crate::auth) fn verifying_key(&self) -> DecodingKey {
        DecodingKey::from_ed_der(&self.public)
    }
}

impl BuiltinIssuer {
    /// The `iss` of its tokens. The same on every machine; the key is not.
    pub const ISSUER: &str = ISSUER;
    /// The `aud` of its tokens.
    pub const AUDIENCE: &str = AUDIENCE;
    /// The longest life of its tokens, 30 days: enough for a benchmark or a notebook, too short to be forgotten in a
    /// configuration file for years. What leaked ends sooner by `mixgate revoke` or [`BuiltinIssuer::rotate`].
    pub const MAX_TTL: Duration = MAX_TTL;

    /// Loads the key from `state_dir`, or makes it there first.
    ///
    /// Any number of processes may do so at once: all end with the same key.
    ///
    /// # Errors
    /// [`BuiltinError`] if the folder or the file could be in others' hands, or cannot be read or written.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, BuiltinError> {
        let failed = |source| BuiltinError::Write {
            path: state_dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(failed)?;
        let mode = fs::metadata(state_dir)
            .map_err(failed)?
            .permissions()
            .mode()
            & 0o777;
        // Who may write to the folder may replace the key, whatever the file's own mode.
        if mode & 0o022 != 0 {
            return Err(BuiltinError::OpenFolder {
                path: state_dir.to_owned(),
                mode,
            });
        }
        let path = Self::key_file(state_dir);
        match Self::load(state_dir) {
            Err(BuiltinError::File(FileError::Read { source, .. }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                create(state_dir, &path).map_err(|source| BuiltinError::Write { path, source })?;
                Self::load(state_dir)
            }
            loaded => loaded,
        }
    }

    /// Loads the keys that are in `state_dir`.
    fn load(state_dir: &Path) -> Result<Self, BuiltinError> {
        let path = Self::key_file(state_dir);
        // In this order, and a rotation writes in the other: whoever reads the new key finds the old one beside it.
        let issuer = Self::from_file(KeyFile::read(&path)?, &path)?;
        Ok(Self {
            earlier: rotation::earlier(state_dir)?,
            folder: Some(state_dir.to_owned()),
            ..issuer
        })
    }

    /// Where the key lives within `state_dir`.
    pub fn key_file(state_dir: &Path) -> PathBuf {
        state_dir.join("issuer.ed25519.pem")
    }

    /// An issuer whose key is in memory only: its tokens end with the process.
    pub fn ephemeral() -> Result<Self, BuiltinError> {
        Ok(Self::from_pair(
            &Ed25519KeyPair::generate().map_err(|_| BuiltinError::NoRandomness)?,
        ))
    }

    /// The id of the key that signs: the RFC 7638 thumbprint.
    pub fn key_id(&self) -> &str {
        &self.current.key_id
    }

    /// Its keys: the one that signs, then the earlier ones, newest first, retired ones included.
    pub fn keys(&self) -> impl Iterator<Item = &IssuerKey> {
        let current = &self.current;
        // A rotation that was cut off may have written down as replaced the key that still signs.
        let earlier = self.earlier.iter().rev();
        std::iter::once(current).chain(earlier.filter(|key| key.key_id != current.key_id))
    }

    pub(in crate::auth) fn signing_key(&self) -> &EncodingKey {
        &self.signing
    }

    fn from_file(file: KeyFile, path: &Path) -> Result<Self, BuiltinError> {
        let file = file.secret()?;
        let broken = || BuiltinError::Broken {
            path: path.to_owned(),
        };
        let text = std::str::from_utf8(&file.bytes).map_err(|_| broken())?;
        match pem::decode(text) {
            Ok(("PRIVATE KEY", der)) => {
                let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| broken())?;
                let mut issuer = Self::from_pair(&pair);
                issuer.current.created = file.changed;
                Ok(issuer)
            }
            _ => Err(broken()),
        }
    }

    fn from_pair(pair: &Ed25519KeyPair) -> Self {
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self {
            signing: EncodingKey::from_ed_der(&private_der(pair)),
            current: IssuerKey::new(public, None, None),
            earlier: Vec::new(),
            folder: None,
        }
    }
}

impl fmt::Debug for BuiltinIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltinIssuer")
            .field("key_id", &self.current.key_id)
            .finish_non_exhaustive()
    }
}

/// PKCS#8 version 1, which every tool reads.
fn private_der(pair: &Ed25519KeyPair) -> Vec<u8> {
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'static> = pair
        .as_der()
        .expect("a key pair that exists in memory can be written as DER. This is a bug.");
    der.as_ref().to_vec()
}

/// Writes a new key to `path`, unless another process was faster.
///
/// The file is complete before it has its name, and `link` refuses a name that is taken: no reader ever sees half a key
/// and no start ever replaces one.
fn create(state_dir: &Path, path: &Path) -> io::Result<()> {
    let draft = write_draft(state_dir, &new_key()?)?;
    let linked = match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    };
    // A draft that stays behind does no harm; a failed start must not hide its own reason.
    let _ = fs::remove_file(&draft);
    linked
}

/// A new private key in PEM.
fn new_key() -> io::Result<Vec<u8>> {
    let pair = Ed25519KeyPair::generate().map_err(no_randomness)?;
    Ok(pem::encode("PRIVATE KEY", &private_der(&pair)).into_bytes())
}

/// Writes `bytes` to a file that only its owner can read and that has no name to others yet.
fn write_draft(state_dir: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut name = [0; 12];
    rand::fill(&mut name).map_err(no_randomness)?;
    let draft = state_dir.join(format!(".issuer.{}", URL_SAFE_NO_PAD.encode(name)));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok(draft)
}

fn no_randomness<E>(_: E) -> io::Error {
    io::Error::other("the system gave no random bytes")
}

pub(in crate::auth) const ISSUER: &str = "mixgate:local";
pub(in crate::auth) const AUDIENCE: &str = "mixgate";
pub(in crate::auth) const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why the built-in issuer has no key.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// The key file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder or the new file.
    #[error("cannot write the built-in issuer's key to {}: {source}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder in which others could replace the key.
    #[error("{} has mode {mode:04o}: others could replace the built-in issuer's key", path.display())]
    OpenFolder {
        /// Which folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that holds something else.
    #[error("{} is not an Ed25519 private key in PEM", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
    },
    /// A list of earlier keys that holds something else.
    #[error("{} is not the built-in issuer's list of earlier keys", path.display())]
    BrokenList {
        /// Which file.
        path: PathBuf,
    },
    /// More rotations than the list of earlier keys has room for.
    #[error("{given} earlier keys still verify, at most {limit} may")]
    TooManyKeys {
        /// How many do.
        given: usize,
        /// The most.
        limit: usize,
    },
    /// An earlier key would outlive every token that it can have signed.
    #[error("the earlier key would verify for {given} s more, 1 s to {limit} s are possible")]
    Keep {
        /// Seconds asked for.
        given: u64,
        /// Most seconds.
        limit: u64,
    },
    /// The system's random source.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

impl BuiltinError {
    /// The next step, for the last line of the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(error) => error.hint(),
            Self::Write { .. } => Some("choose a folder that you may write to (--state-dir)"),
            Self::OpenFolder { .. } => {
                Some("chmod go-w the folder, or choose another (--state-dir)")
            }
            Self::Broken { .. } => {
                Some("move the file away: a new key is made, and tokens of the old one end")
            }
            Self::BrokenList { .. } => Some(
                "move the file away: tokens of earlier keys end, those of the key in use do not",
            ),
            Self::TooManyKeys { .. } => Some("wait until some retire, or drop them: --retire-now"),
            Self::Keep { .. } => {
                Some("the longest token lives 30d; --retire-now ends the earlier keys at once")
            }
            Self::NoRandomness => None,
        }
    }
}
