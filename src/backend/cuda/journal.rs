//! What the device writes down of the steps of a launch, and how the host comes to tell it.
//!
//! A frame goes from the kernel that ends its step straight into pages of the host, so that many steps with frames fit
//! into a launch and no copy is waited for. There are two halves of them: of one the host tells the frames of the launch
//! before, while the device writes to the other.

use super::device::Device;
use super::layout::{Control, Parameters};
use super::memory::{Buffer, Staging};
use crate::backend::Event;
use crate::backend::due::Due;
use crate::error::Result;
use crate::output::{Frame, Sample};
use nalgebra::Vector3;
use std::sync::Arc;

/// Bytes of the frames of a launch, where more than one fits.
const BYTES: usize = 4 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Journal {
    /// Steps with frames.
    due: Due,
    memory: Option<Memory>,
    /// Where the frames of the last launch begin.
    begin: usize,
    /// What the last launch that was waited for has left, and where its frames begin.
    samples: Vec<Sample>,
    frames: Vec<Sample>,
    first: usize,
    /// What is told; its memory is used again.
    frame: Frame,
}

/// Where frames are.
struct Memory {
    /// [2][places][3][N][3]
    pages: Staging<f64>,
    places: usize,
    atoms: usize,
    intervals: Buffer<i64>,
}

impl Journal {
    /// Frames of so many atoms at the multiples of `intervals`, of which a launch of `most` steps has no more.
    pub fn new(device: &Arc<Device>, intervals: &[u64], atoms: usize, most: usize) -> Result<Self> {
        let due = Due::new(intervals.iter().copied());
        if intervals.is_empty() {
            return Ok(Journal::default());
        }
        let places = (BYTES / (9 * atoms * size_of::<f64>()).max(1)).clamp(1, most);
        let whole: Vec<i64> =
            due.intervals().iter().map(|&interval| i64::try_from(interval).unwrap_or(i64::MAX)).collect();
        let memory = Memory {
            pages: Staging::new(device, 2 * places * 9 * atoms)?,
            places,
            atoms,
            intervals: Buffer::from(device, &whole)?,
        };
        Ok(Journal { due, memory: Some(memory), ..Journal::default() })
    }

    /// Tells the kernels where frames go.
    pub fn point(&self, parameters: &mut Parameters) {
        let memory = self.memory.as_ref();
        parameters.frames = memory.map_or(0, |memory| memory.pages.pointer());
        parameters.frame_intervals = memory.map_or(0, |memory| memory.intervals.pointer());
        parameters.frame_intervals_count = memory.map_or(0, |memory| memory.intervals.len() as i32);
        parameters.frames_capacity = memory.map_or(0, |memory| 2 * memory.places as i32);
    }

    /// Prepares the launch that follows `control`, with the half that the launch before does not have, and says where it
    /// ends: before `goal` where there is no place for all frames.
    pub fn open(&mut self, control: &mut Control, goal: u64) -> u64 {
        control.samples = 0;
        let Some(memory) = &self.memory else { return goal };
        self.begin = if self.begin == 0 { memory.places } else { 0 };
        control.frames = self.begin as i32;
        let step = control.step as u64;
        // Beyond the last step of any run there is none.
        control.next_frame = self.due.after(step).and_then(|step| i64::try_from(step).ok()).unwrap_or(0);
        self.due.limit(step, goal, memory.places)
    }

    /// Forgets what has been told, for what the last launch has left.
    pub fn turn(&mut self) {
        self.samples.clear();
        self.frames.clear();
        self.first = self.begin;
    }

    /// Adds a row of the energy log.
    pub fn log(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Adds the next frame.
    pub fn frame(&mut self, sample: Sample) {
        self.frames.push(sample);
    }

    /// Rows of the energy log, in order.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Tells the frames. The launch that left them was waited for, and only the one after it may be under way.
    pub fn tell_frames(&mut self, tell: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
        let Some(memory) = &self.memory else { return Ok(()) };
        for (n, sample) in self.frames.iter().enumerate() {
            let length = 3 * memory.atoms;
            let frame = &mut self.frame;
            frame.sample = *sample;
            // SAFETY: as the caller promises; the launch after it has the other half.
            let values = unsafe { memory.pages.part((self.first + n) * 3 * length, 3 * length) };
            let parts = [&mut frame.positions, &mut frame.velocities, &mut frame.forces];
            for (vectors, values) in parts.into_iter().zip(values.chunks_exact(length)) {
                vectors.clear();
                vectors.extend(values.chunks_exact(3).map(|v| Vector3::new(v[0], v[1], v[2])));
            }
            tell(Event::Frame(frame))?;
        }
        Ok(())
    }
}
