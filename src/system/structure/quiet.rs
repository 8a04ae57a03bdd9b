//! chemfiles without its panics and messages.

use std::cell::Cell as Flag;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Calls chemfiles and gives its error as one line. Its warnings are dropped.
///
/// chemfiles' Rust interface panics on bytes that are not UTF-8, in names as in its own messages; that is a fault of
/// the file, and must not look like one of the program.
pub(crate) fn quietly<T, E: ToString>(
    call: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, String> {
    thread_local! {
        static SILENT: Flag<bool> = const { Flag::new(false) };
    }
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        chemfiles::set_warning_callback(|_| {});
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |information| {
            if !SILENT.get() {
                report(information);
            }
        }));
    });
    SILENT.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(call));
    SILENT.set(false);
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let message = error.to_string().replace(char::is_control, " ");
            if message.contains("mmap out of bounds") {
                return Err("it ends too early; copy it again".into());
            }
            Err(message.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned())
        }
        Err(_) => Err("it holds text that is not UTF-8, or is damaged".into()),
    }
}
