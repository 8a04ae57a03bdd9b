//! A system on the device: its state and its list. Which kernels a step consists of is said in `order`.

mod order;

use super::device::Device;
use super::few::What;
use super::launch::{Kernel, Sink, launch};
use super::layout::{Contact, Control, DeviceSample, ElementPair, PAIR_BYTES, Parameters, SHIFT_BITS, status};
use super::memory::{Buffer, Staging};
use super::network::{self, Network};
use super::program::Program;
use crate::backend::guard::{self, Guard};
use crate::backend::{Outside, explosion};
use crate::error::{Error, Result};
use crate::integrate::Integrator;
use crate::model::Model;
use crate::neighbors::NeighborList;
use crate::system::Cell;
use crate::units;
use nalgebra::Vector3;
use order::{ATOM_BLOCKS, Kernels, PIECE, SPREAD, most_bins};
use std::sync::Arc;

/// Samples that the device can keep until the host looks: no launch takes more steps.
pub(super) const SAMPLES: usize = 1000;
/// Whose index fits a pair of the list, and a contact; no device has memory for more.
const MOST_ATOMS: usize = (1 << Contact::ATOM_BITS) - 1;
/// Images of the cell in a direction that a pair of the list can tell apart, with some to spare.
const MOST_IMAGES: f64 = 2000.0;
/// Images of the cell that are searched for each pair of atoms, at most.
const MOST_SEARCHED: f64 = 1e8;

/// Bytes that an atom of many takes whatever the network: positions, velocities, forces and the list's positions; masses, half
/// kicks and its part of the repulsion; its place in its bin; 17 numbers of 4 bytes.
pub(super) const ATOM_BYTES: usize = 12 * 8 + 3 * 8 + 4 * 4 + 17 * 4;
/// A list gets room for this part more pairs than it has.
const SPARE: usize = 16;

/// Bytes that a pair of the list takes when its gradients have so many parts, with what is there to spare.
pub(super) fn listed_bytes(parts: usize) -> f64 {
    PairMemory::bytes(parts) as f64 * (1.0 + 1.0 / SPARE as f64)
}

/// Memory whose size depends on the number of pairs.
struct PairMemory {
    entries: Buffer<u64>,
    reverse: Buffer<u32>,
    pairs: Buffer<u8>,
    gradients: Buffer<f32>,
}

/// See the module.
pub(super) struct State {
    pub device: Arc<Device>,
    pub parameters: Parameters,
    pub guard: Guard,
    network: Network,
    kernels: Kernels,
    /// Parts of a pair's gradients.
    parts: usize,
    control: Buffer<Control>,
    samples: Buffer<DeviceSample>,
    positions: Buffer<f64>,
    velocities: Buffer<f64>,
    forces: Buffer<f64>,
    reference: Buffer<f64>,
    /// Only where somebody has asked for it.
    strain: Option<Buffer<f64>>,
    energies: Buffer<f32>,
    /// Of each atom where the model has one, else of none.
    repulsion: Buffer<f64>,
    _element_pairs: Buffer<ElementPair>,
    contacts: Buffer<Contact>,
    images: Buffer<i32>,
    /// Ends of the list's rows.
    rows: Buffer<u32>,
    pair_memory: PairMemory,
    /// Held for as long as the parameters point to them.
    _others: (Vec<Buffer<f64>>, Vec<Buffer<i32>>),
    /// Dropped after everything that uses its kernels.
    program: Program,
}

/// How a system moves.
pub(super) struct Motion<'a> {
    pub masses: &'a [f64],
    pub integrator: &'a Integrator,
    pub log_interval: u64,
    /// Of many systems: the number of atoms that decides which kernels they take.
    pub replicas: Option<usize>,
}

