"""Validates the engine and writes a dated page: `make validate`, or `python validation/validate.py --help`."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

logging.getLogger("pymbar").setLevel(logging.ERROR)  # it greets whoever imports it

import energy  # noqa: E402
import ensembles  # noqa: E402
import page  # noqa: E402
import parity  # noqa: E402
import restart  # noqa: E402
from engine import ROOT, Engine, Failure  # noqa: E402

CHECKS = {"parity": parity, "restart": restart, "energy": energy, "ensembles": ensembles}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, default=ROOT / "target/release/verlet", help="the binary to judge")
    parser.add_argument("--backend", default="cpu", help="the device to judge")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), help="some of the checks")
    parser.add_argument("--results", type=Path, default=ROOT / "validation/results", help="folder of the page")
    options = parser.parse_args()
    begun = time.monotonic()
    sections = []
    with tempfile.TemporaryDirectory(prefix="verlet-validation-") as scratch:
        engine = Engine(options.engine.resolve(), options.backend, Path(scratch))
        about = machine(engine)
        for name in options.only:
            print(f"{name} …", flush=True)
            module, started = CHECKS[name], time.monotonic()
            try:
                section = module.check(engine)
            except Failure as failure:
                section = page.Section(name, name.capitalize(), module.TEXT, notes=[f"The engine failed: {failure}"])
            print(f"  {time.monotonic() - started:.0f} s")
            for check in section.checks:
                print("  " + check.row().strip("| "), flush=True)
            for note in section.notes:
                print("  " + note, flush=True)
            sections.append(section)
    about["took"] = f"{time.monotonic() - begun:.0f} s"
    about["load while it ran"] = f"{os.getloadavg()[2]:.1f} (mean of 15 minutes)"
    today = datetime.date.today().isoformat()
    where = slug(about["processor"]) if options.backend in ("auto", "cpu") else slug(options.backend)
    path = options.results / f"{today}-{where}.md"
    page.write(path, f"Validation of {today}", about, sections)
    passed = all(section.passed for section in sections)
    print(f"{'PASS' if passed else 'FAIL'}: {path}")
    return 0 if passed else 1


def machine(engine: Engine) -> dict[str, str]:
    """What was judged, and on what."""
    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else []
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    packages = ("physical-validation", "ase", "h5py", "numpy", "scipy")
    return {
        "engine": engine.call([str(engine.binary), "--version"]).strip(),
        "commit": (commit or "unknown") + (", with changes" if changed else ""),
        "backend": engine.backend,
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "judged with": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
    }


def slug(text: str) -> str:
    """A name for a file: `Intel(R) Xeon(R) CPU @ 2.20GHz` becomes `intel-xeon`."""
    text = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor)\b", " ", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "unknown"


if __name__ == "__main__":
    sys.exit(main())
