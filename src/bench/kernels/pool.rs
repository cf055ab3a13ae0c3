//! Tensors of one measurement: taken one by one, filled with numbers that are ordinary, given back together.

use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::{Cost, Effort, KernelBenchError};
use crate::engine::philox::RandomStream;
use crate::ops::{Address, Blocks, Device, Launch, Memory, OpError, Packed, PackedFormat};

/// Device memory that lives as long as a measurement.
pub(super) struct Pool<'a, D: Device> {
    pub device: &'a D,
    effort: &'a Effort,
    taken: u64,
    memory: Vec<D::Memory>,
    /// Numbers between −1 and 1.
    pattern: Vec<f32>,
}

/// Launches that are ready to run.
pub(super) struct Case {
    /// What each set costs.
    pub cost: Cost,
    /// The same work on tensors of its own, several times over: by its turn, a set has left the caches.
    pub sets: Vec<Vec<Work>>,
}

/// Something that a device does.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// A kernel of ours.
    Launch(Launch),
    /// A product as the device sees fit: [`Device::multiply`].
    Multiply([Address; 3], [u32; 3]),
}

impl Work {
    pub fn on<D: Device>(&self, device: &D) -> Result<(), OpError> {
        match self {
            Self::Launch(launch) => device.launch(launch),
            &Self::Multiply(at, sizes) => device.multiply(at, sizes),
        }
    }
}

impl From<Launch> for Work {
    fn from(launch: Launch) -> Self {
        Self::Launch(launch)
    }
}

impl<'a, D: Device> Pool<'a, D> {
    pub fn new(device: &'a D, effort: &'a Effort) -> Self {
        Self {
            device,
            effort,
            taken: 0,
            memory: Vec::new(),
            pattern: (0..PATTERN).map(uniform).collect(),
        }
    }

    /// As many sets as it takes until the first has left the caches. `make` is told which set it makes.
    pub fn case<W: Into<Work>>(
        &mut self,
        cost: Cost,
        mut make: impl FnMut(&mut Self, usize) -> Result<Vec<W>, KernelBenchError>,
    ) -> Result<Case, KernelBenchError> {
        let enough = (self.effort.cold_bytes as u64).div_ceil(cost.bytes.max(1));
        let count = (enough as usize).min(self.effort.most_sets).max(2);
        let mut sets = Vec::with_capacity(count);
        for set in 0..count {
            sets.push(make(self, set)?.into_iter().map(W::into).collect());
        }
        Ok(Case { cost, sets })
    }

    /// A tensor that a kernel writes.
    ///
    /// # Errors
    /// [`KernelBenchError::NoRoom`] if it is one too many.
    pub fn empty(&mut self, bytes: usize) -> Result<Address, KernelBenchError> {
        let wanted = self.taken + (bytes as u64).next_multiple_of(GRANULE);
        let no_room = |room| KernelBenchError::NoRoom { wanted, room };
        if wanted > self.effort.room {
            return Err(no_room(self.effort.room));
        }
        // Memory that was free at the start may be in pieces, or somebody else's by now. A kernel's fault does not come
        // up here: it was waited for before.
        let allocated = self.device.allocate(bytes);
        let memory = allocated.map_err(|_| no_room(self.taken))?;
        let address = memory.address();
        self.memory.push(memory);
        self.taken = wanted;
        Ok(address)
    }

    /// A tensor of `pattern`, again and again.
    pub fn filled(&mut self, pattern: &[u8], bytes: usize) -> Result<Address, KernelBenchError> {
        let address = self.empty(bytes)?;
        let mut done = pattern.len().min(bytes);
        self.device.upload(&pattern[..done], address)?;
        // Doubled while less than half of it is there: pieces stay whole patterns but for the last.
        while done < bytes {
            let more = done.min(bytes - done);
            self.device.copy(address, address.offset(done), more)?;
            done += more;
        }
        Ok(address)
    }

    /// Numbers between −1 and 1, f32.
    pub fn floats(&mut self, elements: usize) -> Result<Address, KernelBenchError> {
        let pattern = self.pattern.clone();
        self.filled(bytemuck::cast_slice(&pattern), elements * 4)
    }

    /// Numbers between −1 and 1, bf16.
    pub fn halves(&mut self, elements: usize) -> Result<Address, KernelBenchError> {
        let pattern: Vec<bf16> = self.pattern.iter().copied().map(bf16::from_f32).collect();
        let bits: &[u16] = pattern.reinterpret_cast();
        self.filled(bytemuck::cast_slice(bits), elements * 2)
    }

    /// Just these.
    pub fn words(&mut self, words: &[u32]) -> Result<Address, KernelBenchError> {
        self.filled(bytemuck::cast_slice(words), size_of_val(words))
    }

    /// Weights as a model stores them, `[experts, rows, columns]`.
    pub fn weights(
        &mut self,
        format: Option<PackedFormat>,
        sizes: [usize; 3],
    ) -> Result<Address, KernelBenchError> {
        let Some(format) = format else {
            return self.halves(sizes.iter().product());
        };
        let [experts, rows, columns] = sizes;
        // A few strips of the packed form stand for all of them.
        let shape = [1, STRIPS_ROWS, columns];
        let strips = Blocks::quantise(format.storage(), shape, |row, weights| {
            let numbers = self.pattern.iter().cycle().skip(row * columns % PATTERN);
            weights
                .iter_mut()
                .zip(numbers)
                .for_each(|(to, &it)| *to = it);
        })?;
        let packed = Packed::new(&strips)?.bytes;
        self.filled(&packed, format.bytes(experts, rows, columns))
    }
}

/// Bytes of such weights.
pub(super) fn weight_bytes(
    format: Option<PackedFormat>,
    [experts, rows, columns]: [usize; 3],
) -> usize {
    match format {
        None => experts * rows * columns * size_of::<bf16>(),
        Some(format) => format.bytes(experts, rows, columns),
    }
}

/// `0..count` in a pseudo-random order, always the same one for the same `stream`.
pub(super) fn shuffled(count: usize, stream: u32) -> Vec<u32> {
    let random = RandomStream::new(SEED, stream);
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        let other = (random.uniform(last) * (last + 1) as f64) as usize;
        order.swap(last, other);
    }
    order
}

fn uniform(place: usize) -> f32 {
    (2.0 * RandomStream::new(SEED, 0).uniform(place) - 1.0) as f32
}

const SEED: u64 = 0x6d69_7867;
/// Elements after which numbers repeat: no power of two, so that rows differ; whole lines of 128, so that copies are fast.
const PATTERN: usize = 63 * 128;
/// Rows of a few strips of packed weights.
const STRIPS_ROWS: usize = 64;
/// What an allocation takes at least, in bytes.
const GRANULE: u64 = 512;
