//! What a run was worth.

mod drift;

pub use drift::{Conservation, Drift, Limits, Verdict};
