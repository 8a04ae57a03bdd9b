//! A frame for chemfiles.

use super::{Record, TrajectoryOptions};
use crate::elements;
use crate::output::h5md::edge_vectors;
use crate::system::System;
use crate::system::structure::quietly;
use crate::units::FS_PER_PS;
use chemfiles::{Atom, Frame, UnitCell};

/// A frame with the atoms of the system, filled anew for every step.
pub(super) struct Template {
    frame: Frame,
    /// Whether it has the time of a step: chemfiles takes no property away.
    timed: bool,
}

// SAFETY: the frame is owned by this value alone, and chemfiles ties no frame to a thread: what all of them share, its table
// of pointers, is behind a mutex.
unsafe impl Send for Template {}

impl Template {
    pub fn new(system: &System, options: &TrajectoryOptions) -> Self {
        let mut frame = Frame::new();
        if options.velocities {
            frame.add_velocities();
        }
        for (&z, &mass) in system.atomic_numbers.iter().zip(&system.masses) {
            let mut atom = Atom::new(elements::symbol(z));
            atom.set_mass(mass);
            frame.add_atom(&atom, [0.0; 3], None);
        }
        // Velocities in Å/ps and times in ps, as chemfiles has them; its default, `real`, would be Å/fs and fs.
        frame.set("lammps_units", "metal");
        Template { frame, timed: false }
    }

    /// The frame with a step's numbers, in chemfiles' units: Å, ps.
    pub fn fill(&mut self, record: &Record) -> Result<&Frame, String> {
        self.frame.set_step(record.step.min(i32::MAX as u64) as usize);
        // GROMACS finds time and step in the title.
        let title = match record.time.map(|time| time / FS_PER_PS) {
            Some(time) => {
                self.frame.set("time", time);
                self.timed = true;
                format!("verlet t= {time:.6} step= {}", record.step)
            }
            None if self.timed => return Err("it has no time, and the frames before it have".into()),
            None => format!("verlet step= {}", record.step),
        };
        self.frame.set("name", title.as_str());
        for (slot, r) in self.frame.positions_mut().iter_mut().zip(&record.positions) {
            *slot = (*r).into();
        }
        if let (Some(slots), Some(velocities)) = (self.frame.velocities_mut(), &record.velocities) {
            for (slot, v) in slots.iter_mut().zip(velocities) {
                *slot = (v * FS_PER_PS).into();
            }
        }
        let cell = if record.cell.is_periodic() {
            let edges = edge_vectors(record.cell, &record.positions);
            // Edges are chemfiles' columns.
            let column = |axis: usize| [edges[axis], edges[3 + axis], edges[6 + axis]];
            quietly(|| Ok::<_, String>(UnitCell::from_matrix([column(0), column(1), column(2)])))?
        } else {
            UnitCell::infinite()
        };
        self.frame.set_cell(&cell);
        Ok(&self.frame)
    }
}
