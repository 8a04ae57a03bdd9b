"""Checks with their verdicts, and the page that shows them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)

plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "verlet", "figure.figsize": (7, 3.2), "font.size": 9})


@dataclass
class Check:
    """A number that must not be above its bound."""

    what: str
    value: float
    bound: float
    unit: str
    #: A check on something that is wrong on purpose: it shows that the check can fail, and must.
    control: bool = False

    @property
    def passed(self) -> bool:
        # What is not a number passes as neither.
        return bool(self.value > self.bound if self.control else self.value <= self.bound)

    def row(self) -> str:
        kind = "control" if self.control else "check"
        relation = "≤" if self.value <= self.bound else ">"
        verdict = "**FAIL**" if not self.passed else "fails, as it must" if self.control else "pass"
        found = f"{self.value:.3g} {relation} {self.bound:.3g} {self.unit}".strip()
        return f"| {kind} | {self.what} | {found} | {verdict} |"


@dataclass
class Section:
    """What one file of this folder checks."""

    name: str
    title: str
    #: What was run and how it is judged, written before anything is run.
    text: str
    checks: list[Check] = field(default_factory=list)
    #: Sentences about the numbers.
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, object] = field(default_factory=dict)
    figures: dict[str, plt.Figure] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def markdown(self, folder: str) -> str:
        parts = [f"## {self.title}", self.text.strip()]
        table = ["| | what | found and bound | verdict |", "|---|---|---|---|", *(check.row() for check in self.checks)]
        parts.append("\n".join(table))
        parts += self.notes
        parts += [f"![{self.title}]({folder}/{name}.svg)" for name in self.figures]
        return "\n\n".join(parts)


def write(page: Path, heading: str, about: dict[str, str], sections: list[Section]) -> None:
    """The page, and beside it a folder of the same name with the figures and the raw numbers."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for name, figure in section.figures.items():
            figure.tight_layout()
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)
    passed = all(section.passed for section in sections)
    rows = [f"| {name} | {value} |" for name, value in about.items()]
    count = sum(len(section.checks) for section in sections)
    failed = sum(not check.passed for section in sections for check in section.checks)
    verdict = f"**PASS**: all {count} checks" if passed else f"**FAIL**: {failed} of {count} checks"
    parts = [f"# {heading}", f"{verdict}. Raw numbers: [{folder.name}/numbers.json]({folder.name}/numbers.json)."]
    parts.append("\n".join(["| | |", "|---|---|", *rows]))
    parts += [section.markdown(folder.name) for section in sections]
    page.write_text("\n\n".join(parts) + "\n")
    raw = {s.name: {"checks": [{**asdict(c), "passed": c.passed} for c in s.checks], **s.numbers} for s in sections}
    (folder / "numbers.json").write_text(json.dumps({"about": about, **raw}, indent=1, default=float) + "\n")
