//! What many systems need on the device beyond the memory of their atoms.

use crate::backend::cuda::device::Device;
use crate::backend::cuda::layout::{Contact, Control, DeviceSample, Parameters, Replica};
use crate::backend::cuda::memory::Buffer;
use crate::backend::guard::Guard;
use crate::backend::{Replica as Given, cuda::state::State};
use crate::error::Result;
use std::sync::Arc;

/// Pairs for which a row of a periodic system has room at first.
const FIRST_ROOM: i32 = 64;

/// See the module.
pub(super) struct Memory {
    /// That of all, then one for each system.
    controls: Buffer<Control>,
    /// `[systems][a launch's]`.
    samples: Buffer<DeviceSample>,
    /// `[systems][elements][elements]`.
    contacts: Buffer<Contact>,
    replicas: Buffer<Replica>,
    /// `[N]`, where each atom's row begins.
    rows: Buffer<i32>,
    /// What the host knows of `replicas`.
    table: Vec<Replica>,
    /// Held for as long as the parameters point to them.
    _others: (Buffer<f64>, [Buffer<i32>; 2]),
}

impl Memory {
    /// Reserves it, with room for so many samples of each system, and lets the parameters point to it.
    pub fn new(
        device: &Arc<Device>,
        parameters: &mut Parameters,
        replicas: &[Given],
        guards: &[Guard],
        samples: usize,
    ) -> Result<Self> {
        let (systems, atoms) = (replicas.len(), parameters.atoms as usize);
        let mut first = 0;
        let table: Vec<Replica> = replicas
            .iter()
            .zip(guards)
            .map(|(replica, guard)| {
                let entry = entry(replica, guard, first, parameters.energy_unit);
                first += entry.atoms;
                entry
            })
            .collect();
        let of_atoms = |value: fn(i32, i32) -> i32| -> Vec<i32> {
            let atoms = |(s, replica): (usize, &Replica)| {
                (replica.first..replica.first + replica.atoms).map(move |atom| value(s as i32, atom))
            };
            table.iter().enumerate().flat_map(atoms).collect()
        };
        let contacts = systems * (parameters.elements * parameters.elements) as usize;
        let memory = Memory {
            controls: Buffer::zeros(device, 1 + systems)?,
            samples: Buffer::zeros(device, systems * samples)?,
            contacts: Buffer::from(device, &vec![Contact::default(); contacts])?,
            replicas: Buffer::from(device, &table)?,
            rows: Buffer::zeros(device, atoms)?,
            _others: (
                Buffer::zeros(device, 5 * systems)?,
                [
                    Buffer::from(device, &of_atoms(|system, _| system))?,
                    // The network's rows are in the order of atoms: small systems are near in memory as they come.
                    Buffer::from(device, &of_atoms(|_, atom| atom))?,
                ],
            ),
            table,
        };
        let (partials, [system_of, identity]) = &memory._others;
        parameters.control = memory.controls.pointer();
        parameters.samples = memory.samples.pointer();
        parameters.samples_capacity = samples as i32;
        parameters.contacts = memory.contacts.pointer();
        parameters.partials = partials.pointer();
        parameters.replicas = memory.replicas.pointer();
        parameters.system_of = system_of.pointer();
        parameters.rows = memory.rows.pointer();
        parameters.order = identity.pointer();
        parameters.place = identity.pointer();
        parameters.kinds = parameters.species;
        Ok(memory)
    }

    /// Gives every row the room that its system needs; all lists are lost.
    pub fn lay_out(&self, state: &mut State) -> Result<()> {
        let (mut rows, mut begin) = (Vec::with_capacity(self.rows.len()), 0);
        for replica in &self.table {
            for _ in 0..replica.atoms {
                rows.push(begin as i32);
                begin += replica.room as usize;
            }
        }
        state.reserve(begin)?;
        self.rows.upload(&rows)?;
        self.replicas.upload(&self.table)
    }

    /// Notes what the longest row of a system needs, and some more.
    pub fn widen(&mut self, system: usize, needed: i64) {
        let replica = &mut self.table[system];
        if needed > replica.room.into() {
            replica.room = i32::try_from(needed + needed / 8 + 4).unwrap_or(i32::MAX);
        }
    }

    pub fn read_controls(&self) -> Result<Vec<Control>> {
        self.controls.download()
    }

    pub fn write_controls(&self, controls: &[Control]) -> Result<()> {
        self.controls.upload(controls)
    }

    /// All samples since the host looked, `[systems][a launch's]`.
    pub fn read_samples(&self) -> Result<Vec<DeviceSample>> {
        self.samples.download()
    }

    /// `[systems][elements][elements]`; the device forgets them.
    pub fn take_contacts(&self) -> Result<Vec<Contact>> {
        let contacts = self.contacts.download()?;
        self.forget_contacts()?;
        Ok(contacts)
    }

    pub fn forget_contacts(&self) -> Result<()> {
        self.contacts.upload(&vec![Contact::default(); self.contacts.len()])
    }
}

/// What the device must know of a system whose atoms begin at `first`.
fn entry(replica: &Given, guard: &Guard, first: i32, energy_unit: f64) -> Replica {
    let (system, cell) = (&replica.system, &replica.system.cell);
    let inverse = cell.vectors().try_inverse().expect("a cell has a volume");
    let atoms = system.len() as i32;
    let [lowest, highest] = guard.energies().unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
    let bath = replica.integrator.thermostat();
    let seed = bath.map_or(0, |bath| bath.seed);
    Replica {
        cell: std::array::from_fn(|k| cell.vectors()[(k / 3, k % 3)]),
        inverse: std::array::from_fn(|k| inverse[(k / 3, k % 3)]),
        heights: cell.heights(),
        temperature: bath.map_or(0.0, |bath| bath.temperature),
        final_temperature: bath.map_or(0.0, |bath| bath.final_temperature),
        total_mass: system.masses.iter().sum(),
        lowest: lowest / energy_unit,
        highest: highest / energy_unit,
        seed: [seed as u32, (seed >> 32) as u32],
        periodic: cell.periodic().map(i32::from),
        first,
        atoms,
        // Without images a row can hold no more than all other atoms.
        room: if cell.is_periodic() { FIRST_ROOM } else { (atoms - 1).clamp(1, FIRST_ROOM) },
    }
}
