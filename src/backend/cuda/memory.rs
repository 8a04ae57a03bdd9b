//! Memory on the device, and memory of the host that the device can reach.

use super::device::{Device, check};
use super::layout::Pointer;
use crate::error::Result;
use cudarc::driver::sys;
use std::marker::PhantomData;
use std::sync::Arc;

/// So many numbers on the device, freed when dropped.
pub(super) struct Buffer<T> {
    device: Arc<Device>,
    pointer: Pointer,
    len: usize,
    holds: PhantomData<T>,
}

impl<T: Copy> Buffer<T> {
    /// All bytes zero.
    pub fn zeros(device: &Arc<Device>, len: usize) -> Result<Self> {
        device.enter()?;
        let mut buffer = Buffer { device: device.clone(), pointer: 0, len, holds: PhantomData };
        // An empty buffer still has an address.
        let bytes = buffer.bytes().max(16);
        // SAFETY: a pointer to our own field; then memory that was just given.
        unsafe {
            let doing = format!("reserving {:.1} MB", bytes as f64 * 1e-6);
            check(sys::cuMemAlloc_v2(&mut buffer.pointer, bytes), &doing)?;
            check(sys::cuMemsetD8Async(buffer.pointer, 0, bytes, device.stream()), "clearing memory")?;
        }
        Ok(buffer)
    }

    /// A copy of `values`.
    pub fn from(device: &Arc<Device>, values: &[T]) -> Result<Self> {
        let buffer = Self::zeros(device, values.len())?;
        buffer.upload(values)?;
        Ok(buffer)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Where it is.
    pub fn pointer(&self) -> Pointer {
        self.pointer
    }

    /// Copies from the host; as many as there are.
    pub fn upload(&self, values: &[T]) -> Result<()> {
        assert_eq!(values.len(), self.len, "a copy to the device has the buffer's length");
        self.device.enter()?;
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: both ends have that many bytes, and the host's stays until the stream is through.
        unsafe {
            let stream = self.device.stream();
            check(
                sys::cuMemcpyHtoDAsync_v2(self.pointer, values.as_ptr().cast(), self.bytes(), stream),
                "copying to it",
            )?;
        }
        self.device.wait()
    }

    /// Copies the first `len` to the host.
    pub fn download_first(&self, len: usize) -> Result<Vec<T>>
    where
        T: Default,
    {
        assert!(len <= self.len, "the buffer has that many");
        self.device.enter()?;
        let mut values = vec![T::default(); len];
        if len > 0 {
            // SAFETY: both ends have that many bytes; any bytes are a T: they were written as such.
            unsafe {
                let (to, stream) = (values.as_mut_ptr().cast(), self.device.stream());
                check(sys::cuMemcpyDtoHAsync_v2(to, self.pointer, len * size_of::<T>(), stream), "copying from it")?;
            }
        }
        self.device.wait()?;
        Ok(values)
    }

    /// Copies all to the host.
    pub fn download(&self) -> Result<Vec<T>>
    where
        T: Default,
    {
        self.download_first(self.len)
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the pointer; freeing waits for the device.
        unsafe {
            if self.pointer != 0 && self.device.enter().is_ok() {
                sys::cuMemFree_v2(self.pointer);
            }
        }
    }
}

/// Room on the host for so many numbers, in pages that stay in place: the device copies to them by itself, and several
/// copies are waited for once. From other memory the driver would copy once more, piece by piece. Kernels write to them as
/// they do to the device's memory, and go on while the numbers are on their way.
pub(super) struct Staging<T> {
    device: Arc<Device>,
    values: *mut T,
    len: usize,
}

impl<T: Copy> Staging<T> {
    /// All bytes zero.
    pub fn new(device: &Arc<Device>, len: usize) -> Result<Self> {
        device.enter()?;
        let (mut pointer, bytes) = (std::ptr::null_mut(), (len * size_of::<T>()).max(16));
        // SAFETY: a pointer of our own; then memory that was just given, which is aligned for any number.
        unsafe {
            let doing = format!("reserving {:.1} MB of the host's memory", bytes as f64 * 1e-6);
            check(sys::cuMemAllocHost_v2(&mut pointer, bytes), &doing)?;
            pointer.cast::<u8>().write_bytes(0, bytes);
        }
        Ok(Staging { device: device.clone(), values: pointer.cast(), len })
    }

    /// Where they are, for the device too: a 64-bit system has one space of addresses.
    pub fn pointer(&self) -> Pointer {
        self.values as Pointer
    }

    /// Some of the numbers.
    ///
    /// # Safety
    /// What the device has written there is waited for, and nothing that it does now writes there.
    pub unsafe fn part(&self, begin: usize, len: usize) -> &[T] {
        assert!(begin + len <= self.len, "there are that many");
        // SAFETY: inside of our memory, which is zeros or what the device has written: any bytes are a T.
        unsafe { std::slice::from_raw_parts(self.values.add(begin), len) }
    }

    /// Copies all that the buffers hold, one behind the other, and waits for it.
    pub fn fetch(&mut self, buffers: &[&Buffer<T>]) -> Result<&[T]> {
        let total = buffers.iter().map(|buffer| buffer.len).sum();
        assert!(total <= self.len, "there is room for all");
        self.device.enter()?;
        let mut begin = 0;
        for buffer in buffers {
            // SAFETY: both ends have that many bytes, and nobody looks at ours before the stream is through.
            unsafe {
                let (to, stream) = (self.values.add(begin).cast(), self.device.stream());
                check(sys::cuMemcpyDtoHAsync_v2(to, buffer.pointer, buffer.bytes(), stream), "copying from it")?;
            }
            begin += buffer.len;
        }
        self.device.wait()?;
        // SAFETY: so many numbers were just written; any bytes are a T: they were written as such.
        Ok(unsafe { std::slice::from_raw_parts(self.values, total) })
    }
}

impl<T> Drop for Staging<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the pointer, and no copy is under way when the stream is through.
        unsafe {
            if self.device.enter().is_ok() && self.device.wait().is_ok() {
                sys::cuMemFreeHost(self.values.cast());
            }
        }
    }
}
