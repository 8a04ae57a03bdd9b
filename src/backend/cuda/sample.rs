//! From what the device has measured to what the run is told.

use super::layout::{Control, DeviceSample};
use crate::output::Sample;
use crate::system::temperature;

/// What numbers of the device mean for one system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// eV.
    pub energy_unit: f64,
    /// Of all atoms, eV.
    pub offset: f64,
    /// fs.
    pub timestep: f64,
    pub degrees_of_freedom: usize,
}

impl Scale {
    /// The energy of the network with offsets, eV.
    pub fn potential(&self, network: f64) -> f64 {
        network * self.energy_unit + self.offset
    }

    /// A row of the energy log.
    pub fn sample(&self, sample: &DeviceSample) -> Sample {
        let potential = self.potential(sample.network);
        Sample {
            step: sample.step as u64,
            time: sample.step as f64 * self.timestep,
            kinetic: sample.kinetic,
            potential,
            conserved: sample.full_step + potential - sample.heat,
            temperature: temperature(sample.kinetic, self.degrees_of_freedom),
            list_rebuilds: sample.rebuilds as u64,
        }
    }
}

impl From<&Control> for DeviceSample {
    /// The sums that were last made.
    fn from(control: &Control) -> Self {
        DeviceSample {
            step: control.step,
            rebuilds: control.rebuilds,
            kinetic: control.kinetic,
            network: control.network,
            full_step: control.full_step,
            heat: control.heat,
            ..DeviceSample::default()
        }
    }
}
