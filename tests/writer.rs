//! The thread that writes beside a run: the same files as without it, in bounded memory, and errors that stop the run.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use verlet::backend::State;
use verlet::config::{Precision, RunConfig};
use verlet::nalgebra::Vector3;
use verlet::output::checkpoint::{Checkpoint, Generations, Provenance};
use verlet::output::h5md::{H5mdOptions, H5mdOutput, H5mdReader};
use verlet::output::record::Record;
use verlet::output::trajectory::{TrajectoryOptions, TrajectoryWriter};
use verlet::output::writer::beside;
use verlet::output::{Frame, Output, Position, Sample};
use verlet::simulation::Observer;
use verlet::system::{Cell, Selection, System};
use verlet::{Error, Result, setup};

const PLACES: usize = 4;

fn sample(step: u64) -> Sample {
    Sample { step, time: 0.5 * step as f64, ..Sample::default() }
}

fn frame(step: u64) -> Frame {
    let vectors = |shift: f64| (0..7).map(|atom| Vector3::new(atom as f64, step as f64, shift)).collect();
    Frame { sample: sample(step), positions: vectors(0.0), velocities: vectors(1.0), forces: vectors(2.0) }
}

fn state(step: u64) -> State {
    let Frame { positions, velocities, .. } = frame(step);
    State { step, list_positions: positions.clone(), positions, velocities, heat: 0.0, kinetic: 0.0, list_rebuilds: 0 }
}

/// What is told, in the order in which it is told, as text.
#[derive(Default)]
struct Told(Vec<String>);

impl Observer for Told {
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        self.0.push(format!("{samples:?}"));
        Ok(())
    }

    fn frame(&mut self, frame: &Frame) -> Result<()> {
        self.0.push(format!("{frame:?}"));
        Ok(())
    }

    fn checkpoint(&mut self, state: &State) -> Result<()> {
        self.0.push(format!("{state:?}"));
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.0.push("finished".into());
        Ok(())
    }
}

/// What a run tells at a step.
fn tell(observer: &mut dyn Observer, step: u64) -> Result<()> {
    observer.samples(&[sample(step), sample(step)])?;
    observer.frame(&frame(step))?;
    if step.is_multiple_of(3) { observer.checkpoint(&state(step)) } else { Ok(()) }
}

/// Waits for the gate before everything it is told.
struct Gated {
    told: Told,
    gate: Receiver<()>,
}

impl Gated {
    fn wait(&self) {
        // The gate is open for good when nobody holds its other side.
        let _ = self.gate.recv();
    }
}

impl Observer for Gated {
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        self.wait();
        self.told.samples(samples)
    }

    fn frame(&mut self, frame: &Frame) -> Result<()> {
        self.wait();
        self.told.frame(frame)
    }

    fn checkpoint(&mut self, state: &State) -> Result<()> {
        self.wait();
        self.told.checkpoint(state)
    }
}

/// A writer that stands still costs the run nothing until all places are taken; then the run waits, and nothing is lost.
#[test]
fn a_slow_output_costs_nothing_before_the_places_are_taken_and_loses_nothing() {
    let mut expected = Told::default();
    let (closed, gate) = channel();
    let mut slow = Gated { told: Told::default(), gate };
    let told = AtomicUsize::new(0);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let begun = Instant::now();
            // One is in the thread's hands, the others wait.
            while told.load(Ordering::SeqCst) < PLACES + 1 && begun.elapsed() < Duration::from_secs(60) {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(100));
            let so_many = told.load(Ordering::SeqCst);
            drop(closed);
            so_many
        });
        beside(&mut slow, PLACES, |writer| {
            for step in 0..60 {
                writer.frame(&frame(step))?;
                told.fetch_add(1, Ordering::SeqCst);
            }
            (60..90).try_for_each(|step| tell(writer, step))
        })
        .unwrap();
        assert_eq!(watcher.join().unwrap(), PLACES + 1);
    });
    (0..60).try_for_each(|step| expected.frame(&frame(step))).unwrap();
    (60..90).try_for_each(|step| tell(&mut expected, step)).unwrap();
    assert_eq!(slow.told.0, expected.0);
}

/// An output that takes so many frames and then fails, by an error or by a panic.
struct Failing {
    frames: u64,
    most: u64,
    panics: bool,
}

impl Observer for Failing {
    fn frame(&mut self, _: &Frame) -> Result<()> {
        if self.frames == self.most {
            assert!(!self.panics, "a mistake on purpose");
            return Err(Error::Output("the disk is full".into()));
        }
        self.frames += 1;
        Ok(())
    }
}

impl Output for Failing {
    fn name(&self) -> &str {
        "failing"
    }

    fn commit(&mut self) -> Result<Position> {
        Ok(Position { frames: self.frames, ..Position::default() })
    }
}

fn system() -> System {
    System::new(vec![8; 7], frame(0).positions, Cell::open()).unwrap()
}

fn provenance() -> Provenance {
    Provenance {
        version: "0".into(),
        input: "/input.toml".into(),
        text: String::new(),
        overrides: Vec::new(),
        model_hash: String::new(),
        skin: 0.5,
        precision: Precision::F32,
        direct_filters: false,
    }
}

