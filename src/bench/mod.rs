//! How fast the engine is: systems to time, whole molecular-dynamics steps timed, and what was found as data.
//!
//! `verlet bench` is built from this. A step is timed as a run takes it, with the integrator, the rebuilds of the
//! neighbour list and the energy log; only the outputs are left out.

mod machine;
mod report;
mod timing;
mod water;

pub use machine::{Device, Machine, Memory, commit};
pub use report::{HEADER, Row};
pub use timing::{Measured, Moves, Plan, Repetition, Timing, measure};
pub use water::water;