impl State {
    /// Prepares a model for these atoms in a cell; `skin` in Å. Without motion only energies and forces can be asked for.
    pub fn new(
        device: &Arc<Device>,
        model: &Model,
        atomic_numbers: &[u8],
        cell: &Cell,
        skin: f64,
        motion: Option<Motion>,
    ) -> Result<Self> {
        model.check_elements(atomic_numbers)?;
        super::check_model(model)?;
        network::check_arithmetic(device, model)?;
        let atoms = atomic_numbers.len();
        if atoms > MOST_ATOMS {
            return Err(Error::Structure(format!(
                "the GPU backend holds at most {MOST_ATOMS} atoms; the system has {atoms}"
            )));
        }
        let thermostat = motion.as_ref().and_then(|motion| motion.integrator.thermostat().copied());
        let thermostat = thermostat.filter(|bath| bath.friction > 0.0);
        let replicas = motion.as_ref().and_then(|motion| motion.replicas);
        let kernels_for = replicas.unwrap_or(atoms);
        // Who moves keeps the cell.
        let open = motion.is_some() && !cell.is_periodic();
        let (switches, mut program) =
            Network::program(device, model, kernels_for, thermostat.is_some(), replicas.is_some(), open)?;
        let network = Network::new(device, &mut program, &switches, model, atomic_numbers)?;
        let kernels = Kernels::new(&mut program, &switches, device.multiprocessors, atoms)?;

        let wide = |len: usize| Buffer::<f64>::zeros(device, len);
        let whole = |len: usize| Buffer::<i32>::zeros(device, len);
        // Few atoms need no bins, and stay in the order in which they come.
        let ordered = if switches.few { 0 } else { atoms };
        let bins = if switches.few { 0 } else { most_bins(atoms) };
        let timestep = motion.as_ref().map_or(1.0, |motion| motion.integrator.timestep());
        let masses = motion.as_ref().map_or(vec![1.0; atoms], |motion| motion.masses.to_vec());
        let half_kick: Vec<f64> = masses.iter().map(|m| 0.5 * timestep * units::FORCE_PER_MASS / m).collect();
        let floats = vec![
            Buffer::from(device, &masses)?,
            Buffer::from(device, &half_kick)?,
            wide(5 * ATOM_BLOCKS as usize)?,
            wide(if switches.few { 0 } else { SPREAD })?,
        ];
        let (images, rows) = (whole(3 * atoms)?, Buffer::<u32>::zeros(device, atoms + 1)?);
        let integers = vec![
            whole(atoms)?,
            whole(atoms)?,
            whole(ordered)?,
            whole(ordered)?,
            whole(ordered)?,
            whole(ordered)?,
            whole(bins + 1)?,
            whole(bins)?,
            whole(ordered)?,
            // Four numbers an atom.
            whole(4 * ordered)?,
            // Sums of 64 bits.
            whole(2 * (bins.max(atoms) + 1).div_ceil(PIECE))?,
        ];
        let parts = switches.gradient_parts();
        let pair_memory = PairMemory::new(device, 0, parts)?;
        let [positions, velocities, forces, reference] =
            [wide(3 * atoms)?, wide(3 * atoms)?, wide(3 * atoms)?, wide(3 * atoms)?];
        let energies = Buffer::zeros(device, atoms)?;
        let guard = Guard::new(model, atomic_numbers);
        let repulsion = wide(if switches.repulsion { atoms } else { 0 })?;
        let element_pairs: Vec<_> = guard.pairs().iter().map(ElementPair::from).collect();
        let largest = |of: fn(&ElementPair) -> f64| element_pairs.iter().map(of).fold(0.0, f64::max);
        // The distance that is compared with this one is rounded to float32.
        let (watched, repelled) = (largest(|pair| pair.limit), largest(|pair| pair.outer) * (1.0 + 1e-6));
        let element_pairs = Buffer::from(device, &element_pairs)?;
        let contacts = Buffer::from(device, &vec![Contact::default(); element_pairs.len()])?;
        let [lowest, highest] = guard.energies().unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
        let control = Buffer::from(device, &[Control::new()])?;
        let samples = Buffer::zeros(device, SAMPLES)?;
        let grid = model.filter_table().grid();
        let mut parameters = Parameters {
            control: control.pointer(),
            samples: samples.pointer(),
            positions: positions.pointer(),
            velocities: velocities.pointer(),
            forces: forces.pointer(),
            reference: reference.pointer(),
            masses: floats[0].pointer(),
            half_kick: floats[1].pointer(),
            species: network.species(),
            order: integers[2].pointer(),
            place: integers[3].pointer(),
            kinds: integers[4].pointer(),
            partials: floats[2].pointer(),
            images: images.pointer(),
            found: integers[1].pointer(),
            spread: floats[3].pointer(),
            bin_of: integers[5].pointer(),
            bin_start: integers[6].pointer(),
            bin_next: integers[7].pointer(),
            bin_atoms: integers[8].pointer(),
            sums: integers[10].pointer(),
            spots: integers[9].pointer(),
            rows: rows.pointer(),
            inside: integers[0].pointer(),
            energies: energies.pointer(),
            element_pairs: element_pairs.pointer(),
            contacts: contacts.pointer(),
            repulsion: repulsion.pointer(),
            watched,
            repelled,
            lowest: lowest / model.energy_unit,
            highest: highest / model.energy_unit,
            elements: guard.elements() as i32,
            cutoff: model.cutoff(),
            range: model.cutoff() + skin,
            half_skin2: (0.5 * skin).powi(2),
            epsilon: model.direction_epsilon,
            spacing: grid.spacing,
            energy_unit: model.energy_unit,
            half_step: 0.5 * timestep,
            fastest2: (explosion::LARGEST_MOVE / timestep).powi(2),
            mass_velocity2: units::MASS_VELOCITY2,
            boltzmann: units::BOLTZMANN,
            total_mass: masses.iter().sum(),
            log_interval: motion.as_ref().map_or(1, |motion| motion.log_interval.max(1) as i64),
            atoms: atoms as i32,
            bins: bins as i32,
            intervals: grid.intervals as i32,
            samples_capacity: SAMPLES as i32,
            ..Parameters::default()
        };
        if let Some(bath) = thermostat {
            parameters.c1 = (-bath.friction * timestep).exp();
            parameters.c2 = (1.0 - parameters.c1 * parameters.c1).sqrt();
            parameters.temperature = bath.temperature;
            parameters.final_temperature = bath.final_temperature;
            parameters.ramp_steps = i64::try_from(bath.ramp_steps).unwrap_or(i64::MAX);
            parameters.seed = [bath.seed as u32, (bath.seed >> 32) as u32];
            parameters.remove_centre_of_mass = bath.remove_centre_of_mass as i32;
        }
        let mut state = State {
            device: device.clone(),
            parameters,
            guard,
            network,
            kernels,
            parts,
            control,
            samples,
            positions,
            velocities,
            forces,
            reference,
            strain: None,
            energies,
            repulsion,
            _element_pairs: element_pairs,
            contacts,
            images,
            rows,
            pair_memory,
            _others: (floats, integers),
            program,
        };
        state.set_cell(cell)?;
        state.point_to_pairs();
        Ok(state)
    }

