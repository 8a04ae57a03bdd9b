"""Deterministic enumeration of organic molecules from `fragments`, with class and split.

A molecule stands for its graph: stereoisomers are one, written as canonical SMILES without stereochemistry, and which
split it belongs to is a hash of that SMILES and the seed. So no graph is ever in both splits, whatever else changes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from rdkit import Chem, RDLogger

from ..problem import InputError
from . import fragments as f

ELEMENTS = {"H", "C", "N", "O", "F", "S", "Cl"}
LARGEST = 40  # atoms, hydrogens included
# A bond between two heteroatoms that a combination would make anew is nearly always unstable.
HETERO = {"N", "O", "S", "F", "Cl"}
NITRO = Chem.MolFromSmarts("[N+](=O)[O-]")
# Atoms over which the chance of a molecule to be chosen falls by e: small molecules say most for a label's cost.
DECAY = 8.0
SMALL = 7  # atoms: molecules up to this size are always chosen, and the bare scaffolds

# How many molecules of each class: the classes that have more are thinned by size and hash.
QUOTAS = {
    "alkanes": 110,
    "unsaturated": 130,
    "oxygen": 170,
    "carbonyls": 180,
    "nitrogen": 200,
    "aromatics": 180,
    "heterocycles": 240,
    "halogens": 220,
    "sulfur": 220,
    "peptides": 170,
    "nucleobases": 80,
    "sugars": 90,
    "drug-like": 180,
}


@dataclass(frozen=True)
class Candidate:
    smiles: str  # canonical, without stereochemistry
    family: str  # a key of QUOTAS
    atoms: int  # hydrogens included
    split: str  # "train", "test", "reserve" or "further"; "" where trajectories are divided, not molecules


def fraction(smiles: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments; different purposes draw independent numbers."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{smiles}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def canonical(smiles: str) -> tuple[str, int] | None:
    """Canonical SMILES without stereochemistry, and how many atoms; None unless it is one neutral closed-shell
    molecule of ELEMENTS with at most LARGEST atoms."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or len(Chem.GetMolFrags(molecule)) > 1 or Chem.GetFormalCharge(molecule):
        return None
    if any(a.GetNumRadicalElectrons() or a.GetIsotope() for a in molecule.GetAtoms()):
        return None
    # Charges are allowed only where Lewis structures need them: nitro groups, not zwitterions.
    charged = sum(a.GetFormalCharge() != 0 for a in molecule.GetAtoms())
    if charged != 2 * len(molecule.GetSubstructMatches(NITRO)):
        return None
    atoms = sum(1 + a.GetTotalNumHs() for a in molecule.GetAtoms())
    if atoms > LARGEST or any(a.GetSymbol() not in ELEMENTS for a in molecule.GetAtoms()):
        return None
    return Chem.MolToSmiles(molecule, isomericSmiles=False), atoms


def attach(scaffold: str, substituent: str) -> Iterator[str]:
    """The scaffold with the substituent in place of one hydrogen, once for every kind of position."""
    base, group = Chem.MolFromSmiles(scaffold), Chem.MolFromSmiles(substituent)
    if base is None or group is None:
        return
    first = group.GetAtomWithIdx(0)
    seen = set()
    for atom, rank in zip(base.GetAtoms(), Chem.CanonicalRankAtoms(base, breakTies=False)):
        if rank in seen or atom.GetTotalNumHs() == 0:
            continue
        if atom.GetSymbol() in HETERO and first.GetSymbol() in HETERO:
            continue
        seen.add(rank)
        joined = Chem.RWMol(Chem.CombineMols(base, group))
        joined.AddBond(atom.GetIdx(), base.GetNumAtoms(), Chem.BondType.SINGLE)
        for index in (atom.GetIdx(), base.GetNumAtoms()):
            end = joined.GetAtomWithIdx(index)
            if end.GetNumExplicitHs():
                end.SetNumExplicitHs(end.GetNumExplicitHs() - 1)
        try:
            Chem.SanitizeMol(joined)
        except Chem.MolSanitizeException:
            continue
        yield Chem.MolToSmiles(joined)


