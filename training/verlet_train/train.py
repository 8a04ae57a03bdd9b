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

from .config import Config, Training
from .dataset import Batches, Frames, batches, fit_offsets, load
from .painn import PaiNN, energy_and_forces

CHECKPOINT_EVERY = 60.0  # s
REPORT_EVERY = 20.0  # s


def build_network(config: Config) -> PaiNN:
    n = config.network
    return PaiNN(n.features, n.interactions, n.gaussians, n.cutoff, n.readout)


def smooth_l1(error, scale):
    """√(error² + scale²) − scale, over `scale`: quadratic for small errors, linear for walls and outliers."""
    return torch.sqrt((error / scale) ** 2 + 1) - 1


class Step:
    """Forward, backward, optimizer and average of one batch, on buffers that stay where they are."""

    def __init__(self, model: PaiNN, frames: Frames, training: Training, example: Batches):
        self.model, self.frames, self.training = model, frames, training
        self.parameters = list(model.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        device = frames.device
        self.rate = torch.tensor(0.0, device=device)
        self.decay = torch.tensor(0.0, device=device)
        on_gpu = torch.device(device).type == "cuda"
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.rate, capturable=on_gpu)
        self.buffers = [t.clone() for t in example.rows(0)]
        # summed since the last report: loss, |energy error| per atom, |force error| per component, steps
        self.sums = torch.zeros(4, device=device)
        self.graph = None
        self.on_gpu = on_gpu

    def _errors(self):
        """Energy errors per atom [G] (eV), force errors [A, 3] (eV/Å), and which slots and atoms are real."""
        atom, slot, pair, i, j, frame = self.buffers
        f = self.frames
        numbers = f.numbers.index_select(0, atom)
        energies, forces = energy_and_forces(
            self.model, numbers, f.positions.index_select(0, atom), i, j, f.shifts.index_select(0, pair), True
        )
        zero = torch.zeros(len(frame), device=f.device)
        real = (numbers > 0).float()
        size = zero.index_add(0, slot, real)
        total = zero.index_add(0, slot, energies)
        used = (size > 0).float()
        energy_error = (total - f.energies.index_select(0, frame)) / size.clamp(min=1) * used
        force_error = (forces - f.forces.index_select(0, atom)) * real[:, None]
        return energy_error, force_error, used.sum(), real.sum()

    def _body(self):
        t = self.training
        energy_error, force_error, frame_count, atom_count = self._errors()
        force_size = torch.sqrt((force_error**2).sum(1) / 3 + 1e-12)
        loss = (
            smooth_l1(force_size, t.force_scale).sum() / atom_count
            + t.energy_weight
            * (t.energy_scale / t.force_scale)
            * smooth_l1(energy_error, t.energy_scale).sum()
            / frame_count
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, t.gradient_clip, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            for mean, now in zip(self.average, self.parameters):
                mean.lerp_(now.detach(), 1 - self.decay)
            self.sums += torch.stack(
                [
                    loss.detach(),
                    energy_error.detach().abs().sum() / frame_count,
                    force_error.detach().abs().sum() / (3 * atom_count),
                    torch.ones_like(frame_count),
                ]
            )

    def _eager(self):
        self.optimizer.zero_grad(set_to_none=True)
        self._body()

    def capture(self):
        """Three steps to warm up (they count as training), then one recorded as a CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._eager()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._body()

    def __call__(self, rows, rate: float, decay: float):
        for buffer, row in zip(self.buffers, rows):
            buffer.copy_(row)
        self.rate.fill_(rate)
        self.decay.fill_(decay)
        if not self.on_gpu:
            self._eager()
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
) -> None:
    """Trains until the step count or the time limit is reached (the schedule ends with whichever comes first).

    `start` is a checkpoint whose weights and offsets to begin from.
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
        return batches(frames, rng.permutation(len(frames)), t.batch_frames, t.batch_atoms, t.batch_pairs)

    # The next epoch is laid out while this one trains; never during the first step, because the recording of a CUDA
    # graph forbids other threads to allocate.
    background = ThreadPoolExecutor(1)
    queue, following = epoch(), None
    step = Step(model, frames, t, queue)
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
