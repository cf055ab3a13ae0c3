//! Loads a model onto a GPU.

use crate::cli::Failure;
use crate::cli::loading::{Loaded, context, dtype, load_options, ready, text, unloadable};
use crate::cli::room::{Candidate, Place, cache, room};
use crate::config::{Config, DeviceName};
use crate::engine::DeviceRunner;
use crate::model::{Footprint, Limits, Mixtral, MixtralConfig, ModelSource, OnDevice, Storage};
use crate::ops::Cuda;

/// Opens GPU number `ordinal`.
pub(in crate::cli) fn open(ordinal: usize) -> Result<Cuda, Failure> {
    Cuda::open(ordinal)
        .map_err(|error| Failure::of(&error).hint("`nvidia-smi` tells what the driver sees"))
}

/// Loads a model onto GPU number `ordinal`.
pub(in crate::cli) fn load(
    config: &Config,
    source: &ModelSource,
    ordinal: usize,
) -> Result<Loaded, Failure> {
    let settings = &config.model;
    let text = text(settings, source)?;
    let shape = MixtralConfig::of(source).map_err(|error| unloadable(&error))?;
    let options = load_options(config);
    let device = open(ordinal).map_err(|failure| {
        failure.hint("`--device cpu` runs without a GPU; `nvidia-smi` tells what the driver sees")
    })?;
    let device = match settings.wgmma {
        true => device.with_warpgroups().map_err(|error| {
            Failure::of(&error).hint("with --wgmma=false, single warps multiply")
        })?,
        false => device,
    };
    let device = match settings.cublaslt {
        true => device.with_library().map_err(|error| {
            Failure::of(&error).hint("without --cublaslt, kernels of our own multiply")
        })?,
        false => device,
    };
    let (free, _) = device.memory_bytes().map_err(|error| Failure::of(&error))?;
    let name = DeviceName::Cuda(ordinal).to_string();
    let storage = dtype(settings).unwrap_or(Storage::Bf16);
    let candidate = Candidate {
        place: Place::Gpu(&name),
        model: &settings.served_model_name,
        parameters: shape.num_parameters(),
        storage,
    };
    let limits = Limits::of(options);
    let footprint = |storage| Footprint::on_device(&shape, storage, limits);
    let fits = room(candidate, footprint, free)?;
    let context = context(settings, shape.max_position_embeddings)?;
    // More than all sequences at their longest would never be used.
    let most = context.saturating_mul(options.max_logit_rows);
    let kv_cache = cache(settings.kv_cache, most, fits, footprint(storage))?;
    let backend = |config: &_, limits| {
        OnDevice::new(device, config, limits, settings.cuda_graphs)?.storing(storage)
    };
    let model = Mixtral::load_on(source, options, backend).map_err(|error| unloadable(&error))?;
    ready(
        settings,
        text,
        model,
        kv_cache,
        |model, [blocks, size, context]| DeviceRunner::new(model, blocks, size, context),
    )
}
