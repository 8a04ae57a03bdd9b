//! The exchange of messages and its adjoint, for many atoms: one kernel each, in the first layer other ones.

use super::device::Device;
use super::kernels::Switches;
use super::launch::{Kernel, Sink, launch};
use super::layout::{FilterData, PAIR_BYTES, Parameters, Pointer};
use super::program::Program;
use super::radial;
use super::weights::SLICE;
use crate::error::Result;

/// Threads of a block that makes filters on tensor cores, but in the adjoint behind the first layer; as in
/// `kernels/message_radial.cu`.
const RADIAL_THREADS: u32 = 384;
const ADJOINT_THREADS: u32 = 256;

/// Whether blocks have one slice of the channels each, of filters from tensor cores. With less than sixteen atoms to a warp that works
/// through all slices, uneven shares cost more than gradients of pairs in parts.
pub(super) fn sliced(device: &Device, atoms: usize) -> bool {
    atoms < 16 * (RADIAL_THREADS / 32 * device.multiprocessors) as usize
}

/// The kernels: of the first layer, and of the others.
pub(super) struct Messages {
    forward: [Kernel; 2],
    adjoint: [Kernel; 2],
}

/// What a layer's messages read: its filter, what atoms send, and μ before it, 0 in the first layer.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub first: bool,
    pub filter: FilterData,
    pub sent: Pointer,
    pub mu: Pointer,
}

impl Messages {
    /// A slice's filter table has so many bytes.
    pub fn new(
        device: &Device,
        program: &mut Program,
        switches: &Switches,
        table_bytes: usize,
        atoms: usize,
    ) -> Result<Self> {
        let slices = (switches.features / SLICE) as u32;
        // With its filter in shared memory a block stays on its multiprocessor and walks over atoms.
        let resident = |threads: u32| {
            let most = (atoms as u32).div_ceil(threads / 32);
            ((device.multiprocessors / slices).clamp(1, most) * slices, threads)
        };
        if switches.reduced {
            return Self::reduced(device, program, atoms);
        }
        if switches.radial {
            return Self::radial(device, program, atoms, if switches.sliced { slices } else { 1 });
        }
        let (messages, adjoint, shared) = if switches.table_shared {
            (resident(384), resident(384), table_bytes)
        } else {
            let walk = ((atoms as u32).div_ceil(4) * slices, 128);
            (walk, walk, 0)
        };
        let mut kernel = |name, (grid, threads): (u32, u32)| program.kernel(name, grid, threads, shared);
        Ok(Messages {
            forward: [kernel("messages_first", messages)?, kernel("messages_next", messages)?],
            adjoint: [kernel("adjoint_first", adjoint)?, kernel("adjoint_next", adjoint)?],
        })
    }

    /// Those with filters from tensor cores, a block a multiprocessor, which has one of so many `parts` of the channels; shared memory as
    /// in `kernels/message_radial.cu`.
    fn radial(device: &Device, program: &mut Program, atoms: usize, parts: u32) -> Result<Self> {
        // What a warp keeps of pairs and, 32 channels each, of own rows: those of two atoms, and what is made of them.
        let shared = |threads: u32, rows: usize| {
            let of_warp = 2 * 16 * PAIR_BYTES + rows * SLICE * size_of::<f32>();
            (threads / 32) as usize * of_warp + radial::SLICE_BYTES
        };
        let mut kernel = |name, threads: u32, shared| {
            let groups = (device.multiprocessors / parts).max(1);
            // Few atoms are shared out among all multiprocessors.
            let most = if parts > 1 { (atoms as u32).div_ceil(groups) } else { u32::MAX };
            let warps = (threads / 32).min(most);
            program.kernel(name, (atoms as u32).div_ceil(warps).min(groups) * parts, 32 * warps, shared)
        };
        Ok(Messages {
            forward: [kernel("messages_first", RADIAL_THREADS, 0)?, kernel("messages_next", RADIAL_THREADS, 0)?],
            adjoint: [
                kernel("adjoint_first", RADIAL_THREADS, shared(RADIAL_THREADS, 2 * 2 + 2))?,
                kernel("adjoint_next", ADJOINT_THREADS, shared(ADJOINT_THREADS, 2 * 9 + 5))?,
            ],
        })
    }

    /// Those of reduced precision; threads and shared memory as in `kernels/reduced.cuh` and `kernels/adjoint_reduced.cu`.
    fn reduced(device: &Device, program: &mut Program, atoms: usize) -> Result<Self> {
        // What a warp keeps of pairs; of two atoms so many rows that they send, and of g_μ, 32 channels each, of 16 and of 32 bits;
        // and what is made of them.
        let shared = |threads: u32, sent: usize, gradients: usize, along: usize| {
            let numbers = SLICE * (2 * gradients + along) * size_of::<f32>() + SLICE * 2 * sent * size_of::<u16>();
            (threads / 32) as usize * (2 * 16 * PAIR_BYTES + numbers) + radial::REDUCED_SLICE_BYTES
        };
        let mut kernel = |name, threads: u32, shared| {
            let blocks = (atoms as u32).div_ceil(threads / 32).min(device.multiprocessors);
            program.kernel(name, blocks, threads, shared)
        };
        Ok(Messages {
            forward: [kernel("messages_first", 512, 0)?, kernel("messages_next", 384, 0)?],
            adjoint: [
                kernel("adjoint_first", 512, shared(512, 2, 1, 2))?,
                kernel("adjoint_next", 384, shared(384, 6, 3, 5))?,
            ],
        })
    }

    /// As [`adjoint`](Self::adjoint) in reduced precision: `gradients` as atoms are sent them, in 16 bits, and that of μ as it is.
    #[allow(clippy::too_many_arguments)]
    pub fn adjoint_reduced(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        from: Sent,
        gradients: Pointer,
        gmu: Pointer,
        sent_out: Pointer,
        mu_out: Pointer,
        last: bool,
    ) -> Result<()> {
        let kernel = &self.adjoint[!from.first as usize];
        launch!(sink, *kernel, *p, from.filter, from.sent, gradients, gmu, sent_out, mu_out, !last as i32)
    }

    /// From scalars `q` before to those after, and to μ after.
    pub fn forward(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        from: Sent,
        q: Pointer,
        q_out: Pointer,
        mu_out: Pointer,
    ) -> Result<()> {
        launch!(sink, self.forward[!from.first as usize], *p, from.filter, from.sent, from.mu, q, q_out, mu_out)
    }

    /// From the gradients of q and μ after to those of what was sent and of μ before, and, of a student, of q before. `last`: in the
    /// last layer, whose gradients of pairs are the first.
    #[allow(clippy::too_many_arguments)]
    pub fn adjoint(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        from: Sent,
        gradients: [Pointer; 2],
        sent_out: Pointer,
        q_out: Pointer,
        mu_out: Pointer,
        last: bool,
    ) -> Result<()> {
        let ([gq, gmu], more) = (gradients, !last as i32);
        let kernel = &self.adjoint[!from.first as usize];
        launch!(sink, *kernel, *p, from.filter, from.sent, from.mu, gq, gmu, sent_out, q_out, mu_out, more)
    }
}