    /// A kernel of the program, `grid` blocks of so many threads.
    pub fn kernel(&mut self, name: &'static str, grid: u32, threads: u32) -> Result<Kernel> {
        self.program.kernel(name, grid, threads, 0)
    }

    /// From pairs to energies and the gradients of pairs, in the network for many atoms.
    pub fn record_network(&self, sink: &mut impl Sink) -> Result<()> {
        self.network.record(sink, &self.parameters, What::OnlyForces, 0)
    }

    /// Changes the cell; the list must be made anew afterwards.
    ///
    /// # Errors
    /// [`Error::Run`] when the range of the list reaches over too many images of it.
    pub fn set_cell(&mut self, cell: &Cell) -> Result<()> {
        check_images(cell, self.parameters.range)?;
        let inverse = cell.vectors().try_inverse().expect("a cell has a volume");
        let p = &mut self.parameters;
        for row in 0..3 {
            for column in 0..3 {
                p.cell[3 * row + column] = cell.vectors()[(row, column)];
                p.inverse[3 * row + column] = inverse[(row, column)];
            }
        }
        p.heights = cell.heights();
        p.periodic = cell.periodic().map(i32::from);
        Ok(())
    }

    fn point_to_pairs(&mut self) {
        let memory = &self.pair_memory;
        self.parameters.entries = memory.entries.pointer();
        self.parameters.reverse = memory.reverse.pointer();
        self.parameters.pairs = memory.pairs.pointer();
        self.parameters.gradients = memory.gradients.pointer();
        self.parameters.capacity = memory.reverse.len() as i64;
    }

    /// Makes room for a list that did not fit, and some more.
    pub fn grow(&mut self, needed: i64) -> Result<()> {
        self.reserve(needed as usize + needed as usize / SPARE + 64)
    }

    /// Takes other memory for so many pairs; the list is lost.
    pub fn reserve(&mut self, room: usize) -> Result<()> {
        // Two lists are never there at once.
        self.pair_memory = PairMemory::new(&self.device, 0, self.parts)?;
        if room > i32::MAX as usize {
            return Err(Error::Run(format!(
                "the system has {room} neighbour pairs, more than the GPU backend can hold; use a smaller skin or system"
            )));
        }
        self.pair_memory = PairMemory::new(&self.device, room, self.parts)?;
        self.point_to_pairs();
        Ok(())
    }

    pub fn read_control(&self) -> Result<Control> {
        Ok(self.control.download()?[0])
    }

