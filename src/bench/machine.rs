//! What is measured on: the machine, its device, and how much memory a system takes there.

use crate::backend::{cpu, cuda};
use crate::error::Result;
use serde_json::{Value, json};
use std::fs::{read_to_string, write};
use std::sync::Arc;
use std::time::SystemTime;

/// Where steps are computed.
#[derive(Clone)]
pub enum Device {
    /// On the CPU.
    Cpu,
    /// On this GPU.
    Cuda(Arc<cuda::Device>),
}

/// What a time cannot be compared without.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Logical cores.
    pub cores: usize,
    /// Threads of the CPU backend.
    pub threads: usize,
    /// Vector instructions that the CPU's kernels use.
    pub instructions: &'static str,
    /// Date and time, UTC.
    pub date: String,
    gpu: Value,
}

impl Machine {
    /// This one, now.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when the GPU's driver fails.
    pub fn look(device: &Device) -> Result<Self> {
        let gpu = match device {
            Device::Cpu => Value::Null,
            Device::Cuda(device) => json!({
                "name": device.name,
                "architecture": device.architecture(),
                "multiprocessors": device.multiprocessors,
                "memory_bytes": device.memory,
                "free_memory_bytes": device.free_memory()?,
                "driver": driver(),
                "driver_cuda": format!("{}.{}", device.driver / 1000, device.driver % 1000 / 10),
            }),
        };
        Ok(Machine {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: rayon::current_num_threads(),
            instructions: cpu::instructions(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            gpu,
        })
    }

    /// All of it, and what the program was built from.
    pub fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": commit(),
            "date": self.date,
            "processor": self.processor,
            "cores": self.cores,
            "threads": self.threads,
            "instructions": self.instructions,
            "gpu": self.gpu,
        })
    }
}

/// The commit that the program was built from, with a "+" behind it where files had been changed since; nothing where it
/// was not built in its repository.
pub fn commit() -> Option<&'static str> {
    option_env!("VERLET_COMMIT")
}

fn processor() -> String {
    let table = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = table.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().to_owned())
}

/// The version of NVIDIA's kernel module, such as 580.65.06.
fn driver() -> Option<String> {
    let text = read_to_string("/proc/driver/nvidia/version").ok()?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

/// Measures what a system takes: on the GPU its memory there, on the CPU the most that the program has held at once.
pub struct Memory {
    device: Device,
    /// Bytes held before there was a system: of the process, or free on the device.
    before: Option<f64>,
}

impl Memory {
    /// Before the first system is made.
    pub fn before(device: &Device) -> Self {
        let before = match device {
            Device::Cpu => status("VmRSS:"),
            Device::Cuda(device) => device.free_memory().ok().map(|free| free as f64),
        };
        Memory { device: device.clone(), before }
    }

    /// Forgets how much the program has held at once so far.
    pub fn forget_peak(&self) {
        // Where this is not allowed, systems must come in the order of their sizes.
        let _ = write("/proc/self/clear_refs", "5");
    }

    /// Bytes that the system takes which is there now; nothing where it cannot be told.
    pub fn taken(&self) -> Option<f64> {
        let taken = match &self.device {
            Device::Cpu => status("VmHWM:")? - self.before?,
            Device::Cuda(device) => self.before? - device.free_memory().ok()? as f64,
        };
        Some(taken.max(0.0))
    }
}

/// A size in the operating system's table of this process, bytes.
fn status(key: &str) -> Option<f64> {
    let table = read_to_string("/proc/self/status").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_was_held_is_seen_and_forgotten() {
        let memory = Memory::before(&Device::Cpu);
        let held = std::hint::black_box(vec![1u8; 512 << 20]);
        drop(held);
        // Other tests of this process hold some, too, but not so much.
        let most = memory.taken().unwrap();
        assert!(most > 500e6);
        memory.forget_peak();
        assert!(memory.taken().unwrap() < most - 250e6);
    }
}
