"""verlet-train: one command line for the four steps, each driven by the same TOML file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .config import read_config


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="verlet-train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    generate = commands.add_parser("generate", help="label frames with the teacher; skips what exists")
    generate.add_argument("config")
    generate.add_argument("--processes", type=int, default=os.cpu_count())
    generate.add_argument("--time-limit", type=float, help="stop after so many seconds")
    generate.add_argument("--student", type=Path, help="checkpoint whose own dynamics choose the [[sampled]] frames")
    generate.add_argument("--device", default="cpu")

    train = commands.add_parser("train", help="train the network on the labelled frames")
    train.add_argument("config")
    train.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    train.add_argument("--start", type=Path, help="checkpoint to begin from")
    train.add_argument("--learning-rate", type=float, help="instead of the configuration's")
    train.add_argument("--device", default="cpu")
    train.add_argument("--time-limit", type=float, default=float("inf"), help="seconds; the schedule ends with it")

    evaluate = commands.add_parser("evaluate", help="errors on the held-out trajectories, as a table")
    evaluate.add_argument("config")
    evaluate.add_argument("--student", type=Path, required=True, help="checkpoint")
    evaluate.add_argument("--split", default="test", choices=["test", "train"])
    evaluate.add_argument("--device", default="cpu")

    options = parser.parse_args(arguments)
    {"generate": _generate, "train": _train, "evaluate": _evaluate}[options.command](
        read_config(options.config), options
    )


def _generate(config, options) -> None:
    from .generate import jobs, run_all

    if options.student is None:
        run_all(jobs(config), options.processes, options.time_limit)
        return
    from .student import sample
    from .train import load_student

    model, checkpoint = load_student(config, options.student, options.device)
    run_all(sample(config, model, checkpoint["offsets"]), options.processes, options.time_limit)


def _train(config, options) -> None:
    from .train import train

    options.out.parent.mkdir(parents=True, exist_ok=True)
    train(config, options.out, options.device, options.time_limit, options.start, options.learning_rate)


def _evaluate(config, options) -> None:
    from .dataset import load
    from .evaluate import markdown, table
    from .train import load_student

    model, checkpoint = load_student(config, options.student, options.device)
    print(markdown(table(model, checkpoint["offsets"], load(config.data, float("inf")), options.split)))


if __name__ == "__main__":
    main()
