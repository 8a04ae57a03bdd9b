//! Launching kernels: at once, on the device's stream, or into a graph. Both go through [`Sink`], so both run the same
//! kernels with the same arguments.

use super::device::{Device, check};
use crate::error::Result;
use cudarc::driver::sys::{self, CUfunction};
use std::ffi::c_void;

/// A kernel with the shape of its launch.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub name: &'static str,
    pub function: CUfunction,
    /// Blocks in x and y.
    pub grid: (u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

// SAFETY: a handle of the driver, used with the device's context.
unsafe impl Send for Kernel {}

/// Where kernels go.
pub(super) trait Sink {
    /// Launches after everything that went here before. `arguments` point to the kernel's arguments, in order.
    fn launch(&mut self, kernel: &Kernel, arguments: &mut [*mut c_void]) -> Result<()>;
}

/// The device's stream.
impl Sink for &Device {
    fn launch(&mut self, kernel: &Kernel, arguments: &mut [*mut c_void]) -> Result<()> {
        let ((x, y), stream) = (kernel.grid, self.stream());
        // SAFETY: the arguments are those of the kernel; the driver copies them before it returns.
        let result = unsafe {
            let (function, threads, shared) = (kernel.function, kernel.threads, kernel.shared);
            let no = std::ptr::null_mut();
            sys::cuLaunchKernel(function, x, y, 1, threads, 1, 1, shared, stream, arguments.as_mut_ptr(), no)
        };
        if result == sys::CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        check(result, &format!("launching the kernel {}", kernel.name))
    }
}

/// Launches `$kernel` into `$sink` with these arguments; their types must be the kernel's.
macro_rules! launch {
    ($sink:expr, $kernel:expr $(, $argument:expr)* $(,)?) => {
        $sink.launch(&$kernel, &mut [$(std::ptr::from_ref(&$argument).cast_mut().cast::<std::ffi::c_void>()),*])
    };
}
pub(super) use launch;
