"""Liquid water: its box, the oxygen–oxygen g(r) with its error, and what others found."""

from __future__ import annotations

from pathlib import Path

import numpy as np

DENSITY = 0.997  # g/cm³, of water at 298 K and normal pressure
MASS = 18.015  # u, of a molecule
GRAM = 0.60221408  # u/Å³ in one g/cm³
WIDTH = 0.05  # Å, of a bin
BLOCKS = 8
#: Where the first peak, the minimum after it and the second peak are looked for, Å.
WINDOWS = ((2.3, 3.3), (2.9, 4.2), (3.6, 6.0))

#: Extrema of g(r) in experiments, with their errors where they are told: (Å, error), (height, error).
XRAY = {"first peak": ((2.80, 0.01), (2.57, 0.05))}
NEUTRONS = {
    "first peak": ((2.79, None), (2.495, 0.059)),
    "minimum": ((3.39, None), (0.801, 0.013)),
    "second peak": ((4.53, None), (1.125, 0.003)),
}
EXPERIMENTS = {"X-rays": XRAY, "neutrons and X-rays": NEUTRONS}
SOURCES = """
**Beside it.** Experiments: X-ray diffraction (Skinner, Huang, Schlesinger, Pettersson, Nilsson and Benmore, J. Chem. Phys.
138, 074506, 2013), of which the first peak is drawn, 2.80(1) Å and 2.57(5), as its abstract has it; neutrons and X-rays
together (Soper, ISRN Phys. Chem. 2013, 279463), of whose table, in the copy that the program simpack keeps, the extrema are
drawn. GFN2-xTB: we found no g(r) of the periodic liquid in print. Wu et al., Benchmarking semi-empirical quantum chemical
methods on liquid water (arXiv:2503.11867, 2025), ran molecular dynamics of the liquid with several such methods, "GFN-xTB"
among them; by its abstract all of them with their original parameters describe the liquid poorly, most with hydrogen bonds
that are too weak and a liquid that is far too fluid. Nuclei are classical here, quantum in the experiments. What the student
owes to its teacher and what to itself is told by the teacher's own forces at frames of these runs, where they stand below.
"""


def edge(molecules: int) -> float:
    """Edge in Å of a cube of so many molecules at the experiment's density."""
    return (molecules * MASS / (GRAM * DENSITY)) ** (1 / 3)


def box(source: Path, target: Path) -> int:
    """Writes the molecules of a cubic box (O, H, H each) at the experiment's density; returns how many there are."""
    lines = source.read_text().splitlines()
    symbols = [line.split()[0] for line in lines[2:]]
    if symbols != ["O", "H", "H"] * (len(symbols) // 3):
        raise ValueError(f"{source} must list whole molecules, each as O, H, H")
    old = float(lines[1].split('"')[1].split()[0])
    atoms = np.array([[float(word) for word in line.split()[1:4]] for line in lines[2:]]).reshape(-1, 3, 3)
    arms = atoms - atoms[:, :1]
    arms -= old * np.rint(arms / old)
    new = edge(len(atoms))
    placed = (atoms[:, :1] * new / old + arms).reshape(-1, 3)
    header = f'Lattice="{new} 0 0 0 {new} 0 0 0 {new}" Properties=species:S:1:pos:R:3 pbc="T T T"'
    rows = [f"{symbol} {x!r} {y!r} {z!r}" for symbol, (x, y, z) in zip(symbols, placed.tolist(), strict=True)]
    target.write_text("\n".join([str(len(rows)), header, *rows]) + "\n")
    return len(atoms)


def radial(frames: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the bins (Å) up to half the edge, and g(r) of one kind of atoms in a cube; frames [frame][atom][3]."""
    count = frames.shape[1]
    borders = np.arange(int(length / 2 / WIDTH) + 1) * WIDTH
    bins = len(borders) - 1
    found = np.zeros(bins)
    first, second = np.triu_indices(count, k=1)
    for frame in frames.astype(float):
        apart = frame[first] - frame[second]
        apart -= length * np.rint(apart / length)
        nth = (np.sqrt(np.einsum("pc,pc->p", apart, apart)) / WIDTH).astype(int)
        found += np.bincount(nth[nth < bins], minlength=bins)
    shells = 4 / 3 * np.pi * np.diff(borders**3)
    ideal = len(frames) * len(first) * shells / length**3
    return (borders[1:] + borders[:-1]) / 2, found / ideal


def turning_point(r: np.ndarray, g: np.ndarray, window: tuple[float, float], sign: int) -> tuple[float, float]:
    """Position and height of the largest (sign 1) or smallest (−1) g in the window, from a parabola through five bins."""
    inside = np.flatnonzero((r >= window[0]) & (r <= window[1]))
    middle = inside[np.argmax(sign * g[inside])]
    near = slice(max(0, middle - 2), middle + 3)
    a, b, c = np.polyfit(r[near] - r[middle], g[near], 2)
    # At the window's edge, or where noise bends the other way, the bin itself.
    if sign * a >= 0 or abs(b / (2 * a)) > 2 * WIDTH:
        return float(r[middle]), float(g[middle])
    return float(r[middle] - b / (2 * a)), float(c - b * b / (4 * a))


def shape(r: np.ndarray, g: np.ndarray, length: float, count: int) -> dict[str, float]:
    """Positions (Å) and heights of the first peak, the minimum and the second peak; neighbours up to the minimum."""
    found = {}
    for name, window, sign in zip(("first peak", "minimum", "second peak"), WINDOWS, (1, -1, 1), strict=True):
        found[f"{name} at"], found[f"{name} height"] = turning_point(r, g, window, sign)
    inside = r < found["minimum at"]
    shells = 4 * np.pi * r[inside] ** 2 * WIDTH
    found["neighbours"] = float((g[inside] * shells).sum() * (count - 1) / length**3)
    return found


def structure(frames: np.ndarray, length: float) -> dict[str, object]:
    """g(r) of oxygen frames with its standard error from blocks, and its shape with theirs."""
    parts = [radial(part, length) for part in np.array_split(frames, min(BLOCKS, len(frames)))]
    r, curves = parts[0][0], np.array([g for _, g in parts])
    count, root = frames.shape[1], np.sqrt(len(parts))
    shapes = [shape(r, g, length, count) for g in curves]
    whole = shape(r, curves.mean(axis=0), length, count)
    errors = {name: float(np.std([one[name] for one in shapes], ddof=1) / root) for name in whole}
    return {
        "r": r.round(4).tolist(),
        "g": curves.mean(axis=0).round(5).tolist(),
        "error": (curves.std(axis=0, ddof=1) / root).round(5).tolist(),
        "shape": {name: [value, errors[name]] for name, value in whole.items()},
    }


def waves(frames: np.ndarray, length: float) -> float:
    """The largest structure factor S(k) = <|Σ exp(i k·x)|²> / N of the three longest waves that fit into a cube.

    A gas without forces has 1, a liquid far less, for it hardly lets itself be compressed; what tears, or leaves a hole,
    has as many times more as there are molecules in the hole's place.
    """
    amplitudes = np.exp(2j * np.pi * frames.astype(float) / length).sum(axis=1)
    return float((np.abs(amplitudes) ** 2).mean(axis=0).max() / frames.shape[1])


def torn(frames: np.ndarray, length: float) -> np.ndarray:
    """The same atoms squeezed into four fifths of the box: wrong on purpose."""
    wrapped = frames - length * np.floor(frames / length)
    return wrapped * np.array([0.8, 1, 1])
