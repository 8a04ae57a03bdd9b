"""verlet-train: every step from labels to the shipped file, driven by one TOML file; and networks of other programs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .config import read_config
from .problem import InputError


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="verlet-train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    molecules = commands.add_parser(
        "molecules", help="write the structures file, of enumerated molecules or given SMILES (needs RDKit)"
    )
    molecules.add_argument("config")
    molecules.add_argument("--processes", type=int, default=os.cpu_count())

    generate = commands.add_parser("generate", help="label frames with the teacher; skips what exists")
    generate.add_argument("config")
    generate.add_argument("--processes", type=int, default=os.cpu_count())
    generate.add_argument("--time-limit", type=float, help="stop after so many seconds")
    generate.add_argument("--limit", type=int, help="only the first so many jobs, for a trial")
    generate.add_argument(
        "--student", type=Path, help="checkpoint or model file whose own dynamics choose the [[sampled]] frames"
    )
    generate.add_argument("--round", type=int, default=1, help="which [[sampled]] entries")
    generate.add_argument("--device", default="cpu")

    pack = commands.add_parser("pack", help="gather label files in a few compact shards")
    pack.add_argument("config")
    pack.add_argument("--out", type=Path, required=True, help="folder for NAME-000.npz, NAME-001.npz, …")
    pack.add_argument(
        "--name", default="shard", help="of the shards: another keeps those of other labels in the folder"
    )
    pack.add_argument("--megabytes", type=float, default=60.0, help="largest size of a shard")

    train = commands.add_parser("train", help="train the network on the labelled frames")
    train.add_argument("config")
    train.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    train.add_argument("--start", type=Path, help="checkpoint or model file whose weights a new schedule begins from")
    train.add_argument("--resume", type=Path, help="checkpoint to go on from, as if training had never stopped")
    train.add_argument("--seed", type=int, help="of weights and shuffling, instead of the configuration's")
    train.add_argument("--steps", type=int, help="of the schedule, instead of the configuration's")
    train.add_argument("--learning-rate", type=float, help="instead of the configuration's")
    train.add_argument("--device", default="cpu")
    train.add_argument("--compile", action="store_true", help="fuse the kernels of a step: slow to start, then fast")
    train.add_argument("--time-limit", type=float, help="seconds, of all sessions together: the schedule ends with it")
    train.add_argument(
        "--pause-after",
        type=float,
        default=float("inf"),
        help="seconds, of this session: then stop and save, and leave the schedule as it is, for --resume",
    )

    evaluate = commands.add_parser("evaluate", help="errors on the held-out trajectories, as a table")
    evaluate.add_argument("config")
    evaluate.add_argument("--student", type=Path, required=True, help="checkpoint, or model file")
    evaluate.add_argument("--data", type=Path, help="folder of labels or shards, instead of the configuration's")
    evaluate.add_argument("--split", default="test", choices=["test", "train"])
    evaluate.add_argument("--device", default="cpu")

    stability = commands.add_parser("stability", help="constant-energy dynamics from held-out frames, as a table")
    stability.add_argument("config")
    stability.add_argument("--student", type=Path, required=True, help="checkpoint")
    stability.add_argument("--systems", nargs="+", help="all held-out ones unless given")
    stability.add_argument("--steps", type=int, default=1000, help="of 0.5 fs")
    stability.add_argument("--device", default="cpu")

    structures = commands.add_parser("structures", help="write the input structures, settled with the student")
    structures.add_argument("config")
    structures.add_argument("--student", type=Path, required=True, help="checkpoint")
    structures.add_argument("--out", type=Path, required=True, help="folder")
    structures.add_argument("--only", nargs="+", help="some of ethanol, water8, water16, water64")
    structures.add_argument("--device", default="cpu")

    export = commands.add_parser("export", help="write NAME.safetensors and NAME.parity.json")
    export.add_argument("config")
    export.add_argument("--student", type=Path, required=True, help="checkpoint")
    export.add_argument("--out", type=Path, required=True, help="folder")

    explore = commands.add_parser(
        "explore", help="label frames of the engine's dynamics, of molecules in reserve, where two students disagree"
    )
    explore.add_argument("config")
    explore.add_argument("--students", type=Path, nargs=2, required=True, help="model files; dynamics with the first")
    explore.add_argument("--engine", type=Path, required=True, help="the program verlet")
    explore.add_argument("--round", type=int, default=1, help="each takes other molecules")
    explore.add_argument("--processes", type=int, default=os.cpu_count(), help="of the engine, and of the teacher")
    explore.add_argument(
        "--device", default="cpu", help="for the students' forces; the engine computes on one core a run"
    )
    explore.add_argument("--time-limit", type=float, help="stop after so many seconds")

    import_ = commands.add_parser(
        "import",
        help="turn another program's network into a model file of verlet",
        description="Turns a PaiNN network of SchNetPack 2, or a student network of the MLFF Distiller, into a model "
        "file. Such files are pickles, which can run code in a program that loads them; this command only reads them "
        "and runs nothing. What verlet cannot represent is refused by name.",
    )
    import_.add_argument("model", type=Path, help="best_model or *.ckpt of SchNetPack, *.pt of the MLFF Distiller")
    import_.add_argument("--out", type=Path, required=True, help="model file to write, NAME.safetensors")
    import_.add_argument("--source", choices=["schnetpack", "distiller"], help="found out unless given")
    import_.add_argument("--energy-unit", help="of the network: eV, meV, kcal/mol, kJ/mol, hartree or rydberg")
    import_.add_argument("--length-unit", help="of the network: angstrom (unless given), nm, pm or bohr")
    import_.add_argument(
        "--elements", help="what it was trained on, as in H,C,O; read from atom references if there are any"
    )

    options = parser.parse_args(arguments)
    if options.command == "import":
        _import(options)
        return
    steps = {
        "molecules": _molecules,
        "generate": _generate,
        "pack": _pack,
        "train": _train,
        "evaluate": _evaluate,
        "stability": _stability,
        "structures": _structures,
        "export": _export,
        "explore": _explore,
    }
    try:
        steps[options.command](read_config(options.config), options)
    except (InputError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _import(options) -> None:
    from .importers import Choices, Refused, import_model

    try:
        choices = Choices.read(options.energy_unit, options.length_unit, options.elements)
        imported = import_model(options.model, options.out, choices, options.source)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{options.out}\n{imported.summary()}")


def _molecules(config, options) -> None:
    from .molecules.library import write_library, write_structures

    file, settings = config.structures(), config.molecules
    if file.suffix != ".npz":
        raise InputError(f"[molecules] file = {file.name!r} is used as it is: `molecules` makes only files NAME.npz")
    try:
        from .molecules.conformers import make_library
        from .molecules.enumeration import enumerate_molecules, own_molecules
    except ModuleNotFoundError as error:
        print(f"error: {error}; install it with `pip install 'verlet-train[molecules]'`", file=sys.stderr)
        sys.exit(2)
    if settings.smiles:
        candidates = own_molecules(settings.smiles)
    else:
        candidates = enumerate_molecules(
            config.seed, settings.test_fraction, settings.reserve_fraction, settings.further_fraction
        )
    made = make_library(candidates, config.seed, settings.conformers, options.processes)
    write_library(file, made)
    if settings.smiles:
        print(write_structures(file.with_suffix(".xyz"), made))
    print(f"{file}: {len(made)} molecules, {sum(len(m.conformers) for m in made)} conformers")


def _pack(config, options) -> None:
    from .shards import pack

    for path, frames in pack(config.data, options.out, round(1e6 * options.megabytes), options.name):
        print(f"{path}: {frames} frames, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def _generate(config, options) -> None:
    from .generate import jobs, run_all

    config.teacher.make()  # what is wrong with it is said once, not by every process
    if options.student is None:
        run_all(jobs(config)[: options.limit], options.processes, options.time_limit)
        return
    from .checkpoint import load_network
    from .student import sample

    model, offsets = load_network(config, options.student, options.device)
    run_all(sample(config, model, offsets, options.round), options.processes, options.time_limit)


def _train(config, options) -> None:
    from .train import Session, train

    options.out.parent.mkdir(parents=True, exist_ok=True)
    session = Session(
        options.device,
        options.start,
        options.resume,
        options.seed,
        options.steps,
        options.learning_rate,
        options.time_limit,
        options.pause_after,
        options.compile,
    )
    train(config, options.out, session)


def _evaluate(config, options) -> None:
    from .checkpoint import load_network
    from .dataset import load
    from .evaluate import markdown, table

    model, offsets = load_network(config, options.student, options.device)
    print(markdown(table(model, offsets, load(options.data or config.data, float("inf")), options.split)))


def _stability(config, options) -> None:
    from .checkpoint import load_student
    from .dataset import load
    from .stability import markdown, table

    model, checkpoint = load_student(config, options.student, options.device)
    rows = table(
        model, checkpoint["offsets"], load(config.data, float("inf")), options.steps, config.seed, options.systems
    )
    print(markdown(rows))


def _structures(config, options) -> None:
    from .checkpoint import load_student
    from .stability import input_structures

    model, checkpoint = load_student(config, options.student, options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in input_structures(model, checkpoint["offsets"], options.out, config.seed, options.only):
        print(path, flush=True)


def _explore(config, options) -> None:
    from .explore import Explorer
    from .generate import run_all

    config.teacher.make()
    explorer = Explorer(config, options.engine, options.students, options.round, options.device)
    try:
        run_all(explorer.jobs(options.processes), options.processes, options.time_limit)
    finally:
        explorer.close()
    print(explorer.summary())


def _export(config, options) -> None:
    from .checkpoint import load_student
    from .export import model_config, parity_structures, write_model, write_parity

    model, checkpoint = load_student(config, options.student)
    options.out.mkdir(parents=True, exist_ok=True)
    provenance = f"verlet-train, {config.title}, seed {config.seed}, {checkpoint['step']} steps in its last stage"
    description = model_config(config, checkpoint, provenance)
    file = f"{config.name}.safetensors"
    write_model(options.out / file, model, description)
    parity = options.out / f"{config.name}.parity.json"
    write_parity(parity, file, model, checkpoint["offsets"], parity_structures(config))
    print(f"{options.out / file}\n{parity}")


if __name__ == "__main__":
    main()
