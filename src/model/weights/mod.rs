//! Weights of a checkpoint: safetensors in one file or in shards, on disk or in the binary.

use std::collections::HashMap;
use std::path::Path;

use candle_core::safetensors::{MmapedSafetensors, SliceSafetensors};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use serde::Deserialize;

use super::files::seedling_file;
use super::{MixtralConfig, ModelError, ModelSource, Synthetic};
use crate::ops::Storage;

mod stored;

/// An opened checkpoint. Tensors are copied out one by one; nothing else is held in memory. (Of a file that is mapped the
/// system may keep pages that were read, for as long as nobody needs their room.)
pub struct Checkpoint {
    shards: Vec<Shard>,
    /// The shard of each tensor; without an index the only one has them all.
    index: Option<HashMap<String, usize>>,
    /// Makes up every tensor, instead of the shards.
    synthetic: Option<Synthetic>,
}

struct Shard {
    file: String,
    content: Content,
}

/// A tensor's bytes, little-endian, and where they are from.
struct Found<'a> {
    file: &'a str,
    dtype: DType,
    bytes: &'a [u8],
}

enum Content {
    Mapped(MmapedSafetensors),
    Embedded(SliceSafetensors<'static>),
}

impl Checkpoint {
    /// Opens the weights of `source`; reads headers only.
    ///
    /// # Errors
    /// [`ModelError`] naming the file that is missing, cut off or malformed.
    pub fn open(source: &ModelSource) -> Result<Self, ModelError> {
        let (shards, index) = match source {
            ModelSource::Synthetic(_) => (Vec::new(), None),
            ModelSource::Seedling => (vec![Shard::embedded()?], None),
            ModelSource::Folder(folder) => match source.read(INDEX)? {
                Some(json) => open_indexed(folder, &json)?,
                None if folder.join(SINGLE).exists() => (vec![Shard::map(folder, SINGLE)?], None),
                None => {
                    let problem = format!("neither it nor {INDEX} is in {}", source.place());
                    return Err(ModelError::file(SINGLE, problem));
                }
            },
        };
        let synthetic = match source {
            ModelSource::Synthetic(model) => Some(*model),
            _ => None,
        };
        Ok(Self {
            shards,
            index,
            synthetic,
        })
    }

    /// How a tensor is held once it is read: in f32 or bf16.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    fn held_as(&self, name: &str, shape: &[usize]) -> Result<Storage, ModelError> {
        if self.synthetic.is_some() {
            return Ok(Storage::Bf16);
        }
        Ok(match self.find(name, shape)?.dtype {
            DType::BF16 => Storage::Bf16,
            _ => Storage::F32,
        })
    }

    /// What makes it up, if it is.
    pub fn synthetic(&self) -> Option<&Synthetic> {
        self.synthetic.as_ref()
    }

    /// A tensor as it is stored: f32 or bf16. f16 is widened to f32.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] if it is missing, of another shape or of another type.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.stacked(&[name.to_string()], shape, shape)
    }

    /// A small tensor, widened to f32.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn widened(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        Ok(self.tensor(name, shape)?.to_dtype(DType::F32)?)
    }

    /// Tensors of one shape, one after the other, as one tensor of shape `stack`. Each is copied once, to its place.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`]; also if they are not all of one type.
    pub fn stacked(
        &self,
        names: &[String],
        shape: &[usize],
        stack: &[usize],
    ) -> Result<Tensor, ModelError> {
        let each = shape.iter().product::<usize>();
        if let Some(model) = &self.synthetic {
            let mut weights = vec![bf16::ZERO; each * names.len()];
            for (name, weights) in names.iter().zip(weights.chunks_exact_mut(each.max(1))) {
                model.fill(name, shape, weights);
            }
            return Ok(Tensor::from_vec(weights, stack, &Device::Cpu)?);
        }
        let found = self.find_all(names, shape)?;
        let count = each * names.len();
        let mut elements: Option<Elements> = None;
        for (name, Found { file, dtype, bytes }) in names.iter().zip(found) {
            let elements = match (&mut elements, dtype) {
                (Some(elements), _) => elements,
                (none, DType::BF16) => none.insert(Elements::Bf16(Vec::with_capacity(count))),
                (none, _) => none.insert(Elements::F32(Vec::with_capacity(count))),
            };
            if !elements.append(dtype, bytes) {
                let problem = format!(
                    "is {dtype:?}, unlike `{}`: experts of a layer share one type",
                    names[0]
                );
                return Err(ModelError::tensor(file, name, problem));
            }
        }
        let tensor = match elements {
            Some(Elements::F32(elements)) => Tensor::from_vec(elements, stack, &Device::Cpu),
            Some(Elements::Bf16(elements)) => Tensor::from_vec(elements, stack, &Device::Cpu),
            None => Tensor::zeros(stack, DType::F32, &Device::Cpu),
        };
        Ok(tensor?)
    }

    /// All are looked up before memory is taken: the configuration alone may ask for any amount.
    fn find_all(&self, names: &[String], shape: &[usize]) -> Result<Vec<Found<'_>>, ModelError> {
        names.iter().map(|name| self.find(name, shape)).collect()
    }

    /// The stored bytes of a tensor, once its shape and type are known to be right.
    fn find(&self, name: &str, shape: &[usize]) -> Result<Found<'_>, ModelError> {
        let shard = match &self.index {
            None => Some(0),
            Some(index) => index.get(name).copied(),
        };
        let Some(shard) = shard.map(|shard| &self.shards[shard]) else {
            return Err(ModelError::tensor(INDEX, name, "is not in the index"));
        };
        let view = match &shard.content {
            Content::Mapped(file) => file.get(name),
            Content::Embedded(file) => file.get(name),
        };
        let view = view.map_err(|_| ModelError::tensor(&shard.file, name, "is missing"))?;
        let wrong = |problem: String| ModelError::tensor(&shard.file, name, problem);
        if view.shape() != shape {
            let problem = format!(
                "is of shape {:?}; the configuration says {shape:?}",
                view.shape()
            );
            return Err(wrong(problem));
        }
        match DType::try_from(view.dtype()) {
            Ok(dtype @ (DType::F32 | DType::BF16 | DType::F16)) => Ok(Found {
                file: &shard.file,
                dtype,
                bytes: view.data(),
            }),
            _ => Err(wrong(format!(
                "is stored as {:?}; supported are f32, bf16 and f16",
                view.dtype()
            ))),
        }
    }
}