    pub fn write_control(&self, control: &Control) -> Result<()> {
        self.control.upload(std::slice::from_ref(control))
    }

    pub fn read_samples(&self, count: usize) -> Result<Vec<DeviceSample>> {
        self.samples.download_first(count)
    }

    pub fn set_positions(&self, positions: &[Vector3<f64>]) -> Result<()> {
        self.positions.upload(&flat(positions))
    }

    pub fn set_velocities(&self, velocities: &[Vector3<f64>]) -> Result<()> {
        self.velocities.upload(&flat(velocities))
    }

    pub fn positions(&self) -> Result<Vec<Vector3<f64>>> {
        self.positions.download().map(|x| vectors(&x))
    }

    pub fn velocities(&self) -> Result<Vec<Vector3<f64>>> {
        self.velocities.download().map(|x| vectors(&x))
    }

    pub fn forces(&self) -> Result<Vec<Vector3<f64>>> {
        self.forces.download().map(|x| vectors(&x))
    }

    /// Positions, velocities and forces at once.
    pub fn read_frame(&self, staging: &mut Staging<f64>, frame: [&mut Vec<Vector3<f64>>; 3]) -> Result<()> {
        let values = staging.fetch(&[&self.positions, &self.velocities, &self.forces])?;
        for (values, vectors) in values.chunks_exact(self.positions.len()).zip(frame) {
            vectors.clear();
            vectors.extend(values.chunks_exact(3).map(|v| Vector3::new(v[0], v[1], v[2])));
        }
        Ok(())
    }

    /// Positions of the last build of the list.
    pub fn list_positions(&self) -> Result<Vec<Vector3<f64>>> {
        self.reference.download().map(|x| vectors(&x))
    }

    /// The list as it is.
    pub fn list(&self) -> Result<NeighborList> {
        let (rows, images) = (self.rows.download()?, self.images.download()?);
        let pairs = *rows.last().expect("an end behind the last row") as usize;
        let entries = self.pair_memory.entries.download_first(pairs)?;
        let image = |atom: usize, k: usize| images[3 * atom + k];
        let mut list = NeighborList {
            offsets: rows.iter().map(|&end| end as usize).collect(),
            reverse: self.pair_memory.reverse.download_first(pairs)?,
            ..NeighborList::default()
        };
        for atom in 0..rows.len() - 1 {
            for &entry in &entries[list.row(atom)] {
                let neighbor = (entry >> (3 * SHIFT_BITS)) as usize;
                // From the translation between atoms inside of the cell to that between unwrapped ones.
                let shift = |k: usize| {
                    let bits = (entry >> ((2 - k) * SHIFT_BITS)) as i32 & ((1 << SHIFT_BITS) - 1);
                    bits - (1 << (SHIFT_BITS - 1)) + image(atom, k) - image(neighbor, k)
                };
                list.neighbors.push(neighbor as u32);
                list.shifts.push([0, 1, 2].map(shift));
            }
        }
        Ok(list)
    }

    /// Energies of atoms in the network's unit, with the repulsion and without offsets.
    pub fn energies(&self) -> Result<Vec<f64>> {
        let mut energies: Vec<f64> = self.energies.download()?.into_iter().map(f64::from).collect();
        if self.repulsion.len() > 0 {
            energies.iter_mut().zip(self.repulsion.download()?).for_each(|(energy, repulsion)| *energy += repulsion);
        }
        Ok(energies)
    }

    /// The first two atoms of each pair of elements that were too close since this was last asked, with their step. The
    /// device forgets them.
    pub fn take_contacts(&self, control: &mut Control) -> Result<Vec<(u64, Outside)>> {
        if control.close == 0 {
            return Ok(Vec::new());
        }
        control.close = 0;
        let contacts = self.contacts.download()?;
        self.forget_contacts()?;
        let outside = |contact: &Contact| {
            contact.atoms().map(|atoms| (contact.step as u64, self.guard.distance(atoms, contact.distance)))
        };
        Ok(contacts.iter().filter_map(outside).collect())
    }

    fn forget_contacts(&self) -> Result<()> {
        self.contacts.upload(&vec![Contact::default(); self.contacts.len()])
    }

    /// Σ r ⊗ ∂E/∂r of the last evaluation by atoms, nine numbers each, eV.
    pub fn strain(&mut self) -> Result<Vec<f64>> {
        let strain = match self.strain.take() {
            Some(strain) => strain,
            None => Buffer::zeros(&self.device, 9 * self.parameters.atoms as usize)?,
        };
        self.parameters.strain = strain.pointer();
        let mut sink = &*self.device;
        launch!(sink, self.kernels.collect_strain, self.parameters)?;
        self.strain.insert(strain).download()
    }

