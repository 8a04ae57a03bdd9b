//! The thread that writes what a run leaves behind, while the run goes on.
//!
//! HDF5 takes as long for a frame of a hundred atoms as a GPU for a step of them, and a checkpoint waits for the disk: no
//! device should stand still meanwhile. So the loop hands copies to a queue, and one thread tells them to whoever writes, in
//! the order in which they were told. That order is what makes a checkpoint true: nothing that comes after a state in the
//! queue is written before its checkpoint is, and all that comes before it is in the outputs when they are committed. From
//! the first message on, only this thread calls HDF5 for the run.
//!
//! The queue has a fixed number of places: when they are taken the run waits for the writer, so memory is bounded and
//! nothing is left out. Frames that have been written are filled again. The first error ends the thread; the run hears of
//! it the next time it tells something, and stops.

use super::{Frame, Sample};
use crate::backend::State;
use crate::error::{Error, Result};
use crate::simulation::Observer;
use nalgebra::Vector3;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

/// Frames that wait may take so many bytes.
const WAITING_BYTES: usize = 64 << 20;
/// Bytes of an atom in a frame: position, velocity and force.
const BYTES_AN_ATOM: usize = 3 * size_of::<Vector3<f64>>();
/// The fewest places, however many atoms there are: a frame and the rows of the log before it, twice.
const FEWEST: usize = 4;
/// The most places: enough for what is told while a file is flushed or a checkpoint synced.
const MOST: usize = 64;

/// What waits to be written.
enum Message {
    Samples(Vec<Sample>),
    Frame(Frame),
    State(State),
}

/// Passes on what it is told to an observer on a thread of its own.
pub struct Writer<'scope> {
    queue: Queue<'scope, Message>,
    /// Frames that the thread has written.
    written: Receiver<Frame>,
}

/// A thread that writes, and the messages on their way to it.
pub(crate) struct Queue<'scope, M> {
    /// `None` when finished.
    queue: Option<SyncSender<M>>,
    /// `None` when finished.
    thread: Option<ScopedJoinHandle<'scope, Result<()>>>,
}

/// How many messages may wait in a run of so many atoms.
pub fn places(atoms: usize) -> usize {
    (WAITING_BYTES / (BYTES_AN_ATOM * atoms.max(1))).clamp(FEWEST, MOST)
}

/// Calls `run` with a [`Writer`] for `observer`. When this returns everything is told, the observer is finished and its
/// thread has ended. `places` messages may wait.
///
/// # Errors
/// That of `run`, into which the observer's first error comes through the writer; else the observer's own, and
/// [`Error::Output`] when there can be no thread or it panicked.
pub fn beside<O: Observer + Send, T>(
    observer: &mut O,
    places: usize,
    run: impl FnOnce(&mut Writer<'_>) -> Result<T>,
) -> Result<T> {
    scope(|scope| {
        let mut writer = Writer::start(scope, observer, places)?;
        let result = run(&mut writer);
        let finished = writer.finish();
        let value = result?;
        finished.map(|()| value)
    })
}

impl<'scope> Writer<'scope> {
    fn start<O: Observer + Send>(
        scope: &'scope Scope<'scope, '_>,
        observer: &'scope mut O,
        places: usize,
    ) -> Result<Self> {
        let (back, written) = channel();
        let queue = Queue::start(scope, places, move |waiting| write(observer, waiting, &back))?;
        Ok(Writer { queue, written })
    }
}

impl<'scope, M: Send + 'scope> Queue<'scope, M> {
    /// Starts the thread, which is to read all messages until there are no more senders; so many may wait.
    ///
    /// # Errors
    /// [`Error::Output`] when there can be no thread.
    pub fn start(
        scope: &'scope Scope<'scope, '_>,
        places: usize,
        write: impl FnOnce(Receiver<M>) -> Result<()> + Send + 'scope,
    ) -> Result<Self> {
        let (queue, waiting) = sync_channel(places);
        let thread = Builder::new().name("writer".into()).spawn_scoped(scope, move || write(waiting));
        let thread = thread.map_err(|error| {
            Error::Output(format!("the outputs cannot be written: there can be no thread for them ({error})"))
        })?;
        Ok(Queue { queue: Some(queue), thread: Some(thread) })
    }

    /// Waits for a place. The thread's end tells why it takes nothing more.
    ///
    /// # Errors
    /// The first one of the thread.
    pub fn send(&mut self, message: M) -> Result<()> {
        if self.queue.as_ref().is_some_and(|queue| queue.send(message).is_ok()) {
            return Ok(());
        }
        self.finish()?;
        Err(Error::Output("the outputs are finished already: nothing more can be written".into()))
    }

    /// Waits until all that was told is written.
    ///
    /// # Errors
    /// The first one of the thread.
    pub fn finish(&mut self) -> Result<()> {
        // Without a sender the thread comes to the end of its queue.
        self.queue = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(Error::Output(format!(
                "the outputs cannot be written: a mistake in the program ended their thread ({})",
                words.unwrap_or("it does not say which")
            )))
        })
    }
}

impl Observer for Writer<'_> {
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        self.queue.send(Message::Samples(samples.to_vec()))
    }

    fn frame(&mut self, frame: &Frame) -> Result<()> {
        let mut copy = self.written.try_recv().unwrap_or_default();
        copy.sample = frame.sample;
        copy.positions.clone_from(&frame.positions);
        copy.velocities.clone_from(&frame.velocities);
        copy.forces.clone_from(&frame.forces);
        self.queue.send(Message::Frame(copy))
    }

    fn checkpoint(&mut self, state: &State) -> Result<()> {
        self.queue.send(Message::State(state.clone()))
    }

    fn finish(&mut self) -> Result<()> {
        self.queue.finish()
    }
}

/// The thread: tells the observer everything, up to its first error, and finishes it.
fn write(observer: &mut impl Observer, queue: Receiver<Message>, back: &Sender<Frame>) -> Result<()> {
    let told = queue.iter().try_for_each(|message| match message {
        Message::Samples(samples) => observer.samples(&samples),
        Message::Frame(frame) => observer.frame(&frame).map(|()| {
            // Nobody wants it when the run is over.
            let _ = back.send(frame);
        }),
        Message::State(state) => observer.checkpoint(&state),
    });
    // After an error the run must not wait for a place.
    drop(queue);
    let finished = observer.finish();
    told.and(finished)
}
