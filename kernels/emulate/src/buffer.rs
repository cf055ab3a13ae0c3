//! Device memory.

use std::cell::UnsafeCell;

use super::{
    Argument, emulated_register, emulated_unregister, emulated_unwritten, emulated_written, machine,
};

/// What kernels read and write: plain numbers.
///
/// # Safety
/// Any bytes are a value, and there is no padding.
#[allow(unsafe_code)]
pub unsafe trait Element: Copy + Send + 'static {}
macro_rules! elements {
    ($($t:ty),*) => { $(
        // SAFETY: numbers have no padding, and any bytes are one.
        #[allow(unsafe_code)]
        unsafe impl Element for $t {}
    )* };
}
elements!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

/// Device memory: `len` elements, 256-byte aligned as cudaMalloc's are, known to the judge.
pub struct Buffer<T: Element> {
    memory: Box<UnsafeCell<[Line]>>,
    len: usize,
    elements: std::marker::PhantomData<T>,
}

#[repr(align(256))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code, reason = "read through the buffer's address")] [u8; 256]);

// SAFETY: the memory is touched under the machine's lock only.
#[allow(unsafe_code)]
unsafe impl<T: Element> Send for Buffer<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Element> Sync for Buffer<T> {}

impl<T: Element> Buffer<T> {
    /// With these elements in it.
    pub fn new(elements: &[T]) -> Self {
        let buffer = Self::allocate(elements.len(), true);
        let _machine = machine();
        // SAFETY: as many bytes as `allocate` made room for, which nobody else touches under the lock.
        #[allow(unsafe_code)]
        unsafe {
            let bytes = size_of_val(elements);
            std::ptr::copy_nonoverlapping(elements.as_ptr().cast::<u8>(), buffer.start(), bytes);
        }
        buffer
    }

    /// Full of bytes that nobody has written: reading one before a kernel has written it is a fault.
    pub fn poisoned(len: usize) -> Self {
        Self::allocate(len, false)
    }

    fn allocate(len: usize, initialised: bool) -> Self {
        let lines = (len * size_of::<T>()).div_ceil(256).max(1);
        let memory: Box<[Line]> = vec![Line([0xcc; 256]); lines].into_boxed_slice();
        // SAFETY: UnsafeCell has the layout of what is in it.
        #[allow(unsafe_code)]
        let memory = unsafe { Box::from_raw(Box::into_raw(memory) as *mut UnsafeCell<[Line]>) };
        let buffer = Self {
            memory,
            len,
            elements: std::marker::PhantomData,
        };
        let _machine = machine();
        // SAFETY: the memory lives until `drop` takes it back.
        #[allow(unsafe_code)]
        unsafe {
            emulated_register(buffer.start().cast(), len * size_of::<T>(), initialised);
        }
        buffer
    }

    /// What is in it now.
    ///
    /// # Panics
    /// If there is an element that nobody has written.
    pub fn values(&self) -> Vec<T> {
        let _machine = machine();
        // SAFETY: registered by `allocate`.
        #[allow(unsafe_code)]
        let unwritten = unsafe { emulated_unwritten(self.start().cast()) };
        assert_eq!(unwritten, 0, "bytes of the buffer that nobody has written");
        self.copied()
    }

    /// What is in it now, whether anybody has written it or not.
    pub fn raw_values(&self) -> Vec<T> {
        let _machine = machine();
        self.copied()
    }

    fn copied(&self) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len);
        // SAFETY: `len` elements lie there, aligned; any bytes are an element.
        #[allow(unsafe_code)]
        unsafe {
            std::ptr::copy_nonoverlapping(self.start().cast::<T>(), values.as_mut_ptr(), self.len);
            values.set_len(self.len);
        }
        values
    }

    /// Writes elements from `index` on, as a copy from the host does.
    ///
    /// # Panics
    /// If they reach beyond its end.
    pub fn write(&self, index: usize, elements: &[T]) {
        assert!(index + elements.len() <= self.len, "beyond the buffer");
        let _machine = machine();
        // SAFETY: within the buffer, as just checked; nobody else touches it under the lock.
        #[allow(unsafe_code)]
        unsafe {
            let to = self.start().cast::<T>().add(index);
            std::ptr::copy_nonoverlapping(elements.as_ptr(), to, elements.len());
            emulated_written(to.cast(), size_of_val(elements));
        }
    }

    /// How many elements it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its address, as a kernel's argument.
    pub fn pointer(&self) -> Argument {
        self.pointer_at(0)
    }

    /// The address of one of its elements, as a kernel's argument.
    pub fn pointer_at(&self, index: usize) -> Argument {
        Argument::Pointer(self.start() as u64 + (index * size_of::<T>()) as u64)
    }

    fn start(&self) -> *mut u8 {
        self.memory.get().cast()
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        let _machine = machine();
        // SAFETY: registered by `allocate`.
        #[allow(unsafe_code)]
        unsafe {
            emulated_unregister(self.start().cast());
        }
    }
}
