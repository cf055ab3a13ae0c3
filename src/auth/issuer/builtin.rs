//! The built-in issuer: an Ed25519 key made on first start, for a server without an identity provider.
//!
//! Whoever can read its file can be anybody, so it lives in one file of mode 0600 in a folder of mode 0700 and never
//! leaves the machine. Its tokens are worthless to a server that has issuers configured.

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

use crate::auth::files::KeyFile;
use crate::auth::{FileError, key::pem};

/// Signs tokens for this server's own use.
#[derive(Clone)]
pub struct BuiltinIssuer {
    signing: EncodingKey,
    public: [u8; 32],
    key_id: String,
}

impl BuiltinIssuer {
    /// The `iss` of its tokens. The same on every machine; the key is not.
    pub const ISSUER: &str = ISSUER;
    /// The `aud` of its tokens.
    pub const AUDIENCE: &str = AUDIENCE;
    /// The longest life of its tokens, 30 days: enough for a benchmark or a notebook, too short to be forgotten in a
    /// configuration file for years. There is no revocation but to delete the key.
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
        match KeyFile::read(&path) {
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(state_dir, &path).map_err(|source| BuiltinError::Write {
                    path: path.clone(),
                    source,
                })?;
                Self::from_file(KeyFile::read(&path)?, &path)
            }
            file => Self::from_file(file?, &path),
        }
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

    /// The id of its key: the RFC 7638 thumbprint.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    pub(in crate::auth) fn signing_key(&self) -> &EncodingKey {
        &self.signing
    }

    pub(in crate::auth) fn verifying_key(&self) -> DecodingKey {
        DecodingKey::from_ed_der(&self.public)
    }

    fn from_file(file: KeyFile, path: &Path) -> Result<Self, BuiltinError> {
        let file = file.secret()?;
        let broken = || BuiltinError::Broken {
            path: path.to_owned(),
        };
        let text = std::str::from_utf8(&file.bytes).map_err(|_| broken())?;
        match pem::decode(text) {
            Ok(("PRIVATE KEY", der)) => Ok(Self::from_pair(
                &Ed25519KeyPair::from_pkcs8(&der).map_err(|_| broken())?,
            )),
            _ => Err(broken()),
        }
    }

    fn from_pair(pair: &Ed25519KeyPair) -> Self {
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        // RFC 7638 §3: the required members in lexicographic order, without white space.
        let canonical = format!(
            r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
            URL_SAFE_NO_PAD.encode(public)
        );
        Self {
            signing: EncodingKey::from_ed_der(&private_der(pair)),
            public,
            key_id: URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes())),
        }
    }
}

impl fmt::Debug for BuiltinIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltinIssuer")
            .field("key_id", &self.key_id)
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
/// and no writer ever replaces one.
fn create(state_dir: &Path, path: &Path) -> io::Result<()> {
    let no_randomness = |_| io::Error::other("the system gave no random bytes");
    let pair = Ed25519KeyPair::generate().map_err(no_randomness)?;
    let mut name = [0; 12];
    rand::fill(&mut name).map_err(no_randomness)?;
    let draft = state_dir.join(format!(".issuer.{}", URL_SAFE_NO_PAD.encode(name)));
    let written = write_draft(
        &draft,
        pem::encode("PRIVATE KEY", &private_der(&pair)).as_bytes(),
    );
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    });
    // A draft that stays behind does no harm; a failed start must not hide its own reason.
    let _ = fs::remove_file(&draft);
    linked
}

fn write_draft(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
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
            Self::NoRandomness => None,
        }
    }
}
