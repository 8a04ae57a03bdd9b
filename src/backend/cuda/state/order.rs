//! The kernels that a step consists of, and their order.

use super::State;
use crate::backend::cuda::few::What;
use crate::backend::cuda::graph::{Chain, Handle};
use crate::backend::cuda::kernels::Switches;
use crate::backend::cuda::launch::{Kernel, Sink, launch};
use crate::backend::cuda::program::Program;
use crate::error::{Error, Result};

/// Threads of a block that works on atoms, and most blocks: the sums of blocks are added by one block.
const ATOM_THREADS: u32 = 128;
pub(super) const ATOM_BLOCKS: u32 = 128;

// As in kernels/bins.cu.
/// Blocks that measure how far atoms spread, and the numbers that they leave.
const SPREAD_BLOCKS: u32 = 128;
pub(super) const SPREAD: usize = 7 * SPREAD_BLOCKS as usize;
/// Bins, or rows, that are summed up by one block.
pub(super) const PIECE: usize = 8192;
/// Atoms that a block searches for, at most, and blocks that a multiprocessor runs at the same time.
const SEARCH_ATOMS: u32 = 32;
const SEARCHES: u32 = 8;

/// Bins of so many atoms: room for them is always there.
pub(super) fn most_bins(atoms: usize) -> usize {
    2 * atoms + 64
}

/// The kernels beside the network's.
pub(super) struct Kernels {
    pub(super) moved: Kernel,
    begin: Kernel,
    rebuild: Vec<Kernel>,
    /// Of few atoms the network's kernel does all that.
    many: Option<Many>,
    pub(super) collect_strain: Kernel,
    pub(super) observe: Kernel,
}

/// What else a step of many atoms consists of.
struct Many {
    bath: Option<Kernel>,
    decide: Kernel,
    find_pairs: Kernel,
    collect_forces: Kernel,
    finish_step: Kernel,
    end_step: Kernel,
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
        self.record_evaluation(sink, What::OneStep, 0)?;
        self.record_end(sink, 0)
    }

    /// All steps of a launch, in a graph that makes the list only where it is due.
    pub fn record_steps(&self, top: &mut Chain) -> Result<()> {
        let again = top.handle(1)?;
        // Every handle must be some node's.
        let due = if self.kernels.many.is_some() { top.handle(0)? } else { 0 };
        top.repeat_while(again, |round| {
            self.record_move(round, due)?;
            match self.kernels.many {
                Some(_) => round.only_if(due, |branch| self.record_rebuild(branch))?,
                // A round for each list: where none is due, at the beginning of a launch, its kernels do nothing.
                None => self.record_rebuild(round)?,
            }
            self.record_evaluation(round, What::AllSteps, again)?;
            self.record_end(round, again)
        })
    }

    /// The first part of a step: the atoms move, and a flag is raised when the list no longer holds. A graph of many atoms is
    /// told so through `due`, 0 outside of one.
    fn record_move(&self, sink: &mut impl Sink, due: Handle) -> Result<()> {
        launch!(sink, self.kernels.begin, self.parameters)?;
        let Some(many) = &self.kernels.many else { return Ok(()) };
        if let Some(bath) = many.bath {
            launch!(sink, bath, self.parameters)?;
        }
        if due == 0 { Ok(()) } else { launch!(sink, many.decide, self.parameters, due) }
    }

    /// The list; nothing happens unless the flag is up.
    pub fn record_rebuild(&self, sink: &mut impl Sink) -> Result<()> {
        self.kernels.rebuild.iter().try_for_each(|kernel| launch!(sink, *kernel, self.parameters))
    }

    /// Energies and forces; of few atoms, also `what` else of a step is asked for. With `again`, 0 outside of one, their graph
    /// goes round.
    pub(super) fn record_evaluation(&self, sink: &mut impl Sink, what: What, again: Handle) -> Result<()> {
        let Some(many) = &self.kernels.many else { return self.network.record(sink, &self.parameters, what, again) };
        launch!(sink, many.find_pairs, self.parameters)?;
        self.network.record(sink, &self.parameters, what, again)?;
        launch!(sink, many.collect_forces, self.parameters)
    }

    /// The end of a step of many atoms, whose graph goes round with `again`, 0 outside of one.
    fn record_end(&self, sink: &mut impl Sink, again: Handle) -> Result<()> {
        let Some(many) = &self.kernels.many else { return Ok(()) };
        let blocks = self.kernels.begin.grid.0 as i32;
        launch!(sink, many.finish_step, self.parameters)?;
        launch!(sink, many.end_step, self.parameters, blocks, again)
    }
}

