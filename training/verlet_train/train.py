"""Training: one step is a fixed sequence of tensor operations on fixed buffers, replayed as a CUDA graph on a GPU."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from .checkpoint import (
    Progress,
    build_network,
    digest,
    load_network,
    load_student,
    resume,
    resumed_settings,
    save_checkpoint,
)
from .config import Config, Training
from .dataset import Batches, Frames, batches, epoch_order, fit_offsets, load
from .painn import PaiNN, energy_and_forces
from .problem import InputError

CHECKPOINT_EVERY = 60.0  # s
REPORT_EVERY = 20.0  # s


def smooth_l1(error, scale):
    """√(error² + scale²) − scale, over `scale`: quadratic for small errors, linear for walls and outliers."""
    return torch.sqrt((error / scale) ** 2 + 1) - 1


def compiled(function, example, backend: str = "inductor"):
    """`function` as one compiled graph for tensors of the shapes in `example`; parameters it holds stay live.

    The compiler does not take second derivatives, so the derivatives are written out first: what runs under `make_fx`
    leaves a list of plain tensor operations, gradients of forces included, and that list is what gets compiled.
    """
    graph = torch.compile(make_fx(function)(*example), fullgraph=True, dynamic=False, backend=backend)

    def run(*tensors):
        with torch.no_grad():
            return graph(*tensors)

    return run


class Step:
    """Forward, backward, optimizer and average of one batch, on buffers that stay where they are.

    `fused` compiles loss and gradients into few kernels.
    """

    def __init__(self, model: PaiNN, frames: Frames, training: Training, example: Batches, fused: bool = False):
        self.model, self.frames, self.training = model, frames, training
        self.parameters = list(model.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        device = frames.device
        self.rate = torch.tensor(0.0, device=device)
        self.decay = torch.tensor(0.0, device=device)
        self.on_gpu = torch.device(device).type == "cuda"
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.rate, capturable=self.on_gpu)
        # The optimizer makes these before its first step; here they are made already, where a checkpoint can fill them.
        for parameter in self.parameters:
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=device if self.on_gpu else "cpu"),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        self.buffers = [t.clone() for t in example.rows(0)]
        # summed since the last report: loss, |energy error| per atom, |force error| per component, steps
        self.sums = torch.zeros(4, device=device)
        self.graph = None
        self.evaluate = compiled(self.loss_and_gradients, self.gathered()) if fused else self.loss_and_gradients

    def moments(self, parameter) -> list[torch.Tensor]:
        """What the optimizer knows of one parameter: how many steps it made, first and second moment."""
        return list(self.optimizer.state[parameter].values())

    def gathered(self):
        """The batch in the buffers as plain tensors, all of sizes that do not depend on the data set.

        numbers [A], positions [A, 3], forces [A, 3], shifts [P, 3], energies [G], slot [A], i [P], j [P]
        """
        atom, slot, pair, i, j, frame = self.buffers
        f = self.frames
        of_atoms = [t.index_select(0, atom) for t in (f.numbers, f.positions, f.forces)]
        return *of_atoms, f.shifts.index_select(0, pair), f.energies.index_select(0, frame), slot, i, j

    def _errors(self, numbers, positions, forces, shifts, energies, slot, i, j):
        """Energy errors per atom [G] (eV), force errors [A, 3] (eV/Å), and how many slots and atoms are real."""
        atomic, predicted = energy_and_forces(self.model, numbers, positions, i, j, shifts, create_graph=True)
        zero = torch.zeros_like(energies)
        real = (numbers > 0).float()
        size = zero.index_add(0, slot, real)
        total = zero.index_add(0, slot, atomic)
        used = (size > 0).float()
        energy_error = (total - energies) / size.clamp(min=1) * used
        force_error = (predicted - forces) * real[:, None]
        return energy_error, force_error, used.sum(), real.sum()

    def loss_and_gradients(self, *batch):
        """For one batch (see `gathered`): what `sums` collects [4], then the gradient of every parameter."""
        t = self.training
        energy_error, force_error, frame_count, atom_count = self._errors(*batch)
        force_size = torch.sqrt((force_error**2).sum(1) / 3 + 1e-12)
        loss = (
            smooth_l1(force_size, t.force_scale).sum() / atom_count
            + t.energy_weight
            * (t.energy_scale / t.force_scale)
            * smooth_l1(energy_error, t.energy_scale).sum()
            / frame_count
        )
        gradients = torch.autograd.grad(loss, self.parameters)
        figures = [
            loss.detach(),
            energy_error.detach().abs().sum() / frame_count,
            force_error.detach().abs().sum() / (3 * atom_count),
            torch.ones_like(frame_count),
        ]
        return torch.stack(figures), *gradients

    def _body(self):
        figures, *gradients = self.evaluate(*self.gathered())
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.parameters, self.training.gradient_clip, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            for mean, now in zip(self.average, self.parameters):
                mean.lerp_(now.detach(), 1 - self.decay)
            self.sums += figures

    def capture(self):
        """Records a step as a CUDA graph; the three steps that warm up for it are taken back, in place."""
        changing = [*self.parameters, *self.average, self.sums]
        changing += [t for parameter in self.parameters for t in self.moments(parameter)]
        before = [t.detach().clone() for t in changing]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._body()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.no_grad():
            for tensor, kept in zip(changing, before, strict=True):
                tensor.copy_(kept)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._body()

    def __call__(self, rows, rate: float, decay: float):
        for buffer, row in zip(self.buffers, rows):
            buffer.copy_(row)
        self.rate.fill_(rate)
        self.decay.fill_(decay)
        if not self.on_gpu:
            self._body()
            return
        if self.graph is None:
            self.capture()
        self.graph.replay()


def learning_rate(t: Training, done: float, step: int) -> float:
    """Linear warm-up, then a cosine from the first rate to the last; `done` runs from 0 to 1."""
    warm = min(1.0, (step + 1) / t.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return warm * (t.final_learning_rate + (t.learning_rate - t.final_learning_rate) * cosine)


@dataclass(frozen=True)
class Session:
    """What one command asks for; None: what the configuration or the checkpoint says. Seconds count from its start."""

    device: str = "cpu"
    start: Path | None = None  # a checkpoint or model file to begin a new schedule from: weights (averaged), offsets
    resume: Path | None = None  # a checkpoint to go on from, exactly
    seed: int | None = None  # of weights and shuffling
    steps: int | None = None
    learning_rate: float | None = None
    time_limit: float | None = None  # s, of all sessions together: the schedule ends with it
    pause_after: float = float("inf")  # s, of this session: stops and saves, and the schedule waits
    fused: bool = False  # as in `Step`


def _begin(config: Config, session: Session, trajectories):
    """Network, offsets, the training's settings, and the checkpoint to resume from (None: from none)."""
    t, checkpoint = config.training, None
    if session.resume is not None:
        model, checkpoint = load_student(config, session.resume, session.device)
        t, offsets = resumed_settings(session.resume, checkpoint, t), checkpoint["offsets"]
    elif session.start is not None:
        model, offsets = load_network(config, session.start, session.device)
    else:
        torch.manual_seed(config.seed if session.seed is None else session.seed)
        model = build_network(config).to(session.device)
        offsets = fit_offsets(trajectories, config.elements, config.teacher.free_atoms())
    asked = {"steps": session.steps, "learning_rate": session.learning_rate}
    t = replace(t, **{key: value for key, value in asked.items() if value is not None})
    return model, offsets, t, checkpoint


