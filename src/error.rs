//! One error type for the whole program.
//!
//! A message is one sentence for a chemist: what was wrong, where (file, line, key, atom), what to do.
//! The variant says whose fault it is, which decides the exit status of the binary.

/// The result of anything in this library that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run description (TOML file, command line) is wrong.
    #[error("{0}")]
    Input(String),
    /// A structure file is wrong or does not fit the model.
    #[error("{0}")]
    Structure(String),
    /// A model file is wrong.
    #[error("{0}")]
    Model(String),
    /// Results could not be written or read back.
    #[error("{0}")]
    Output(String),
    /// The simulation itself failed, for example because it exploded.
    #[error("{0}")]
    Run(String),
}

impl Error {
    /// The exit status of the binary: 2 when the user's input is at fault, 1 when the run failed.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Input(_) | Error::Structure(_) | Error::Model(_) => 2,
            Error::Output(_) | Error::Run(_) => 1,
        }
    }
}

/// Why the operating system refused something: its words without the number, and what to do where they do not say it.
pub(crate) fn reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    match advice(error.kind()) {
        Some(advice) => format!("{words}; {advice}"),
        None if error.kind() == ErrorKind::IsADirectory => "it is a folder".into(),
        None => words.into(),
    }
}

/// What helps against it, where that is always the same.
pub(crate) fn advice(kind: std::io::ErrorKind) -> Option<&'static str> {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("free some space and try again"),
        ErrorKind::FileTooLarge => Some(
            "the file system, or a limit of the shell (ulimit -f), allows no larger files; raise the limit and try again",
        ),
        ErrorKind::ReadOnlyFilesystem => Some("write somewhere else"),
        _ => None,
    }
}

/// A number for a message: three decimals where they say enough, else powers of ten.
pub(crate) fn short(x: f64) -> String {
    if x == 0.0 || (0.001..1e6).contains(&x.abs()) { format!("{x:.3}") } else { format!("{x:.2e}") }
}
