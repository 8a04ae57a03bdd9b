//! NVRTC, NVIDIA's run-time compiler: found where people have it, loaded when a kernel must be compiled.

use crate::error::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// A program inside NVRTC.
type Handle = *mut c_void;

/// The compiler, loaded.
pub struct Nvrtc {
    library: Library,
    /// Where it was found.
    pub path: PathBuf,
    /// Its CUDA version, major and minor.
    pub version: (i32, i32),
}

/// What a compilation gave.
pub struct Compiled {
    /// Machine code for the device.
    pub code: Vec<u8>,
    /// What the compiler and the assembler said.
    pub log: String,
}

impl Nvrtc {
    /// Loads the first NVRTC that is not newer than the driver; any without a driver's CUDA version.
    ///
    /// The environment variable `VERLET_NVRTC` names a library to use and no other.
    ///
    /// # Errors
    /// [`Error::Run`] that says where it was looked for and what to install.
    pub fn find(driver: Option<i32>) -> Result<Self> {
        if let Some(path) = std::env::var_os("VERLET_NVRTC") {
            return Self::open(Path::new(&path))
                .map_err(|error| Error::Run(format!("VERLET_NVRTC does not name an NVRTC: {error}")));
        }
        let major = driver.map_or(i32::MAX, |version| version / 1000);
        let mut too_new = Vec::new();
        for path in candidates() {
            let Ok(found) = Self::load(&path) else { continue };
            if found.version.0 <= major {
                return Ok(found);
            }
            too_new.push(format!("{} is of CUDA {}.{}", path.display(), found.version.0, found.version.1));
        }
        if let Some(found) = too_new.first() {
            return Err(Error::Run(format!(
                "the NVIDIA driver is too old for the compiler NVRTC that is installed ({found}); update the driver, or \
                 install NVRTC of CUDA {major} (pip install nvidia-cuda-nvrtc-cu{major})"
            )));
        }
        let folders: Vec<_> = folders().iter().map(|folder| folder.display().to_string()).collect();
        let major = if major == i32::MAX { 13 } else { major };
        Err(Error::Run(format!(
            "the compiler NVRTC is not to be found, neither by the loader (libnvrtc.so) nor in {}; install the CUDA \
             toolkit, or NVRTC alone (pip install nvidia-cuda-nvrtc{}), or set VERLET_NVRTC to its path",
            if folders.is_empty() { "the usual folders".into() } else { folders.join(", ") },
            if major >= 13 { String::new() } else { format!("-cu{major}") }
        )))
    }

    /// Loads this library.
    ///
    /// # Errors
    /// [`Error::Run`] when it is no NVRTC.
    pub fn open(path: &Path) -> Result<Self> {
        Self::load(path).map_err(|reason| Error::Run(format!("{} cannot be used: {reason}", path.display())))
    }

    /// The architectures that it compiles for, as in 90 for `sm_90`, rising; none where it is too old to say.
    pub fn architectures(&self) -> Vec<i32> {
        type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
        type List = unsafe extern "C" fn(*mut c_int) -> c_int;
        let mut count = 0;
        // SAFETY: signatures are those of nvrtc.h since CUDA 11.2; the list has as many places as it was said to need.
        unsafe {
            let (Ok(count_them), Ok(list_them)) =
                (self.symbol::<Count>("nvrtcGetNumSupportedArchs"), self.symbol::<List>("nvrtcGetSupportedArchs"))
            else {
                return Vec::new();
            };
            if count_them(&mut count) != 0 {
                return Vec::new();
            }
            let mut list = vec![0; count as usize];
            if list_them(list.as_mut_ptr()) == 0 { list } else { Vec::new() }
        }
    }

    fn load(path: &Path) -> std::result::Result<Self, String> {
        // SAFETY: loading runs the library's own initialisation; the symbol has this signature in every version.
        unsafe {
            let library = Library::new(path).map_err(|error| error.to_string())?;
            let (mut major, mut minor) = (0, 0);
            {
                let version = library
                    .get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>(b"nvrtcVersion\0")
                    .map_err(|error| error.to_string())?;
                if version(&mut major, &mut minor) != 0 {
                    return Err("it does not tell its version".into());
                }
            }
            Ok(Nvrtc { library, path: path.to_owned(), version: (major, minor) })
        }
    }

