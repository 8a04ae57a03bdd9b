//! The kernels that a step consists of, and their order.

use super::State;
use crate::backend::cuda::graph::{Chain, Handle};
use crate::backend::cuda::kernels::{PAIR_THREADS, Switches};
use crate::backend::cuda::launch::{Kernel, Sink, launch};
use crate::backend::cuda::program::Program;
use crate::error::{Error, Result};

/// Threads of a block that works on atoms, and most blocks: the sums of blocks are added by one block.
const ATOM_THREADS: u32 = 128;
pub(super) const ATOM_BLOCKS: u32 = 128;

/// The kernels beside the network's.
pub(super) struct Kernels {
    pub(super) moved: Kernel,
    ends: Ends,
    rebuild: Vec<Kernel>,
    find_pairs: Kernel,
    pub(super) collect_forces: Kernel,
    pub(super) collect_strain: Kernel,
    pub(super) observe: Kernel,
}

/// The two ends of a step.
enum Ends {
    Few { begin: Kernel, end: Kernel },
    Many { begin_step: Kernel, bath: Option<Kernel>, decide: Kernel, finish_step: Kernel, end_step: Kernel },
}

impl State {
    /// One step.
    pub fn record_step(&self, sink: &mut impl Sink) -> Result<()> {
        self.record_move(sink, 0)?;
        self.record_rebuild(sink)?;
        self.record_rest(sink)
    }

    /// What of a step comes after its list.
    pub fn record_rest(&self, sink: &mut impl Sink) -> Result<()> {
        self.record_network(sink)?;
        self.record_end(sink, 0, 0)
    }

    /// All steps of a launch, in a graph that makes the list only where it is due.
    pub fn record_steps(&self, top: &mut Chain) -> Result<()> {
        let (again, other) = (top.handle(1)?, top.handle(0)?);
        top.repeat_while(again, |round| match self.kernels.ends {
            // A round for each list: where none is due, at the beginning of a launch, its kernels do nothing.
            Ends::Few { .. } => {
                self.record_move(round, other)?;
                self.record_rebuild(round)?;
                round.repeat_while(other, |step| {
                    self.record_network(step)?;
                    self.record_end(step, again, other)
                })
            }
            Ends::Many { .. } => {
                self.record_move(round, other)?;
                round.only_if(other, |branch| self.record_rebuild(branch))?;
                self.record_network(round)?;
                self.record_end(round, again, 0)
            }
        })
    }

    /// The first part of a step: the atoms move, and a flag is raised when the list no longer holds. Through `handle`, 0
    /// outside a graph, few atoms tell the graph to go on with steps; many tell it whether the flag is up.
    fn record_move(&self, sink: &mut impl Sink, handle: Handle) -> Result<()> {
        match &self.kernels.ends {
            Ends::Few { begin, .. } => launch!(sink, *begin, self.parameters, handle),
            Ends::Many { begin_step, bath, decide, .. } => {
                launch!(sink, *begin_step, self.parameters)?;
                if let Some(bath) = bath {
                    launch!(sink, *bath, self.parameters)?;
                }
                if handle == 0 { Ok(()) } else { launch!(sink, *decide, self.parameters, handle) }
            }
        }
    }

    /// The list; nothing happens unless the flag is up.
    pub fn record_rebuild(&self, sink: &mut impl Sink) -> Result<()> {
        self.kernels.rebuild.iter().try_for_each(|kernel| launch!(sink, *kernel, self.parameters))
    }

    /// Energies and the gradients of pairs.
    pub(super) fn record_network(&self, sink: &mut impl Sink) -> Result<()> {
        launch!(sink, self.kernels.find_pairs, self.parameters)?;
        self.network.record(sink, &self.parameters)
    }

    /// Forces, and the end of a step. The handles are 0 outside a graph that repeats steps: with `again` such a graph goes
    /// round, with `steady`, which many atoms do not have, it does so while the list holds, and the next step is begun here.
    fn record_end(&self, sink: &mut impl Sink, again: Handle, steady: Handle) -> Result<()> {
        match &self.kernels.ends {
            Ends::Few { end, .. } => launch!(sink, *end, self.parameters, again, steady),
            Ends::Many { begin_step, finish_step, end_step, .. } => {
                let blocks = begin_step.grid.0 as i32;
                launch!(sink, self.kernels.collect_forces, self.parameters)?;
                launch!(sink, *finish_step, self.parameters)?;
                launch!(sink, *end_step, self.parameters, blocks, again)
            }
        }
    }
}

impl Kernels {
    pub(super) fn new(program: &mut Program, switches: &Switches, atoms: usize) -> Result<Self> {
        let atoms = atoms as u32;
        let mut kernel = |name, grid: u32, threads| {
            Ok::<_, Error>(Kernel { name, function: program.function(name, 0)?, grid: (grid, 1), threads, shared: 0 })
        };
        let strided = atoms.div_ceil(ATOM_THREADS).min(ATOM_BLOCKS);
        let (each, warps) = (atoms.div_ceil(256), atoms.div_ceil(4));
        let ends = if switches.few {
            Ends::Few { begin: kernel("few_begin", 1, PAIR_THREADS)?, end: kernel("few_end", atoms, PAIR_THREADS)? }
        } else {
            Ends::Many {
                begin_step: kernel("begin_step", strided, ATOM_THREADS)?,
                bath: switches.langevin.then(|| kernel("bath", strided, ATOM_THREADS)).transpose()?,
                decide: kernel("decide", 1, 1)?,
                finish_step: kernel("finish_step", strided, ATOM_THREADS)?,
                end_step: kernel("end_step", 1, 1024)?,
            }
        };
        let mut rebuild = vec![
            kernel("bin_grid", 1, 1024)?,
            kernel("bin_count", each, 256)?,
            kernel("bin_scan", 1, 1024)?,
            kernel("bin_fill", each, 256)?,
        ];
        if !switches.few {
            rebuild.push(kernel("spatial_order", each, 256)?);
        }
        rebuild.extend([
            kernel("row_count", warps, 128)?,
            kernel("row_scan", 1, 1024)?,
            kernel("row_fill", warps, 128)?,
            kernel("row_sort", warps, 128)?,
            kernel("row_reverse", warps, 128)?,
        ]);
        Ok(Kernels {
            moved: kernel("moved", strided, ATOM_THREADS)?,
            ends,
            rebuild,
            find_pairs: if switches.few {
                kernel("find_pairs", atoms, PAIR_THREADS)?
            } else {
                kernel("find_pairs", warps, 128)?
            },
            collect_forces: kernel("collect_forces", warps, 128)?,
            collect_strain: kernel("collect_strain", warps, 128)?,
            observe: kernel("observe", 1, 1024)?,
        })
    }
}
