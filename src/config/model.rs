//! What `--model` may name: a model with weights, or one that computes nothing. And how its weights are stored.

use std::path::PathBuf;

use super::value::{Value, quoted};
use crate::engine::null::NullName;
use crate::model::Storage;
use crate::model::{ModelSource, Synthetic};

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    /// A model with weights.
    Real(ModelSource),
    /// A null model: it answers without computing.
    Null(NullName),
}

impl Model {
    /// What to call it if the operator does not say: `seedling`, the last component of the folder, or what stands
    /// after `null:`.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Real(ModelSource::Seedling) => SEEDLING.to_owned(),
            Self::Real(ModelSource::Synthetic(model)) => model.to_string(),
            Self::Real(ModelSource::Folder(path)) => {
                let full = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                full.file_name().map_or_else(
                    || "model".to_owned(),
                    |name| name.to_string_lossy().into_owned(),
                )
            }
            Self::Null(name) => name.to_string(),
        }
    }

    /// Whether `text` names a model rather than a folder.
    pub(super) fn is_name(text: &str) -> bool {
        text == SEEDLING || text.starts_with(NULL) || text.starts_with(SYNTHETIC)
    }
}

impl Value for Model {
    const WANTED: &'static str =
        "\"seedling\", a checkpoint folder, synthetic:SHAPE or null:SHAPE[@DEVICE-PRECISION]";
    const IS_PATH: bool = true;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "" => None,
            SEEDLING => Some(Self::Real(ModelSource::Seedling)),
            text => match (text.strip_prefix(NULL), text.strip_prefix(SYNTHETIC)) {
                (Some(name), _) => NullName::parse(name).ok().map(Self::Null),
                (_, Some(name)) => {
                    let model = Synthetic::parse(name).ok()?;
                    Some(Self::Real(ModelSource::Synthetic(model)))
                }
                _ => Some(Self::Real(ModelSource::Folder(PathBuf::from(text)))),
            },
        }
    }

    fn hint(text: &str) -> Option<String> {
        match (text.strip_prefix(NULL), text.strip_prefix(SYNTHETIC)) {
            (Some(name), _) => NullName::parse(name).err().map(|error| error.to_string()),
            (_, Some(name)) => Synthetic::parse(name).err().map(|error| error.to_string()),
            _ => None,
        }
    }

    fn toml(&self) -> String {
        match self {
            Self::Real(ModelSource::Seedling) => quoted(SEEDLING),
            Self::Real(ModelSource::Folder(path)) => quoted(&path.to_string_lossy()),
            Self::Real(ModelSource::Synthetic(model)) => quoted(&format!("{SYNTHETIC}{model}")),
            Self::Null(name) => quoted(&format!("{NULL}{name}")),
        }
    }
}

/// How the weights of linear layers are stored; `None`: as the checkpoint has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dtype(pub Option<Storage>);

impl Value for Dtype {
    const WANTED: &'static str = "auto, w4a16, q8_0, q4_k, fp8, bf16 or f32";

    fn parse(text: &str) -> Option<Self> {
        match text {
            AUTO => Some(Self(None)),
            name => Storage::named(name).map(|storage| Self(Some(storage))),
        }
    }

    fn hint(text: &str) -> Option<String> {
        let plain = text.to_ascii_lowercase().replace('-', "_");
        let name = match &*plain {
            "bfloat16" => "bf16",
            "float32" | "fp32" => "f32",
            "q8" | "int8" => "q8_0",
            "q4" | "int4" | "q4_k_m" => "q4_k or w4a16",
            name => Storage::named(name)?.name(),
        };
        Some(format!("write {name}"))
    }

    fn toml(&self) -> String {
        quoted(self.0.map_or(AUTO, Storage::name))
    }
}

/// As the checkpoint has them.
const AUTO: &str = "auto";
/// The name of the model in the binary.
const SEEDLING: &str = "seedling";
/// What a null model's name begins with. A folder of that name is reached as `./null:…`.
const NULL: &str = "null:";
/// What a synthetic model's name begins with; likewise.
const SYNTHETIC: &str = "synthetic:";
