"""The enumeration of molecules, their structures, and the structures file."""

import os
import subprocess
import sys

import numpy as np
import pytest
from ase.io import read

from verlet_train.molecules.library import Molecule, read_library, write_library, write_structures

SEED, TEST_FRACTION = 20261123, 0.1


@pytest.fixture(scope="module")
def enumerated():
    pytest.importorskip("rdkit")
    from verlet_train.molecules.enumeration import enumerate_molecules

    return enumerate_molecules(SEED, TEST_FRACTION)


def test_enough_distinct_small_molecules_of_seven_elements(enumerated):
    from rdkit import Chem

    assert len(enumerated) >= 1800
    seen = set()
    for c in enumerated:
        molecule = Chem.AddHs(Chem.MolFromSmiles(c.smiles))
        seen |= {a.GetSymbol() for a in molecule.GetAtoms()}
        assert molecule.GetNumAtoms() == c.atoms <= 40
        assert Chem.GetFormalCharge(molecule) == 0
        assert sum(a.GetAtomicNum() for a in molecule.GetAtoms()) % 2 == 0
        assert not any(a.GetNumRadicalElectrons() for a in molecule.GetAtoms())
    assert seen == {"H", "C", "N", "O", "F", "S", "Cl"}


def test_no_graph_is_in_both_splits_and_every_class_is_tested(enumerated):
    from rdkit import Chem

    from verlet_train.molecules.enumeration import QUOTAS

    graphs = {"train": set(), "test": set()}
    for c in enumerated:
        flat = Chem.MolFromSmiles(c.smiles)
        Chem.RemoveStereochemistry(flat)
        graphs[c.split].add(Chem.MolToSmiles(flat))
    assert not graphs["train"] & graphs["test"]
    assert len(graphs["train"]) + len(graphs["test"]) == len(enumerated)
    assert {c.family for c in enumerated if c.split == "test"} == set(QUOTAS)
    assert 0.07 < len(graphs["test"]) / len(enumerated) < 0.13


def test_the_reserve_comes_on_top(enumerated):
    from verlet_train.molecules.enumeration import QUOTAS, enumerate_molecules

    more = enumerate_molecules(SEED, TEST_FRACTION, 0.2)
    assert more[: len(enumerated)] == enumerated  # names, places and splits of the others stay
    reserved = more[len(enumerated) :]
    assert {c.split for c in reserved} == {"reserve"} and {c.family for c in reserved} == set(QUOTAS)
    assert not {c.smiles for c in reserved} & {c.smiles for c in enumerated}
    most = enumerate_molecules(SEED, TEST_FRACTION, 0.2, 1.0)
    assert most[: len(more)] == more  # nor do further ones change those
    further = most[len(more) :]
    assert {c.split for c in further} == {"further"} and {c.family for c in further} == set(QUOTAS)
    assert len({c.smiles for c in most}) == len(most)
    # Whether by one name or the other: the next in turn.
    both = {c.smiles for c in reserved + further}
    assert {c.smiles for c in enumerate_molecules(SEED, TEST_FRACTION, 1.2)[len(enumerated) :]} == both


def test_the_bare_scaffolds_are_there(enumerated):
    from verlet_train.molecules import fragments
    from verlet_train.molecules.enumeration import canonical

    bare = {canonical(s)[0] for s in [*fragments.ALIPHATIC, *fragments.AROMATIC, *fragments.HETEROAROMATIC]}
    assert bare <= {c.smiles for c in enumerated}


def test_own_smiles_are_in_no_split():
    pytest.importorskip("rdkit")
    from verlet_train.molecules.enumeration import own_molecules
    from verlet_train.problem import InputError

    assert [(c.smiles, c.atoms, c.split) for c in own_molecules(["CC(=O)O"])] == [("CC(=O)O", 8, "")]
    for bad in ["C(", "C.C", ""]:
        with pytest.raises(InputError, match="not the SMILES of one molecule"):
            own_molecules([bad])