def family_of(smiles: str) -> str:
    """Class by content, the rarer first."""
    molecule = Chem.MolFromSmiles(smiles)
    symbols = {a.GetSymbol() for a in molecule.GetAtoms()}
    aromatic = {a.GetSymbol() for a in molecule.GetAtoms() if a.GetIsAromatic()}
    if "S" in symbols:
        return "sulfur"
    if symbols & {"F", "Cl"}:
        return "halogens"
    if aromatic - {"C"}:
        return "heterocycles"
    if aromatic:
        return "aromatics"
    if "N" in symbols:
        return "nitrogen"
    if molecule.HasSubstructMatch(Chem.MolFromSmarts("[#6]=O")):
        return "carbonyls"
    if "O" in symbols:
        return "oxygen"
    if molecule.HasSubstructMatch(Chem.MolFromSmarts("C=,#C")):
        return "unsaturated"
    return "alkanes"


def grown(seeds: Iterable[str], groups: Iterable[str], generations: int) -> set[str]:
    """Everything that up to `generations` attachments of `groups` to `seeds` make."""
    found, newest = set(seeds), set(seeds)
    for _ in range(generations):
        newest = {new for old in sorted(newest) for group in groups for new in attach(old, group)} - found
        found |= newest
    return found


def _hydrocarbons() -> Iterator[str]:
    yield from grown(["C"], ["C"], 7)
    yield from grown(["C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "C1CC2CCC1C2", "C1CCC2CC2C1"], ["C", "CC"], 2)
    yield from grown(["C=C", "C#C", "C=CC=C", "C1=CCCC1", "C1=CCCCC1", "C=C=C"], ["C", "C=C", "C#C"], 3)


def _small_and_combined(seed: int) -> Iterator[str]:
    scaffolds = [*f.ALIPHATIC, *f.AROMATIC, *f.HETEROAROMATIC]
    once = set()
    for scaffold, substituent in product(scaffolds, f.SUBSTITUENTS):
        once.update(attach(scaffold, substituent))
    yield from scaffolds
    yield from sorted(once)
    for smiles in sorted(once):
        yield from _another_group(smiles, seed, 0.1)


def residue(code: str) -> str:
    """–NH–CHR–CO– from its nitrogen to its carbonyl carbon, open on both sides."""
    return {"G": "NCC(=O)", "P": "N1CCCC1C(=O)"}.get(code) or f"NC({f.SIDE_CHAINS[code]})C(=O)"


def _peptides() -> Iterator[str]:
    codes = ["G", "P", *f.SIDE_CHAINS]
    for a in codes:
        yield residue(a) + "O"
        yield f"CC(=O){residue(a)}NC"
        yield f"CC(=O){residue(a)}N"
    for pair in product(codes, repeat=2):
        yield "".join(map(residue, pair)) + "O"
    for triple in product("GASCPTVND", repeat=3):
        yield "".join(map(residue, triple)) + "O"
    for pair in product("GASCPN", repeat=2):
        yield f"CC(=O){''.join(map(residue, pair))}NC"


def _nucleobases() -> Iterator[str]:
    yield from f.NUCLEOBASES.values()
    for base, group in product(f.NUCLEOBASES.values(), f.BASE_SUBSTITUENTS):
        yield from attach(base, group)
    for base, sugar in product(f.GLYCOSYLATED, f.SUGAR_OF_NUCLEOSIDE):
        yield sugar.replace("C1", f"C1({_renumbered(base)})", 1)


def _renumbered(smiles: str) -> str:
    """Ring labels 1 and 2 as 8 and 9, so that the fragment can stand inside another ring."""
    return smiles.replace("1", "8").replace("2", "9")


def _sugars() -> Iterator[str]:
    yield from f.SUGARS
    for groups in product(f.SUGAR_GROUPS, repeat=4):
        yield f.PYRANOSE.format(*groups)


def _drug_like(seed: int) -> Iterator[str]:
    """Two rings and a linker between them, and the same with one more group."""
    rings = [*f.AROMATIC[:5], *f.HETEROAROMATIC, "C1CCNCC1", "C1COCCN1", "C1CNCCN1", "C1CCNC1", "C1CCCCC1", "C1CC1"]
    for first, linker, second in product(rings, f.LINKERS, rings):
        if fraction(f"{first}.{linker}.{second}", seed, "drug-like") < 0.01:
            for whole in attach(first, linker + _renumbered(second)):
                yield whole
                yield from _another_group(whole, seed, 0.2)


def _another_group(smiles: str, seed: int, share: float) -> Iterator[str]:
    """For a `share` of all molecules, drawn by hash: the molecule with one more substituent, drawn likewise."""
    if fraction(smiles, seed, "another group") < share:
        k = int(fraction(smiles, seed, "which group") * len(f.SUBSTITUENTS))
        yield from attach(smiles, f.SUBSTITUENTS[k])


def enumerate_molecules(
    seed: int, test_fraction: float, reserve_fraction: float = 0.0, further_fraction: float = 0.0
) -> list[Candidate]:
    """All candidates within QUOTAS, sorted by class and SMILES; the hash with `seed` thins and splits them.

    Those in reserve come after all others and on top of the quotas: as many more of each class, the next in turn. So
    they change nothing about the others, and no label of theirs. Further ones come after those in the same way, as
    far as a class has any.
    """
    RDLogger.DisableLog("rdApp.*")
    sources = [
        ("nucleobases", _nucleobases()),
        ("sugars", _sugars()),
        ("peptides", _peptides()),
        (None, _hydrocarbons()),
        (None, _small_and_combined(seed)),
        ("drug-like", _drug_like(seed)),
    ]
    known: dict[str, tuple[str, int]] = {}
    for family, source in sources:
        for raw in source:
            if (made := canonical(raw)) is not None and made[0] not in known:
                known[made[0]] = (family or family_of(made[0]), made[1])

    scaffolds = {made[0] for raw in [*f.ALIPHATIC, *f.AROMATIC, *f.HETEROAROMATIC] if (made := canonical(raw))}

    def turn(smiles: str) -> float:  # an exponential race, with weights: who comes first is drawn first
        if known[smiles][1] <= SMALL or smiles in scaffolds:
            return -1.0
        return -math.log1p(-fraction(smiles, seed, "choice")) * math.exp(known[smiles][1] / DECAY)

    found, reserved, further = [], [], []
    for family, quota in QUOTAS.items():
        members = sorted((s for s, (of, _) in known.items() if of == family), key=lambda s: (turn(s), s))
        for smiles in sorted(members[:quota]):
            split = "test" if fraction(smiles, seed, "split") < test_fraction else "train"
            found.append(Candidate(smiles, family, known[smiles][1], split))
        first = quota + round(reserve_fraction * quota)
        for smiles in sorted(members[quota:first]):
            reserved.append(Candidate(smiles, family, known[smiles][1], "reserve"))
        for smiles in sorted(members[first : first + round(further_fraction * quota)]):
            further.append(Candidate(smiles, family, known[smiles][1], "further"))
    return found + reserved + further


def own_molecules(smiles: list[str]) -> list[Candidate]:
    """Candidates of one's own, in no split. Raises InputError for text that is no SMILES of one molecule."""
    found = []
    for text in smiles:
        molecule = Chem.MolFromSmiles(text)
        if molecule is None or len(Chem.GetMolFrags(molecule)) != 1:
            raise InputError(f"[molecules] smiles: {text!r} is not the SMILES of one molecule")
        found.append(Candidate(text, text, Chem.AddHs(molecule).GetNumAtoms(), ""))
    return found
