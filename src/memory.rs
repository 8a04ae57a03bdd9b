//! How much memory can be had. What would not fit is refused in words, before the operating system ends the program.

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
use std::fs::read_to_string;

/// Says whether so many bytes can be had; always where the system does not tell.
///
/// # Errors
/// The end of a sentence: how much it would take, and how much there is.
pub(crate) fn check(bytes: f64) -> Result<(), String> {
    const GIB: f64 = (1u64 << 30) as f64;
    match available() {
        Some(free) if bytes > free => {
            Err(format!("that takes about {:.1} GiB of memory, and {:.1} GiB are free", bytes / GIB, free / GIB))
        }
        _ => Ok(()),
    }
}

/// Bytes that can be had without swapping, and no more than this process, or its control group, may have.
fn available() -> Option<f64> {
    let group = || read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse::<f64>().ok();
    let machine = || {
        let table = read_to_string("/proc/meminfo").ok()?;
        let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
    };
    // What `ulimit -v` leaves: the first number of the table is the pages that there are.
    let process = || {
        let limit = getrlimit(Resource::As).current? as f64;
        let table = read_to_string("/proc/self/statm").ok()?;
        let taken = table.split_whitespace().next()?.parse::<f64>().ok()? * page_size() as f64;
        Some((limit - taken).max(0.0))
    };
    [group(), machine(), process()].into_iter().flatten().reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_fits_and_an_absurdity_does_not() {
        assert_eq!(check(1e6), Ok(()));
        if available().is_some() {
            let message = check(1e18).unwrap_err();
            assert!(message.starts_with("that takes about 931322574.6 GiB of memory, and "), "{message}");
        }
    }
}