def test_another_process_enumerates_the_same(enumerated):
    """Sets of text are ordered by a hash that changes from process to process: it must not reach the result."""
    program = (
        "from verlet_train.molecules.enumeration import enumerate_molecules\n"
        f"for c in enumerate_molecules({SEED}, {TEST_FRACTION}): print(c.smiles, c.family, c.atoms, c.split)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert answer.stdout.split("\n")[:-1] == [f"{c.smiles} {c.family} {c.atoms} {c.split}" for c in enumerated]


def test_well_known_molecules_are_there(enumerated):
    from verlet_train.molecules.enumeration import canonical

    families = {c.smiles: c.family for c in enumerated}
    for smiles, family in [
        ("CO", "oxygen"),
        ("CC(=O)O", "carbonyls"),
        ("CN", "nitrogen"),
        ("CS", "sulfur"),
        ("CCl", "halogens"),
        ("c1ccncc1", "heterocycles"),
        ("NCC(=O)O", "peptides"),
        ("O=c1cc[nH]c(=O)[nH]1", "nucleobases"),
        ("CCC", "alkanes"),
    ]:
        assert families[canonical(smiles)[0]] == family


def test_what_is_no_neutral_closed_shell_molecule_is_refused():
    pytest.importorskip("rdkit")
    from verlet_train.molecules.enumeration import canonical

    assert canonical("C[N+](=O)[O-]") is not None
    for bad in ["[NH3+]CC(=O)[O-]", "C[CH2]", "CC(=O)[O-]", "C.C", "CBr", "C" * 14, "C(C)(C)(C)(C)C"]:
        assert canonical(bad) is None


def test_attachment_takes_each_kind_of_position_once():
    pytest.importorskip("rdkit")
    from verlet_train.molecules.enumeration import attach, canonical

    def made(scaffold, group):
        return sorted(canonical(s)[0] for s in attach(scaffold, group))

    assert made("Cc1ccccc1", "F") == sorted(
        canonical(s)[0] for s in ["FCc1ccccc1", "Cc1ccccc1F", "Cc1cccc(F)c1", "Cc1ccc(F)cc1"]
    )
    assert made("CO", "N") == ["NCO"]  # never a new bond between nitrogen and oxygen


def test_further_molecules_have_one_conformer():
    pytest.importorskip("rdkit")
    from verlet_train.molecules.conformers import make_library
    from verlet_train.molecules.enumeration import Candidate

    candidates = [Candidate("CCCCO", "oxygen", 15, split) for split in ("train", "further")]
    few, one = make_library(candidates, 3, 4, 1)
    assert len(few.conformers) > len(one.conformers) == 1 and one.split == "further"


def test_structures_repeat_and_have_sound_bonds():
    pytest.importorskip("rdkit")
    from verlet_train.molecules.conformers import embed
    from verlet_train.molecules.enumeration import Candidate

    candidate = Candidate("CCCCO", "oxygen", 15, "train")
    first, second = embed(candidate, 3, 4), embed(candidate, 3, 4)
    np.testing.assert_array_equal(first.conformers, second.conformers)
    assert len(first.conformers) > 1 and first.conformers.shape[1:] == (15, 3) and len(first.bonds) == 14
    a, b = first.bonds.T
    lengths = np.linalg.norm(first.conformers[:, a] - first.conformers[:, b], axis=-1)
    assert lengths.min() > 0.9 and lengths.max() < 1.6


def test_structures_file_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    written = [
        Molecule("O", "oxygen", "train", np.array([8, 1, 1]), np.array([[0, 1], [0, 2]]), rng.normal(size=(2, 3, 3))),
        Molecule("Cl", "halogens", "test", np.array([17, 1]), np.array([[0, 1]]), rng.normal(size=(1, 2, 3))),
    ]
    write_library(tmp_path / "structures.npz", written)
    write_structures(tmp_path / "structures.xyz", written)
    assert [a.info["name"] for a in read(tmp_path / "structures.xyz", index=":")] == ["O", "O", "Cl"]
    for before, after in zip(written, read_library(tmp_path / "structures.npz"), strict=True):
        assert (before.smiles, before.family, before.split) == (after.smiles, after.family, after.split)
        np.testing.assert_array_equal(before.numbers, after.numbers)
        np.testing.assert_array_equal(before.bonds, after.bonds)
        np.testing.assert_allclose(before.conformers, after.conformers, atol=1e-6)


def test_a_missing_structures_file_says_what_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="verlet-train molecules"):
        read_library(tmp_path / "none.npz")
