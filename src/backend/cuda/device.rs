//! The driver and the device: found, opened, and asked what they are.

use crate::error::{Error, Result};
use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute_enum as Attribute, CUresult, CUstream};
use std::ffi::CStr;
use std::sync::Arc;

/// Turns a driver's answer into a result; `doing` completes "while …".
pub(super) fn check(result: CUresult, doing: &str) -> Result<()> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let hint = match result {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => "; use a smaller system or --backend cpu",
        _ => "",
    };
    Err(Error::Run(format!("the GPU's driver reports \"{}\" while {doing}{hint}", describe(result))))
}

fn describe(result: CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: the driver is loaded, and gives a string of its own that lives for ever, or leaves the pointer null.
    unsafe {
        let known = sys::cuGetErrorString(result, &mut text) == CUresult::CUDA_SUCCESS && !text.is_null();
        if known { CStr::from_ptr(text).to_string_lossy().into_owned() } else { format!("error {}", result as u32) }
    }
}

/// The driver, started.
pub struct Driver {
    /// The CUDA version that it knows: 1000 · major + 10 · minor.
    pub version: i32,
    /// Devices that it shows.
    pub devices: i32,
}

impl Driver {
    /// Starts the driver, where there is one.
    ///
    /// # Errors
    /// [`Error::Run`] that says what is missing.
    pub fn start() -> Result<Self> {
        // SAFETY: looks for the library and loads it; the other calls have no conditions but their pointers.
        unsafe {
            if !sys::is_culib_present() {
                return Err(Error::Run("no NVIDIA driver is installed (libcuda.so.1 is not to be found)".into()));
            }
            match sys::cuInit(0) {
                CUresult::CUDA_SUCCESS => {}
                CUresult::CUDA_ERROR_NO_DEVICE => return Err(no_device()),
                other => {
                    return Err(Error::Run(format!("the NVIDIA driver does not start: \"{}\"", describe(other))));
                }
            }
            let (mut version, mut devices) = (0, 0);
            check(sys::cuDriverGetVersion(&mut version), "asking for its version")?;
            check(sys::cuDeviceGetCount(&mut devices), "counting devices")?;
            if devices == 0 {
                return Err(no_device());
            }
            Ok(Driver { version, devices })
        }
    }

    /// The version as people write it.
    pub fn version_text(&self) -> String {
        format!("{}.{}", self.version / 1000, self.version % 1000 / 10)
    }
}

fn no_device() -> Error {
    Error::Run("there is an NVIDIA driver but no GPU that it may use; check nvidia-smi and CUDA_VISIBLE_DEVICES".into())
}

/// In what a device computes networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// As exact as float32.
    Single,
    /// Factors of products, and what atoms send each other, of 16 bits; sums in float32.
    Mixed,
}

impl Arithmetic {
    /// As users read it.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::Single => "f32",
            Arithmetic::Mixed => "mixed f16 and f32",
        }
    }
}

/// A GPU with its context and a stream of our own.
pub struct Device {
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block can have.
    pub shared_memory: usize,
    /// Whether blocks can form clusters.
    pub clusters: bool,
    /// The driver's CUDA version: 1000 · major + 10 · minor.
    pub driver: i32,
    /// Of the networks on it.
    pub arithmetic: Arithmetic,
    handle: CUdevice,
    context: CUcontext,
    stream: CUstream,
}

// SAFETY: handles of the driver may be used from any thread whose current context is theirs; `enter` sees to that.
unsafe impl Send for Device {}
unsafe impl Sync for Device {}

impl Device {
    /// Opens the device with this number, counted from 0, for networks in single precision.
    ///
    /// # Errors
    /// [`Error::Run`] that says what is missing.
    pub fn open(number: i32) -> Result<Arc<Self>> {
        Self::open_for(number, Arithmetic::Single)
    }

    /// As [`open`](Self::open), for networks in this arithmetic.
    ///
    /// # Errors
    /// As there.
    pub fn open_for(number: i32, arithmetic: Arithmetic) -> Result<Arc<Self>> {
        let driver = Driver::start()?;
        // SAFETY: plain calls with pointers to locals; the context is retained until the device is dropped.
        unsafe {
            let mut handle = 0;
            check(sys::cuDeviceGet(&mut handle, number), "looking for the device")?;
            let attribute = |which: Attribute| {
                let mut value = 0;
                check(sys::cuDeviceGetAttribute(&mut value, which, handle), "asking what the device is").map(|()| value)
            };
            let mut name = [0; 256];
            check(sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, handle), "asking for a name")?;
            let mut memory = 0;
            check(sys::cuDeviceTotalMem_v2(&mut memory, handle), "asking for the memory")?;
            let capability = (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            );
            let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32;
            let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
            let clusters = attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH)? != 0;
            let mut context = std::ptr::null_mut();
            check(sys::cuDevicePrimaryCtxRetain(&mut context, handle), "opening the device")?;
            let mut device = Device {
                name: CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned(),
                capability,
                memory,
                multiprocessors,
                shared_memory: shared,
                clusters,
                driver: driver.version,
                arithmetic,
                handle,
                context,
                stream: std::ptr::null_mut(),
            };
            device.enter()?;
            let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
            check(sys::cuStreamCreate(&mut device.stream, flags), "making a stream")?;
            Ok(Arc::new(device))
        }
    }

    /// Makes the device the calling thread's own.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "entering its context")
    }

    /// Waits until everything that was asked for is done.
    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives as long as `self`.
        check(unsafe { sys::cuStreamSynchronize(self.stream) }, "computing")
    }

    pub(super) fn stream(&self) -> CUstream {
        self.stream
    }

    pub(super) fn context(&self) -> CUcontext {
        self.context
    }

    /// Whether graphs may have WHILE and IF nodes.
    pub(super) fn has_conditional_nodes(&self) -> bool {
        self.driver >= 12_040
    }

    /// The name by which the compiler knows the architecture.
    pub fn architecture(&self) -> String {
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }

    /// Bytes that are free now.
    ///
    /// # Errors
    /// [`Error::Run`] when the driver fails.
    pub fn free_memory(&self) -> Result<usize> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: pointers to locals.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "asking for free memory")?;
        Ok(free)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: everything that used the stream holds the device and is gone.
        unsafe {
            sys::cuCtxSetCurrent(self.context);
            sys::cuStreamDestroy_v2(self.stream);
            sys::cuDevicePrimaryCtxRelease_v2(self.handle);
        }
    }
}
