//! The exchange of messages and its adjoint, for many atoms: one kernel each, in the first layer other ones.

use super::device::Device;
use super::kernels::Switches;
use super::launch::{Kernel, Sink, launch};
use super::layout::{FilterData, Parameters, Pointer};
use super::program::Program;
use super::weights::SLICE;
use crate::error::Result;

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
        let (messages, adjoint, shared) = if switches.radial {
            // As in kernels/message_radial.cu.
            let threads = if switches.features == 128 && !switches.student { 384 } else { 256 };
            (resident(threads), resident(256), 0)
        } else if switches.table_shared {
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
