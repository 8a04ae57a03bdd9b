//! The kernels that a step of many systems consists of, and their order.

use crate::backend::cuda::graph::{Chain, Handle};
use crate::backend::cuda::launch::{Kernel, Sink, launch};
use crate::backend::cuda::state::State;
use crate::error::Result;

/// Threads of a block that has a whole system: sums depend on it, so it is the same for all.
const SYSTEM_THREADS: u32 = 128;

/// The kernels beside the network's; those of kernels/replicas.cu.
pub(super) struct Kernels {
    moved: Kernel,
    begin: Kernel,
    decide: Kernel,
    rows: Kernel,
    reverse: Kernel,
    pairs: Kernel,
    forces: Kernel,
    end: Kernel,
    observe: Kernel,
}

impl Kernels {
    /// For so many systems, which have so many atoms together.
    pub fn new(state: &mut State, systems: usize, atoms: usize) -> Result<Self> {
        let (systems, warps) = (systems as u32, (atoms as u32).div_ceil(4));
        let mut of_system = |name| state.kernel(name, systems, SYSTEM_THREADS);
        let (moved, begin) = (of_system("replica_moved")?, of_system("replica_begin")?);
        let (end, observe) = (of_system("replica_end")?, of_system("replica_observe")?);
        let mut of_atom = |name| state.kernel(name, warps, 128);
        Ok(Kernels {
            moved,
            begin,
            rows: of_atom("replica_rows")?,
            reverse: of_atom("replica_reverse")?,
            pairs: of_atom("replica_pairs")?,
            forces: of_atom("replica_forces")?,
            end,
            observe,
            decide: state.kernel("replica_decide", 1, 1)?,
        })
    }

    /// One step.
    pub fn record_step(&self, state: &State, sink: &mut impl Sink) -> Result<()> {
        self.record_move(state, sink, 0, 0)?;
        self.record_lists(state, sink)?;
        self.record_rest(state, sink)
    }

    /// All steps of a launch, in a graph that makes lists only where one is due.
    pub fn record_steps(&self, state: &State, top: &mut Chain) -> Result<()> {
        let (again, due) = (top.handle(1)?, top.handle(0)?);
        top.repeat_while(again, |round| {
            self.record_move(state, round, due, again)?;
            round.only_if(due, |branch| self.record_lists(state, branch))?;
            self.record_rest(state, round)
        })
    }

    /// The atoms move; a graph is told what to do through `due` and `again`, 0 outside of one.
    fn record_move(&self, state: &State, sink: &mut impl Sink, due: Handle, again: Handle) -> Result<()> {
        launch!(sink, self.begin, state.parameters)?;
        launch!(sink, self.decide, state.parameters, due, again)
    }

    /// The lists whose flags are up.
    pub fn record_lists(&self, state: &State, sink: &mut impl Sink) -> Result<()> {
        launch!(sink, self.rows, state.parameters)?;
        launch!(sink, self.reverse, state.parameters)
    }

    /// What of a step comes after its lists.
    pub fn record_rest(&self, state: &State, sink: &mut impl Sink) -> Result<()> {
        self.record_evaluation(state, sink)?;
        launch!(sink, self.end, state.parameters)
    }

    /// Energies and forces.
    pub fn record_evaluation(&self, state: &State, sink: &mut impl Sink) -> Result<()> {
        launch!(sink, self.pairs, state.parameters)?;
        state.record_network(sink)?;
        launch!(sink, self.forces, state.parameters)
    }

    /// Raises the flags of lists that do not hold for the positions.
    pub fn record_moved(&self, state: &State, sink: &mut impl Sink) -> Result<()> {
        launch!(sink, self.moved, state.parameters)
    }

    /// Sums over the atoms of each system, in its control block.
    pub fn record_observe(&self, state: &State, sink: &mut impl Sink) -> Result<()> {
        launch!(sink, self.observe, state.parameters)
    }
}