def train(config: Config, output: Path, session: Session) -> None:
    """Trains until the step count or the time limit is reached (the schedule ends with whichever is nearer), or pauses.

    Writes a checkpoint to `output` every CHECKPOINT_EVERY seconds and at the end.
    """
    began = time.time()
    if session.start and session.resume:
        raise InputError("--start begins a new schedule and --resume goes on with an old one: give one of them")
    trajectories = [x for x in load(config.data, config.training.largest_force) if x.split == "train"]
    model, offsets, t, checkpoint = _begin(config, session, trajectories)
    frames = Frames(trajectories, offsets, config.network.cutoff, session.device)
    labels = digest(frames)
    print(
        f"{len(frames)} frames, {len(frames.numbers) - 1} atoms, {len(frames.shifts) - 1} pairs; "
        f"offsets { ({k: round(v, 4) for k, v in offsets.items()}) } eV; "
        f"energies beyond them: {float(frames.energies[:-1].std()):.2f} eV spread; read in {time.time() - began:.0f} s",
        flush=True,
    )
    rng = np.random.default_rng(config.seed if session.seed is None else session.seed)

    def epoch():
        """The generator's state from which an epoch is drawn, and the epoch."""
        before = json.dumps(rng.bit_generator.state)
        order = epoch_order(frames, t.box_repeats, rng)
        return before, batches(frames, order, t.batch_frames, t.batch_atoms, t.batch_pairs)

    progress = Progress()
    if checkpoint is not None:
        progress = Progress(**checkpoint["state"]["progress"])
        rng.bit_generator.state = json.loads(progress.shuffle)
    progress.shuffle, queue = epoch()
    step = Step(model, frames, t, queue, session.fused)
    if checkpoint is not None:
        resume(session.resume, checkpoint, step, labels)
        print(f"on from step {progress.step} of {session.resume}", flush=True)
    if session.time_limit is not None:
        progress.time_limit = session.time_limit
    trained_before, first = progress.trained, time.time()
    progress.reading += first - began
    reported = saved = first

    # The next epoch is laid out while this one trains; never during the first step, because the recording of a CUDA
    # graph forbids other threads to allocate.
    background, following = ThreadPoolExecutor(1), None

    def save():
        save_checkpoint(output, step, frames, offsets, t, progress, labels)

    while True:
        now = time.time()
        progress.trained = trained_before + now - first
        done = max(progress.step / t.steps, progress.trained / max(progress.time_limit - progress.reading, 1.0))
        paused = now - began > session.pause_after
        if done >= 1 or paused:
            break
        if progress.row == len(queue):
            progress.shuffle, queue = (following or background.submit(epoch)).result()
            progress.epoch, progress.row, following = progress.epoch + 1, 0, None
        rate = learning_rate(t, done, progress.step)
        step(queue.rows(progress.row), rate, min(t.ema_decay, (1 + progress.step) / (10 + progress.step)))
        progress.step += 1
        progress.row += 1
        if following is None:
            following = background.submit(epoch)
        # Reading the clock is free, reading the sums waits for the GPU; and steps are queued ahead of it, so
        # that without this the clock would run behind the work.
        if step.on_gpu and progress.step % 50 == 0:
            torch.cuda.synchronize()
        if now - reported > REPORT_EVERY:
            loss, energy, force, count = step.sums.tolist()
            step.sums.zero_()
            print(
                f"step {progress.step} epoch {progress.epoch} {progress.trained:.0f} s, "
                f"{count / (now - reported):.0f} steps/s: "
                f"loss {loss / count:.4f}, training MAE {1e3 * energy / count:.3f} meV/atom, "
                f"{1e3 * force / count:.2f} meV/Å, rate {rate:.1e}",
                flush=True,
            )
            reported = now
            if not math.isfinite(loss):
                raise FloatingPointError("the loss is no longer a number: lower the learning rate")
        if now - saved > CHECKPOINT_EVERY:
            save()
            saved = now
    background.shutdown(cancel_futures=True)
    save()
    if done >= 1:
        print(f"{progress.step} steps, {progress.epoch} epochs in {progress.trained:.0f} s: {output}", flush=True)
    else:
        print(f"paused at step {progress.step} of {t.steps}: go on with --resume {output}", flush=True)