    /// Compiles to machine code.
    ///
    /// # Errors
    /// [`Error::Run`] with the compiler's own words.
    pub fn compile(&self, source: &str, options: &[String]) -> Result<Compiled> {
        let text =
            |what: &str| CString::new(what).map_err(|_| Error::Run("a kernel's source holds a zero byte".into()));
        let (source, name) = (text(source)?, text("verlet.cu")?);
        let options = options.iter().map(|option| text(option)).collect::<Result<Vec<_>>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        type Create = unsafe extern "C" fn(
            *mut Handle,
            *const c_char,
            *const c_char,
            c_int,
            *const c_void,
            *const c_void,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut Handle) -> c_int;
        let mut program: Handle = std::ptr::null_mut();
        // SAFETY: signatures are those of nvrtc.h since CUDA 11.2; every pointer outlives its call.
        unsafe {
            let create = self.symbol::<Create>("nvrtcCreateProgram")?;
            let compile = self.symbol::<Compile>("nvrtcCompileProgram")?;
            let destroy = self.symbol::<Destroy>("nvrtcDestroyProgram")?;
            let no = std::ptr::null();
            let created = create(&mut program, source.as_ptr(), name.as_ptr(), 0, no, no);
            if created != 0 {
                return Err(self.failed(created, ""));
            }
            let status = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let log = self.output(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
            let code =
                if status == 0 { self.output(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN") } else { Ok(Vec::new()) };
            destroy(&mut program);
            let log = String::from_utf8_lossy(&log?).trim_end_matches('\0').to_string();
            if status != 0 {
                return Err(self.failed(status, &log));
            }
            Ok(Compiled { code: code?, log })
        }
    }

    fn failed(&self, status: c_int, log: &str) -> Error {
        // SAFETY: gives a constant string for every status.
        let reason = unsafe {
            self.symbol::<unsafe extern "C" fn(c_int) -> *const c_char>("nvrtcGetErrorString")
                .map(|describe| CStr::from_ptr(describe(status)).to_string_lossy().into_owned())
        };
        let reason = reason.unwrap_or_else(|_| format!("error {status}"));
        Error::Run(format!("{} does not compile the kernels: {reason}\n{log}", self.path.display()))
    }

    /// # Safety
    /// `F` must be the function's signature.
    unsafe fn symbol<F: Copy>(&self, name: &str) -> Result<F> {
        // SAFETY: the caller's.
        unsafe { self.library.get::<F>(name.as_bytes()) }
            .map(|symbol| *symbol)
            .map_err(|_| Error::Run(format!("{} is too old: it has no {name}; CUDA 11.2 has it", self.path.display())))
    }

    /// # Safety
    /// The two functions must be a pair that gives the size of a text and the text of a program.
    unsafe fn output(&self, program: Handle, size: &str, get: &str) -> Result<Vec<u8>> {
        // SAFETY: the buffer has the size that was asked for.
        unsafe {
            let size = self.symbol::<unsafe extern "C" fn(Handle, *mut usize) -> c_int>(size)?;
            let get = self.symbol::<unsafe extern "C" fn(Handle, *mut u8) -> c_int>(get)?;
            let mut bytes = 0;
            let mut status = size(program, &mut bytes);
            let mut text = vec![0; bytes];
            if status == 0 && bytes > 0 {
                status = get(program, text.as_mut_ptr());
            }
            if status == 0 { Ok(text) } else { Err(self.failed(status, "")) }
        }
    }
}

/// Names and files to try, in order.
fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"].map(PathBuf::from).into();
    for folder in folders() {
        found.extend(matching(&folder, |name| {
            name.strip_prefix("libnvrtc.so").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }));
    }
    found
}

/// Folders that exist and can hold it: toolkits, distribution packages, conda, pip's wheels.
fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let toolkits = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"].iter().filter_map(|name| variable(name));
    let installed = matching(Path::new("/usr/local"), |name| name.starts_with("cuda")).into_iter();
    for toolkit in toolkits.chain(installed).chain([PathBuf::from("/opt/cuda")]) {
        found.extend(["lib64", "lib", "targets/x86_64-linux/lib"].map(|folder| toolkit.join(folder)));
    }
    found.extend(["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"].map(PathBuf::from));
    let environments: Vec<PathBuf> = ["CONDA_PREFIX", "VIRTUAL_ENV"].iter().filter_map(|name| variable(name)).collect();
    found.extend(environments.iter().map(|environment| environment.join("lib")));
    let home = variable("HOME").map(|home| home.join(".local"));
    let roots = environments.into_iter().chain(home).chain(["/usr/local", "/usr"].map(PathBuf::from));
    for python in roots.flat_map(|root| matching(&root.join("lib"), |name| name.starts_with("python3"))) {
        for packages in ["site-packages", "dist-packages"] {
            let nvidia = python.join(packages).join("nvidia");
            found.extend(["cuda_nvrtc/lib", "cu13/lib", "cu12/lib"].map(|folder| nvidia.join(folder)));
        }
    }
    found.retain(|folder| folder.is_dir());
    found
}

/// Entries of a folder by name, the last in the alphabet first: newer versions before older ones.
fn matching(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| wanted(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}