    /// Raises the rebuild flag when the list does not hold for the positions.
    pub fn check_moved(&self) -> Result<()> {
        let mut sink = &*self.device;
        launch!(sink, self.kernels.moved, self.parameters)
    }

    /// Makes the list where it is due, then energies, forces and sums, with as much room as it takes. The control block
    /// afterwards is returned: its status is good.
    pub fn settle(&mut self) -> Result<Control> {
        // An evaluation that failed may have left some.
        self.forget_contacts()?;
        loop {
            let mut sink = &*self.device;
            self.record_rebuild(&mut sink)?;
            self.record_evaluation(&mut sink, What::OnlyForces, 0)?;
            launch!(sink, self.kernels.observe, self.parameters)?;
            let control = self.read_control()?;
            if control.status != status::CAPACITY {
                return control.good();
            }
            self.make_room(control)?;
        }
    }

    /// Sums over all atoms, in the control block.
    pub fn observe(&self) -> Result<Control> {
        let mut sink = &*self.device;
        launch!(sink, self.kernels.observe, self.parameters)?;
        self.read_control()
    }

    /// Makes room, and lets the device go on.
    pub fn make_room(&mut self, mut control: Control) -> Result<()> {
        self.grow(control.needed)?;
        control.status = status::GOOD;
        self.write_control(&control)
    }
}

impl Control {
    /// The control block when nothing is wrong that the positions are to blame for.
    pub fn good(self) -> Result<Control> {
        let atom = self.atom as i64 + 1;
        match self.status {
            status::OVERLAP => Err(Error::Run(format!(
                "atom {atom} and a neighbour are at the same place or no longer have a position"
            ))),
            status::POSITION => Err(Error::Run(format!("the position of atom {atom} is no longer a finite number"))),
            _ => Ok(self),
        }
    }

    /// As [`good`](Self::good), at a step that failed.
    pub fn blame(self, step: i64) -> Result<()> {
        self.good().map(drop).map_err(|error| Error::Run(format!("step {step}: {error}")))
    }
}

/// Refuses a cell of which a list that reaches so many Å would have too many images.
pub(super) fn check_images(cell: &Cell, range: f64) -> Result<()> {
    let heights = cell.heights();
    let across = [0, 1, 2].map(|k| if cell.periodic()[k] { 1.0 + 2.0 * (range / heights[k]).ceil() } else { 1.0 });
    if across.iter().all(|&images| images <= MOST_IMAGES) && across.iter().product::<f64>() <= MOST_SEARCHED {
        return Ok(());
    }
    Err(Error::Run(format!(
        "the neighbour list reaches {range} Å, over more images of the cell, which is {:.3e} Å thin, than the GPU backend can \
         tell apart; check the cell, use a smaller skin, or the CPU",
        heights.into_iter().fold(f64::INFINITY, f64::min)
    )))
}

impl PairMemory {
    /// Of a pair.
    const fn bytes(parts: usize) -> usize {
        size_of::<u64>() + size_of::<u32>() + PAIR_BYTES + size_of::<[f32; 4]>() * parts
    }

    fn new(device: &Arc<Device>, capacity: usize, parts: usize) -> Result<Self> {
        Ok(PairMemory {
            entries: Buffer::zeros(device, capacity)?,
            reverse: Buffer::zeros(device, capacity)?,
            pairs: Buffer::zeros(device, PAIR_BYTES * capacity)?,
            gradients: Buffer::zeros(device, 4 * parts * capacity)?,
        })
    }
}

impl From<&guard::ElementPair> for ElementPair {
    fn from(pair: &guard::ElementPair) -> Self {
        let repulsion = pair.repulsion.map(|zbl| [zbl.inner, zbl.outer, zbl.strength, zbl.length]);
        // No atoms are closer than 0.
        let [inner, outer, strength, length] = repulsion.unwrap_or([0.0, 0.0, 0.0, 1.0]);
        ElementPair { limit: pair.limit, inner, outer, strength, length }
    }
}

fn flat(vectors: &[Vector3<f64>]) -> Vec<f64> {
    vectors.iter().flat_map(|v| [v.x, v.y, v.z]).collect()
}

fn vectors(flat: &[f64]) -> Vec<Vector3<f64>> {
    flat.chunks_exact(3).map(|v| Vector3::new(v[0], v[1], v[2])).collect()
}
