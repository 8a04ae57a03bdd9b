//! The safetensors container: whole, and of its own kind, before anything in it is believed.
//!
//! ```text
//! length of the header u64, little-endian | header: JSON, tensors by name with their place | tensors
//! ```

use crate::error::{Error, Result, reason};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes before the header.
const HEAD: usize = size_of::<u64>();

/// What else is taken for a model file, by its first bytes.
const OTHERS: [(&[u8], &str); 5] = [
    (b"PK\x03\x04", "a file of PyTorch (a zip archive)"),
    (b"\x80\x02", "a file of PyTorch (a pickle)"),
    (b"\x89HDF", "an HDF5 file, such as a trajectory"),
    (b"verletCP", "a checkpoint of a run"),
    (b"GGUF", "a GGUF file"),
];

/// What the header says of an entry; `__metadata__` has no place.
#[derive(Deserialize)]
struct Entry {
    data_offsets: Option<[u64; 2]>,
}

/// The bytes of a safetensors file that has everything that its header claims.
///
/// # Errors
/// [`Error::Model`] that says what the file is instead, or how much of it is missing.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let file = path.display();
    let unreadable = |problem: &str| Error::Model(format!("the model file {file} cannot be read: {problem}"));
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(&reason(&error)))?;
    if !metadata.is_file() {
        return Err(unreadable(if metadata.is_dir() { "it is a folder" } else { "it is a device, not a file" }));
    }
    crate::memory::check(metadata.len() as f64).map_err(|problem| unreadable(&problem))?;
    let bytes = std::fs::read(path).map_err(|error| unreadable(&reason(&error)))?;
    match check(&bytes) {
        Ok(()) => Ok(bytes),
        Err(problem) => Err(Error::Model(format!("{file} {problem}"))),
    }
}

/// The error is the end of a sentence that begins with the file's name.
fn check(bytes: &[u8]) -> std::result::Result<(), String> {
    if let Some((_, kind)) = OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Err(format!("is {kind}, not a model; give a safetensors file"));
    }
    let Some((length, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(format!("is cut short: it holds {} bytes; copy it again", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if !rest.is_empty() && !rest.starts_with(b"{") {
        return Err("is no safetensors file: it does not begin like one; give a model file".into());
    }
    let Some((header, tensors)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) else {
        return Err(format!(
            "is cut short, or its head is wrong: it claims a header of {length} bytes, and {} follow; copy it again",
            rest.len()
        ));
    };
    let entries: BTreeMap<String, Entry> = serde_json::from_slice(header)
        .map_err(|error| format!("is damaged: its header cannot be read ({error}); copy it again"))?;
    let claimed = entries.values().filter_map(|entry| entry.data_offsets).map(|[_, end]| end).max().unwrap_or(0);
    let held = tensors.len() as u64;
    if claimed > held {
        return Err(format!(
            "is cut short: its header claims {claimed} bytes of tensors, and the file holds {held}; copy it again"
        ));
    }
    if claimed < held {
        return Err(format!(
            "is damaged: it holds {held} bytes of tensors, and its header claims {claimed}; copy it again"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_lie_are_found_out() {
        let file = |header: &str, tensors: usize| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.resize(bytes.len() + tensors, 0);
            bytes
        };
        let header = r#"{"__metadata__":{"config":"x"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        assert_eq!(check(&file(header, 8)), Ok(()));
        assert!(check(&file(header, 7)).unwrap_err().starts_with("is cut short: its header claims 8 bytes"));
        assert!(check(&file(header, 9)).unwrap_err().starts_with("is damaged: it holds 9 bytes"));
        // Ends that would wrap round when something is added to them.
        let huge = header.replace("[0,8]", "[0,18446744073709551615]");
        assert!(check(&file(&huge, 8)).unwrap_err().starts_with("is cut short"));
        for end in 0..file(header, 8).len() {
            assert!(check(&file(header, 8)[..end]).is_err(), "{end}");
        }
    }
}
