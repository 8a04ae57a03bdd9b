//! What a run was worth.

mod drift;

pub use drift::{Conservation, Drift, Judgement, Limits, Verdict};
