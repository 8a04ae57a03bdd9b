//! Compiled kernels: from the cache on disk, or from the compiler; loaded into the device.

use super::device::{Device, check};
use super::kernels::{Switches, compile_options, source};
use super::launch::Kernel;
use super::nvrtc::Nvrtc;
use crate::error::{Error, Result};
use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute_enum as Attribute, CUmodule};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of the checksum at the end of a cached program.
const CHECKSUM: usize = 32;

/// The kernels, ready to be launched.
pub(super) struct Program {
    device: Arc<Device>,
    module: CUmodule,
    functions: HashMap<&'static str, CUfunction>,
}

// SAFETY: handles of the driver, used with the device's context.
unsafe impl Send for Program {}

impl Program {
    /// Compiles, or takes from the cache, and loads.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no compiler, or the driver does not take its code.
    pub fn load(device: &Arc<Device>, switches: &Switches) -> Result<Self> {
        let options = compile_options(&device.architecture(), switches);
        let source = source(switches);
        let compile = || Nvrtc::find(Some(device.driver))?.compile(&source, &options).map(|compiled| compiled.code);
        let file = cache_folder().map(|folder| folder.join(cache_name(device.driver, &source, &options)));
        let code = match file {
            Some(file) => cached(&file, compile)?,
            None => compile()?,
        };
        device.enter()?;
        let mut program = Program { device: device.clone(), module: std::ptr::null_mut(), functions: HashMap::new() };
        // SAFETY: the code is a whole CUBIN: it came from the compiler or has the right checksum.
        check(unsafe { sys::cuModuleLoadData(&mut program.module, code.as_ptr().cast()) }, "loading the kernels")?;
        Ok(program)
    }

    /// A kernel by name for so many blocks and threads, with so many bytes of dynamic shared memory.
    pub fn kernel(&mut self, name: &'static str, grid: u32, threads: u32, shared: usize) -> Result<Kernel> {
        let function = self.function(name, shared)?;
        Ok(Kernel { name, function, grid: (grid, 1), threads, shared: shared as u32, together: false })
    }

    /// A kernel's handle by name, with room for so many bytes of dynamic shared memory.
    pub fn function(&mut self, name: &'static str, shared: usize) -> Result<CUfunction> {
        if let Some(function) = self.functions.get(name) {
            return Ok(*function);
        }
        let text = CString::new(name).expect("names have no zero byte");
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded and lives as long as `self`.
        unsafe {
            let doing = format!("looking for the kernel {name}");
            check(sys::cuModuleGetFunction(&mut function, self.module, text.as_ptr()), &doing)?;
            if shared > 48 * 1024 {
                let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                check(sys::cuFuncSetAttribute(function, which, shared as i32), "reserving shared memory")?;
            }
        }
        self.functions.insert(name, function);
        Ok(function)
    }

    /// The same for a kernel of clusters larger than every device with clusters runs.
    pub fn large_cluster(&mut self, name: &'static str, shared: usize) -> Result<CUfunction> {
        let function = self.function(name, shared)?;
        let which = Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
        // SAFETY: the function's module is loaded.
        check(unsafe { sys::cuFuncSetAttribute(function, which, 1) }, "allowing large clusters")?;
        Ok(function)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: nothing that was launched is running: every launch is waited for.
        unsafe {
            if !self.module.is_null() && self.device.enter().is_ok() {
                sys::cuModuleUnload(self.module);
            }
        }
    }
}

/// Where compiled kernels are kept: `$XDG_CACHE_HOME/verlet/kernels`, else `~/.cache/verlet/kernels`; nowhere without a
/// home.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("verlet/kernels"))
}

/// Another source, other options, another architecture (it is among the options) or another driver's major version:
/// another file.
fn cache_name(driver: i32, source: &str, options: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(source);
    for option in options {
        hash.update([0]);
        hash.update(option);
    }
    hash.update((driver / 1000).to_le_bytes());
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits}.cubin")
}

/// The code in `file`, or else what `compile` gives, which is then kept there. A file that is damaged is made again; one
/// that cannot be written is no error: the next run compiles again.
fn cached(file: &Path, compile: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    if let Some(code) = std::fs::read(file).ok().and_then(whole) {
        return Ok(code);
    }
    let code = compile()?;
    if let Err(error) = keep(file, &code) {
        eprintln!("warning: the compiled kernels could not be kept in {}: {error}", file.display());
    }
    Ok(code)
}

/// The code without its checksum; nothing when the checksum is not right.
fn whole(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let sum = bytes.split_off(bytes.len().checked_sub(CHECKSUM)?);
    (Sha256::digest(&bytes).as_slice() == sum).then_some(bytes)
}

/// Written under another name first, so that nobody ever reads half a file.
fn keep(file: &Path, code: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| Error::Output(error.to_string());
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(fail)?;
    let unique = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "-");
    let temporary = file.with_extension(format!("{}-{unique}tmp", std::process::id()));
    let bytes = [code, Sha256::digest(code).as_slice()].concat();
    std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, file)).map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        fail(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_program_is_compiled_once_and_a_damaged_one_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below/kernel.cubin");
        let code = b"machine code".to_vec();
        assert_eq!(cached(&file, || Ok(code.clone())).unwrap(), code);
        assert_eq!(cached(&file, || panic!("it is there")).unwrap(), code);
        for damage in [b"".to_vec(), b"short".to_vec(), [b"Machine code".to_vec(), vec![0; CHECKSUM]].concat()] {
            std::fs::write(&file, damage).unwrap();
            assert_eq!(cached(&file, || Ok(code.clone())).unwrap(), code);
            assert_eq!(cached(&file, || panic!("it is whole again")).unwrap(), code);
        }
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(cached(&folder.path().join("file/kernel.cubin"), || Ok(vec![1])).unwrap(), [1]);
    }

    #[test]
    fn every_switch_is_another_program() {
        let switches = Switches {
            features: 64,
            student: false,
            table_shared: false,
            radial: false,
            sliced: false,
            tiled: false,
            large: false,
            few: false,
            resident: None,
            split: false,
            langevin: false,
            conditional: false,
            watch: false,
            repulsion: false,
            tile: 16,
            tile_warps: 8,
            reduced: false,
            replicas: false,
        };
        let name = |switches: &Switches| cache_name(13_000, "", &compile_options("sm_90", switches));
        let names = [
            name(&switches),
            name(&Switches { features: 96, ..switches }),
            name(&Switches { student: true, ..switches }),
            name(&Switches { table_shared: true, ..switches }),
            name(&Switches { large: true, ..switches }),
            name(&Switches { few: true, ..switches }),
            name(&Switches { split: true, ..switches }),
            name(&Switches { langevin: true, ..switches }),
            name(&Switches { conditional: true, ..switches }),
            name(&Switches { watch: true, ..switches }),
            name(&Switches { repulsion: true, ..switches }),
            name(&Switches { tile: 32, ..switches }),
            name(&Switches { tile_warps: 16, ..switches }),
            name(&Switches { sliced: true, ..switches }),
            name(&Switches { reduced: true, ..switches }),
            cache_name(12_000, "", &compile_options("sm_90", &switches)),
            cache_name(13_000, "", &compile_options("sm_80", &switches)),
            cache_name(13_000, &source(&switches), &compile_options("sm_90", &switches)),
        ];
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