impl Kernels {
    pub(super) fn new(program: &mut Program, switches: &Switches, multiprocessors: u32, atoms: usize) -> Result<Self> {
        let atoms = atoms as u32;
        let mut kernel = |name, grid: u32, threads| program.kernel(name, grid, threads, 0);
        let strided = atoms.div_ceil(ATOM_THREADS).min(ATOM_BLOCKS);
        let (each, warps) = (atoms.div_ceil(256), atoms.div_ceil(4));
        let begin = if switches.few {
            kernel("few_begin", 1, switches.few_threads() as u32)?
        } else {
            kernel("begin_step", strided, ATOM_THREADS)?
        };
        let mut many = || {
            Ok::<_, Error>(Many {
                bath: switches.langevin.then(|| kernel("bath", strided, ATOM_THREADS)).transpose()?,
                decide: kernel("decide", 1, 1)?,
                find_pairs: kernel("find_pairs", warps, 128)?,
                collect_forces: kernel("collect_forces", warps, 128)?,
                finish_step: kernel("finish_step", strided, ATOM_THREADS)?,
                end_step: kernel("end_step", 1, 1024)?,
            })
        };
        let many = if switches.few { None } else { Some(many()?) };
        let rebuild = if switches.few {
            // What kernels/few_list.cu has of all atoms.
            let shared = ((3 + 3 * atoms as usize) * size_of::<f64>() + 3 * atoms as usize * size_of::<i32>()) as u32;
            let direct = |kernel: Kernel| Kernel { shared, ..kernel };
            vec![
                direct(kernel("few_count", atoms, 256)?),
                direct(kernel("few_fill", atoms, 256)?),
                kernel("row_reverse", warps, 128)?,
            ]
        } else if switches.replicas {
            // Every system has a list of its own.
            Vec::new()
        } else {
            // One behind the last has a sum too; one piece alone is summed up where it is needed.
            let pieces = |numbers: usize| (numbers + 1).div_ceil(PIECE) as u32;
            let (bins, rows) = (pieces(most_bins(atoms as usize)), pieces(atoms as usize));
            // Few atoms a block where there are blocks enough for all multiprocessors: nobody then waits for one of them.
            let searches = atoms.div_ceil(4).min(SEARCHES * multiprocessors).max(atoms.div_ceil(SEARCH_ATOMS));
            let mut list = vec![
                kernel("bin_spread", SPREAD_BLOCKS, 256)?,
                kernel("bin_grid", 1, SPREAD_BLOCKS)?,
                kernel("bin_count", each, 256)?,
            ];
            if bins > 1 {
                list.push(kernel("bin_sums", bins, 1024)?);
            }
            list.extend([
                kernel("bin_scan", bins, 1024)?,
                kernel("bin_fill", each, 256)?,
                kernel("spatial_order", each, 256)?,
                kernel("row_count", searches, 128)?,
            ]);
            if rows > 1 {
                list.push(kernel("row_sums", rows, 1024)?);
            }
            list.extend([
                kernel("row_scan", rows, 1024)?,
                kernel("row_fill", searches, 128)?,
                kernel("row_sort", warps, 128)?,
                kernel("row_reverse", warps, 128)?,
            ]);
            list
        };
        Ok(Kernels {
            moved: kernel("moved", strided, ATOM_THREADS)?,
            begin,
            rebuild,
            many,
            collect_strain: kernel("collect_strain", warps, 128)?,
            observe: kernel("observe", 1, 1024)?,
        })
    }
}
