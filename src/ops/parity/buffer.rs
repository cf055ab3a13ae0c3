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

    /// With nothing in it: the emulation refuses to read what nobody has written, a GPU finds bytes of 0xcc. With
    /// `MIXGATE_TEST_POISON=off` a GPU's memory stays untouched, so that compute-sanitizer's initcheck sees what was not written.
    pub fn poisoned(len: usize) -> Self {
        Self::poisoned_on(TestDevice::default(), len)
    }

    /// The same for work that is asked of this device: on a GPU it has a stream of its own.
    pub fn poisoned_on(device: TestDevice, len: usize) -> Self {
        let buffer = Self::empty_on(device, len);
        let is_off = std::env::var_os("MIXGATE_TEST_POISON").is_some_and(|it| it == "off");
        if !buffer.device.is_emulated() && !is_off {
            let poison = vec![0xcc; len * size_of::<T>()];
            buffer.device.upload(&poison, buffer.address()).unwrap();
        }
        buffer
    }

    fn empty(len: usize) -> Self {
        Self::empty_on(TestDevice::default(), len)
    }

    fn empty_on(device: TestDevice, len: usize) -> Self {
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
