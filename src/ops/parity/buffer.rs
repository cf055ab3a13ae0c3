//! Numbers on the device that tests run on.

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::Pod;

use crate::ops::test_device::{TestDevice, TestMemory};
use crate::ops::{Address, Device, Memory};

/// `len` elements in device memory.
pub(super) struct Buffer<T: Pod> {
    device: TestDevice,
    memory: TestMemory,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// With these elements in it.
    pub fn new(elements: &[T]) -> Self {
        let buffer = Self::empty(elements.len());
        buffer.write(0, elements);
        buffer
    }

    /// With nothing in it: the emulation refuses to read what nobody has written, a GPU finds bytes of 0xcc.
    pub fn poisoned(len: usize) -> Self {
        let buffer = Self::empty(len);
        if !buffer.device.is_emulated() {
            let poison = vec![0xcc; len * size_of::<T>()];
            buffer.device.upload(&poison, buffer.address()).unwrap();
        }
        buffer
    }

    fn empty(len: usize) -> Self {
        let device = TestDevice::default();
        let memory = device.allocate(len * size_of::<T>()).unwrap();
        Self {
            device,
            memory,
            len,
            elements: PhantomData,
        }
    }

    /// Writes elements from `index` on.
    pub fn write(&self, index: usize, elements: &[T]) {
        assert!(index + elements.len() <= self.len, "beyond the buffer");
        let to = self.address().offset(index * size_of::<T>());
        self.device
            .upload(bytemuck::cast_slice(elements), to)
            .unwrap();
    }

    /// What is in it now. In the emulation, an element that nobody has written fails the test.
    pub fn values(&self) -> Vec<T> {
        self.memory.assert_written();
        self.raw_values()
    }

    /// Some of what is in it now, which somebody has written: the emulation refuses to copy anything else.
    pub fn read(&self, range: Range<usize>) -> Vec<T> {
        let mut values = vec![T::zeroed(); range.len()];
        let from = self.address().offset(range.start * size_of::<T>());
        if !values.is_empty() {
            let bytes = bytemuck::cast_slice_mut(&mut values);
            self.device.download(from, bytes).unwrap();
        }
        values
    }

    /// What is in it now, whether anybody has written it or not.
    pub fn raw_values(&self) -> Vec<T> {
        let mut values = vec![T::zeroed(); self.len];
        let bytes = bytemuck::cast_slice_mut(&mut values);
        self.device.download(self.address(), bytes).unwrap();
        values
    }

    pub fn address(&self) -> Address {
        self.memory.address()
    }
}
