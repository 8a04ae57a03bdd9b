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
    /// Its blocks wait for each other: they must all run at the same time. Outside a graph the driver sees to that; it takes
    /// no such kernel into the body of a condition, where it is enough that they do run at the same time when nothing else
    /// runs.
    pub together: bool,
}

impl Kernel {
    /// Clusters of so many blocks that the device runs at the same time.
    pub fn clusters_at_once(&self, blocks: u32) -> Result<usize> {
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            // SAFETY: all-zero bytes are a valid value of this union of numbers and pointers.
            value: unsafe { std::mem::zeroed() },
        };
        attribute.value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks, y: 1, z: 1 };
        let configuration = sys::CUlaunchConfig {
            gridDimX: self.grid.0,
            gridDimY: self.grid.1,
            gridDimZ: 1,
            blockDimX: self.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared,
            hStream: std::ptr::null_mut(),
            attrs: &mut attribute,
            numAttrs: 1,
        };
        let mut clusters = 0;
        // SAFETY: pointers to locals; the function's module is loaded.
        let result = unsafe { sys::cuOccupancyMaxActiveClusters(&mut clusters, self.function, &configuration) };
        check(result, "asking how many clusters run at once").map(|()| clusters as usize)
    }
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
            if kernel.together {
                sys::cuLaunchCooperativeKernel(function, x, y, 1, threads, 1, 1, shared, stream, arguments.as_mut_ptr())
            } else {
                sys::cuLaunchKernel(function, x, y, 1, threads, 1, 1, shared, stream, arguments.as_mut_ptr(), no)
            }
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