/// How a checkpoint's embeddings and its linear layers are held unless they are to be stored otherwise, as the first of
/// each says. Reads headers only.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::tensor`].
pub fn stored_types(
    source: &ModelSource,
    config: &MixtralConfig,
) -> Result<[Storage; 2], ModelError> {
    let checkpoint = Checkpoint::open(source)?;
    let hidden = config.hidden_size;
    Ok([
        checkpoint.held_as("model.embed_tokens.weight", &[config.vocab_size, hidden])?,
        checkpoint.held_as(
            "model.layers.0.self_attn.q_proj.weight",
            &[config.q_width(), hidden],
        )?,
    ])
}

impl Shard {
    #[allow(unsafe_code)] // the one mmap: weights are read once, from files far larger than what is copied out
    fn map(folder: &Path, file: &str) -> Result<Self, ModelError> {
        let path = folder.join(file);
        if let Err(source) = std::fs::File::open(&path) {
            return Err(ModelError::Read { path, source });
        }
        // SAFETY: sound as long as nobody edits the file while it loads, which is the premise of every checkpoint
        // folder: writers put a new file in place of the old one. Cut short, the file ends the process with SIGBUS.
        let content = unsafe { MmapedSafetensors::new(&path) };
        let content = content.map_err(|error| not_safetensors(file, &error))?;
        Ok(Self {
            file: file.to_string(),
            content: Content::Mapped(content),
        })
    }

    fn embedded() -> Result<Self, ModelError> {
        let bytes = seedling_file(SINGLE)?.ok_or(ModelError::NoSeedling)?;
        let content =
            SliceSafetensors::new(bytes).map_err(|error| not_safetensors(SINGLE, &error))?;
        Ok(Self {
            file: SINGLE.to_string(),
            content: Content::Embedded(content),
        })
    }
}

fn not_safetensors(file: &str, error: &candle_core::Error) -> ModelError {
    // Candle appends a backtrace where RUST_BACKTRACE asks for one.
    let cause = error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_string();
    ModelError::file(file, format!("is cut off or no safetensors file ({cause})"))
}

type Indexed = (Vec<Shard>, Option<HashMap<String, usize>>);

fn open_indexed(folder: &Path, json: &[u8]) -> Result<Indexed, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let Index { weight_map } =
        serde_json::from_slice(json).map_err(|error| ModelError::file(INDEX, error.to_string()))?;
    let mut files: Vec<&String> = weight_map.values().collect();
    files.sort_unstable();
    files.dedup();
    let mut shards = Vec::with_capacity(files.len());
    for file in &files {
        if Path::new(file.as_str())
            .file_name()
            .is_none_or(|name| name != file.as_str())
        {
            return Err(ModelError::file(
                INDEX,
                format!("names \"{file}\", which is not a file of the folder itself"),
            ));
        }
        if !folder.join(file).exists() {
            return Err(ModelError::file(
                INDEX,
                format!("names {file}, which is not in {}", folder.display()),
            ));
        }
        shards.push(Shard::map(folder, file)?);
    }
    let shard_of = |file: &String| {
        files
            .binary_search(&file)
            .expect("`files` holds every value. This is a bug.")
    };
    let index = weight_map
        .iter()
        .map(|(tensor, file)| (tensor.clone(), shard_of(file)))
        .collect();
    Ok((shards, Some(index)))
}

enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Elements {
    /// Adds little-endian elements; false if their type does not belong here.
    fn append(&mut self, dtype: DType, bytes: &[u8]) -> bool {
        match (self, dtype) {
            (Self::F32(elements), DType::F32) => {
                elements.extend(
                    bytes
                        .as_chunks::<4>()
                        .0
                        .iter()
                        .map(|bytes| f32::from_le_bytes(*bytes)),
                );
            }
            (Self::F32(elements), DType::F16) => {
                elements.extend(
                    bytes
                        .as_chunks::<2>()
                        .0
                        .iter()
                        .map(|bytes| f16::from_le_bytes(*bytes).to_f32()),
                );
            }
            (Self::Bf16(elements), DType::BF16) => {
                elements.extend(
                    bytes
                        .as_chunks::<2>()
                        .0
                        .iter()
                        .map(|bytes| bf16::from_le_bytes(*bytes)),
                );
            }
            _ => return false,
        }
        true
    }
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[cfg(test)]
mod tests;
