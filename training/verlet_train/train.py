"""Training: one step is a fixed sequence of tensor operations on fixed buffers, replayed as a CUDA graph on a GPU."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from .config import Config, Training
from .dataset import Batches, Frames, batches, epoch_order, fit_offsets, load
from .painn import PaiNN, energy_and_forces

CHECKPOINT_EVERY = 60.0  # s
REPORT_EVERY = 20.0  # s


def build_network(config: Config) -> PaiNN:
    n = config.network
    return PaiNN(n.features, n.interactions, n.gaussians, n.cutoff, n.readout, n.norm_epsilon)


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
        self.buffers = [t.clone() for t in example.rows(0)]
        # summed since the last report: loss, |energy error| per atom, |force error| per component, steps
        self.sums = torch.zeros(4, device=device)
        self.graph = None
        self.evaluate = compiled(self.loss_and_gradients, self.gathered()) if fused else self.loss_and_gradients

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
        """Three steps to warm up (they count as training), then one recorded as a CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._body()
        torch.cuda.current_stream().wait_stream(stream)
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


def save_checkpoint(path: Path, step: Step, model: PaiNN, offsets, shortest, number: int) -> None:
    """The averaged weights and what belongs to them; written aside and renamed, so that a file that exists is whole."""
    temporary = path.with_suffix(".tmp")
    weights = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}
    for (name, _), mean in zip(model.named_parameters(), step.average, strict=True):
        weights[name] = mean.cpu()
    torch.save({"weights": weights, "offsets": offsets, "shortest": shortest, "step": number}, temporary)
    os.replace(temporary, path)


def load_student(config: Config, path: Path, device="cpu") -> tuple[PaiNN, dict]:
    """The network of a checkpoint, and the checkpoint itself."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    model = build_network(config)
    model.load_state_dict(checkpoint["weights"])
    return model.to(device), checkpoint


def train(
    config: Config,
    output: Path,
    device: str,
    time_limit: float,
    start: Path | None = None,
    learning_rate_from: float | None = None,
    fused: bool = False,
) -> None:
    """Trains until the step count or the time limit is reached (the schedule ends with whichever comes first).

    `start` is a checkpoint whose weights and offsets to begin from; `fused` as in `Step`.
    """
    began = time.time()
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    t = config.training
    if learning_rate_from is not None:
        t = replace(t, learning_rate=learning_rate_from)
    trajectories = [x for x in load(config.data, t.largest_force) if x.split == "train"]
    if start is None:
        model, offsets = build_network(config).to(device), fit_offsets(trajectories, config.elements)
    else:
        model, checkpoint = load_student(config, start, device)
        offsets = checkpoint["offsets"]
    frames = Frames(trajectories, offsets, config.network.cutoff, device)
    print(
        f"{len(frames)} frames, {len(frames.numbers) - 1} atoms, {len(frames.shifts) - 1} pairs; "
        f"offsets { ({k: round(v, 4) for k, v in offsets.items()}) } eV; "
        f"energies beyond them: {float(frames.energies[:-1].std()):.2f} eV spread; read in {time.time() - began:.0f} s",
        flush=True,
    )

    def epoch():
        return batches(frames, epoch_order(frames, t.box_repeats, rng), t.batch_frames, t.batch_atoms, t.batch_pairs)

    # The next epoch is laid out while this one trains; never during the first step, because the recording of a CUDA
    # graph forbids other threads to allocate.
    background = ThreadPoolExecutor(1)
    queue, following = epoch(), None
    step = Step(model, frames, t, queue, fused)
    number, reported, saved, epochs = 0, time.time(), time.time(), 0
    first = time.time()
    while True:
        for s in range(len(queue)):
            done = max(number / t.steps, (time.time() - first) / max(time_limit - (first - began), 1.0))
            if done >= 1:
                break
            decay = min(t.ema_decay, (1 + number) / (10 + number))
            step(queue.rows(s), learning_rate(t, done, number), decay)
            number += 1
            if s == 0:
                following = background.submit(epoch)
            # Reading the clock is free, reading the sums waits for the GPU; and steps are queued ahead of it, so
            # that without this the clock would run behind the work.
            if step.on_gpu and number % 50 == 0:
                torch.cuda.synchronize()
            if time.time() - reported > REPORT_EVERY:
                loss, energy, force, count = step.sums.tolist()
                step.sums.zero_()
                speed = count / (time.time() - reported)
                print(
                    f"step {number} epoch {epochs} {time.time() - first:.0f} s, {speed:.0f} steps/s: "
                    f"loss {loss / count:.4f}, training MAE {1e3 * energy / count:.3f} meV/atom, "
                    f"{1e3 * force / count:.2f} meV/Å, rate {learning_rate(t, done, number):.1e}",
                    flush=True,
                )
                reported = time.time()
                if not math.isfinite(loss):
                    raise FloatingPointError("the loss is no longer a number: lower the learning rate")
            if time.time() - saved > CHECKPOINT_EVERY:
                save_checkpoint(output, step, model, offsets, frames.shortest, number)
                saved = time.time()
        else:
            queue = following.result()
            epochs += 1
            continue
        break
    save_checkpoint(output, step, model, offsets, frames.shortest, number)
    print(f"{number} steps, {epochs} epochs in {time.time() - began:.0f} s: {output}", flush=True)