#[test]
fn an_output_that_fails_stops_the_run_and_leaves_the_checkpoint_before_it() {
    for panics in [false, true] {
        for most in [1, 5, 6, 7, 20] {
            let folder = tempfile::tempdir().unwrap();
            let checkpoints = Generations::of(folder.path());
            let outputs: Vec<Box<dyn Output>> = vec![Box::new(Failing { frames: 0, most, panics })];
            let mut record = Record::new(outputs, checkpoints.clone(), provenance(), 1000, &system());
            let mut steps = 0;
            let result = beside(&mut record, PLACES, |writer| {
                (0..1000).try_for_each(|step| {
                    steps = step;
                    tell(writer, step)
                })
            });
            let message = result.unwrap_err().to_string();
            let expected = match panics {
                false => "the disk is full",
                true => {
                    "the outputs cannot be written: a mistake in the program ended their thread (a mistake on purpose)"
                }
            };
            assert_eq!(message, expected);
            assert!((most..=most + PLACES as u64).contains(&steps), "{most} frames, stopped at step {steps}");
            // Frames 0, 1, … and a checkpoint every three steps: the frame of step `most` is the one that fails.
            let safe = (most - 1) / 3 * 3;
            let checkpoint: Checkpoint = Generations::read(&checkpoints.current()).unwrap();
            assert_eq!((checkpoint.state.clone(), checkpoint.outputs["failing"].frames), (state(safe), safe + 1));
            assert!(record.last_good().starts_with(&format!("the last good state is that of step {safe}, in ")));
        }
    }
}

/// The run's error comes first, and what was told before it is written.
#[test]
fn a_run_that_fails_is_written_up_to_its_end() {
    let (mut told, mut expected) = (Told::default(), Told::default());
    let result = beside(&mut told, PLACES, |writer| {
        (0..50).try_for_each(|step| tell(writer, step))?;
        Err::<(), _>(Error::Run("the simulation exploded".into()))
    });
    assert_eq!(result.unwrap_err().to_string(), "the simulation exploded");
    (0..50).try_for_each(|step| tell(&mut expected, step)).unwrap();
    expected.finish().unwrap();
    assert_eq!(told.0, expected.0);
}

#[test]
fn what_is_told_after_the_end_is_refused() {
    let message = beside(&mut Told::default(), PLACES, |writer| {
        writer.finish()?;
        writer.frame(&frame(1))
    });
    assert_eq!(message.unwrap_err().to_string(), "the outputs are finished already: nothing more can be written");
}

/// An analysis of one's own: hears everything on the thread that runs.
#[derive(Default)]
struct Own(Mutex<Vec<(ThreadId, u64)>>);

impl Observer for Own {
    fn frame(&mut self, frame: &Frame) -> Result<()> {
        self.0.lock().unwrap().push((thread::current().id(), frame.sample.step));
        Ok(())
    }
}

/// Runs ethanol into all kinds of outputs, with the thread or without.
fn run(folder: &Path, threaded: bool) -> Checkpoint {
    let settings = ["dynamics.steps=60", "output.trajectory.interval=1", "output.checkpoint.interval=7"];
    let config = RunConfig::load("inputs/ethanol.toml", &settings.map(str::to_owned)).unwrap();
    let mut prepared = setup::prepare(&config).unwrap();
    let all = H5mdOptions { velocities: true, forces: true, double: true, wrap: false };
    let h5md = H5mdOutput::create(&folder.join("trajectory.h5md"), &prepared.info, &all).unwrap();
    let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(h5md.every(2))];
    for (name, full) in [("a.xtc", false), ("a.dcd", false), ("a.pdb", false), ("a.xyz", true)] {
        let options = TrajectoryOptions {
            atoms: Selection::default(),
            wrap: false,
            velocities: full,
            forces: full,
            interval: 1,
            timestep: 0.5,
        };
        outputs.push(Box::new(TrajectoryWriter::create(&folder.join(name), &prepared.info.system, options).unwrap()));
    }
    let system = prepared.info.system.clone();
    let mut record = Record::new(outputs, Generations::of(folder), provenance(), 60, &system);
    let mut own = Own::default();
    if threaded {
        beside(&mut record, PLACES, |writer| prepared.run(&mut [writer, &mut own])).unwrap();
    } else {
        prepared.run(&mut [&mut record, &mut own]).unwrap();
    }
    let here = thread::current().id();
    assert_eq!(own.0.into_inner().unwrap(), (0..=60).map(|step| (here, step)).collect::<Vec<_>>());
    Generations::read(&Generations::of(folder).current()).unwrap()
}

#[test]
fn the_thread_writes_what_would_be_written_without_it() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let checkpoints: Vec<Checkpoint> =
        folders.iter().zip([false, true]).map(|(folder, threaded)| run(folder.path(), threaded)).collect();
    assert!(checkpoints[0] == checkpoints[1]);
    assert_eq!((checkpoints[1].state.step, checkpoints[1].outputs["a.xtc"].frames), (60, 61));
    for name in ["a.xtc", "a.dcd", "a.pdb", "a.xyz", Generations::CURRENT, Generations::PREVIOUS] {
        let [direct, threaded] =
            [&folders[0], &folders[1]].map(|folder| std::fs::read(folder.path().join(name)).unwrap());
        assert!(direct == threaded, "{name}");
    }
    // HDF5 lays out its file by the moments of its flushes: here the content counts.
    let [direct, threaded] =
        [&folders[0], &folders[1]].map(|folder| H5mdReader::open(&folder.path().join("trajectory.h5md")).unwrap());
    assert_eq!((direct.frames().unwrap(), threaded.frames().unwrap()), (31, 31));
    for n in 0..31 {
        assert_eq!(format!("{:?}", direct.frame(n).unwrap()), format!("{:?}", threaded.frame(n).unwrap()));
    }
    assert_eq!(direct.samples().unwrap().len(), 61);
    assert_eq!(direct.samples().unwrap(), threaded.samples().unwrap());
}
