//! The files that make up a model, from a folder or from the binary itself.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{ModelError, Synthetic};

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The seedling embedded in the binary.
    Seedling,
    /// A Hugging Face checkpoint folder.
    Folder(PathBuf),
    /// Random weights of a named shape. It reads and speaks the seedling's tokens.
    Synthetic(Synthetic),
}

impl ModelSource {
    /// What to call the model: `seedling`, the folder's name, or the shape's.
    pub fn name(&self) -> String {
        let path = match self {
            Self::Seedling => return "seedling".to_string(),
            Self::Synthetic(model) => return model.to_string(),
            Self::Folder(path) => path,
        };
        // `.` and `..` have no name of their own.
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        path.file_name().map_or_else(
            || "model".to_string(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    /// Reads a small file, all of it; `None` if there is none.
    pub(super) fn read(
        &self,
        file: &'static str,
    ) -> Result<Option<Cow<'static, [u8]>>, ModelError> {
        match self {
            Self::Seedling => seedling_file(file).map(|bytes| bytes.map(Cow::Borrowed)),
            Self::Synthetic(model) if file == "config.json" => {
                Ok(Some(Cow::Owned(model.config().into_bytes())))
            }
            Self::Synthetic(_)
                if file.starts_with("tokenizer") || file == "chat_template.jinja" =>
            {
                Self::Seedling.read(file)
            }
            Self::Synthetic(_) => Ok(None),
            Self::Folder(folder) => {
                read_if_there(&folder.join(file)).map(|bytes| bytes.map(Cow::Owned))
            }
        }
    }

    /// Reads a small file that must be there.
    pub(super) fn require(&self, file: &'static str) -> Result<Cow<'static, [u8]>, ModelError> {
        if let Self::Folder(folder) = self
            && !folder.is_dir()
        {
            let source = std::io::Error::new(ErrorKind::NotFound, "no such folder");
            return Err(ModelError::Read {
                path: folder.clone(),
                source,
            });
        }
        let bytes = self.read(file)?;
        bytes.ok_or_else(|| ModelError::file(file, format!("not found in {}", self.place())))
    }

    /// Where the files are, for messages.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Seedling => "the embedded seedling".to_string(),
            Self::Synthetic(model) => format!("the synthetic {model}"),
            Self::Folder(folder) => folder.display().to_string(),
        }
    }
}

/// The bytes of the files that turn text into token ids and back.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// What to call the model: `seedling`, or the folder's name.
    pub name: String,
    /// `tokenizer.json`
    pub tokenizer: Cow<'static, [u8]>,
    /// `tokenizer_config.json`, if there is one
    pub tokenizer_config: Option<Cow<'static, [u8]>>,
    /// `chat_template.jinja`, if there is one
    pub chat_template: Option<String>,
}

impl ModelFiles {
    /// Reads them.
    ///
    /// # Errors
    /// [`ModelError`] naming the file that is missing or unreadable.
    pub fn open(source: &ModelSource) -> Result<Self, ModelError> {
        const TEMPLATE: &str = "chat_template.jinja";
        let chat_template = match source.read(TEMPLATE)? {
            None => None,
            Some(bytes) => Some(
                String::from_utf8(bytes.into_owned())
                    .map_err(|_| ModelError::file(TEMPLATE, "is not UTF-8 text"))?,
            ),
        };
        Ok(Self {
            name: source.name(),
            tokenizer: source.require("tokenizer.json")?,
            tokenizer_config: source.read("tokenizer_config.json")?,
            chat_template,
        })
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, ModelError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Read {
            path: path.to_path_buf(),
            source,
        }),
    }
}

/// A file of the embedded model.
#[cfg(feature = "seedling")]
pub(super) fn seedling_file(file: &str) -> Result<Option<&'static [u8]>, ModelError> {
    macro_rules! embedded {
        ($name:literal) => {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/models/seedling/",
                $name
            ))
        };
    }
    Ok(match file {
        "config.json" => Some(embedded!("config.json")),
        "generation_config.json" => Some(embedded!("generation_config.json")),
        "tokenizer.json" => Some(embedded!("tokenizer.json")),
        "tokenizer_config.json" => Some(embedded!("tokenizer_config.json")),
        "chat_template.jinja" => Some(embedded!("chat_template.jinja")),
        "model.safetensors" => Some(embedded!("model.safetensors")),
        _ => None,
    })
}

/// A file of the embedded model.
#[cfg(not(feature = "seedling"))]
pub(super) fn seedling_file(_file: &str) -> Result<Option<&'static [u8]>, ModelError> {
    Err(ModelError::NoSeedling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_name_and_only_the_files_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny-mixtral");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("tokenizer.json"), b"{}").unwrap();
        let files = ModelFiles::open(&ModelSource::Folder(path.join("."))).unwrap();
        assert_eq!(
            (files.name.as_str(), &*files.tokenizer),
            ("tiny-mixtral", &b"{}"[..])
        );
        assert!(files.tokenizer_config.is_none() && files.chat_template.is_none());
        std::fs::write(path.join("chat_template.jinja"), "{{ x }}").unwrap();
        let files = ModelFiles::open(&ModelSource::Folder(path)).unwrap();
        assert_eq!(files.chat_template.as_deref(), Some("{{ x }}"));
    }

    #[test]
    fn a_missing_tokenizer_or_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = ModelFiles::open(&ModelSource::Folder(folder.path().into())).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("tokenizer.json: not found in "),
            "{error}"
        );
        let error = ModelFiles::open(&ModelSource::Folder(folder.path().join("gone"))).unwrap_err();
        assert!(
            error.to_string().ends_with("gone: no such folder"),
            "{error}"
        );
    }

    #[cfg(feature = "seedling")]
    #[test]
    fn the_seedling_is_embedded_whole() {
        let files = ModelFiles::open(&ModelSource::Seedling).unwrap();
        assert_eq!(files.name, "seedling");
        assert!(files.tokenizer_config.is_some() && files.chat_template.is_some());
    }
}
