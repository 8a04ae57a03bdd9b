"""Networks of other programs, imported: the same weights, and through the engine the same answers."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from engine import assert_answers, atoms_of, evaluate
from safetensors import safe_open

from verlet_train.cli import main
from verlet_train.importers import Choices, Refused, import_model

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DATA = Path(__file__).parent / "data"
ETHANOL = Choices.read("kcal/mol", None, "H,C,O")
STUDENT = Choices.read(None, None, "H,C,N,O,F,S,Cl")


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def config_of(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["config"])


def assert_same_tensors(a: Path, b: Path) -> None:
    first, second = tensors_of(a), tensors_of(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path}, beside the repository, is not here")
    return path


def test_a_saved_model_of_schnetpack_gives_the_weights_it_holds(tmp_path):
    out = tmp_path / "ethanol.safetensors"
    import_model(shared("models/painn-ethanol_1.schnetpack.pt"), out, ETHANOL)
    converted = shared("models/painn-ethanol_1.safetensors")
    assert_same_tensors(out, converted)
    ours, theirs = config_of(out), config_of(converted)
    for key in ("cutoff", "energy_offset", "units", "elements", "readout_layers", "norm_epsilon"):
        assert ours[key] == theirs[key]


def test_a_saved_model_of_schnetpack_gives_its_answers(tmp_path, engine):
    out = tmp_path / "ethanol.safetensors"
    import_model(shared("models/painn-ethanol_1.schnetpack.pt"), out, ETHANOL)
    cases = json.loads(shared("reference/painn-ethanol_1.json").read_text())["cases"]
    assert len(cases) > 3
    frames = evaluate(engine, out, [atoms_of(case) for case in cases], tmp_path)
    for frame, case in zip(frames, cases, strict=True):
        assert_answers(frame, case)


@pytest.mark.parametrize("name", ["painn-bessel", "painn-bohr"])
def test_kept_files_are_what_the_importer_makes(tmp_path, name):
    kept = ROOT / "tests/data" / f"{name}.safetensors"
    units = config_of(kept)["units"]
    out = tmp_path / "again.safetensors"
    import_model(DATA / f"{name}.pt", out, Choices.read(units["energy"], units["length"], "H,C,O"))
    assert_same_tensors(out, kept)
    assert config_of(out) == config_of(kept)


def test_a_file_that_would_run_code_does_not(tmp_path):
    trace = tmp_path / "trace"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    path = tmp_path / "hostile.pt"
    torch.save({"model": Hostile(), "more": [Hostile()]}, path)
    with pytest.raises(Refused, match="holds a dictionary with model, more"):
        import_model(path, tmp_path / "out.safetensors", ETHANOL)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have


def test_files_that_hold_no_network_are_refused(tmp_path):
    def refused(content, words: str) -> None:
        path = tmp_path / "bad.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(Refused, match=words):
            import_model(path, tmp_path / "out.safetensors", ETHANOL)
        assert not (tmp_path / "out.safetensors").exists()

    refused(b"", "is not a file of torch.save, or it is damaged")
    refused(pickle.dumps({"a": 1}), "is not a file of torch.save, or it is damaged")
    refused({"a.weight": torch.zeros(2)}, "the file holds weights alone")
    refused([1, 2], "the file holds a list; known are")
    refused(torch.nn.Linear(2, 2), "the file holds a torch.nn.modules.linear.Linear; known are")
    whole = (DATA / "painn-bohr.pt").read_bytes()
    refused(whole[: len(whole) // 2], "is not a file of torch.save, or it is damaged")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "text")
    refused((tmp_path / "other.zip").read_bytes(), "a zip archive, but not one of torch.save")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    refused((tmp_path / "script.pt").read_bytes(), "is a TorchScript archive")


def test_the_command_says_what_is_missing(tmp_path, capsys):
    out = tmp_path / "out.safetensors"

    def complaint(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["import", str(DATA / "painn-bohr.pt"), "--out", str(out), *arguments])
        assert end.value.code == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "does not say which elements the network was trained on" in complaint("--energy-unit", "eV")
    assert "does not say in which unit its energies are" in complaint("--elements", "H,C,O")
    assert "the unit furlong is not known; known are angstrom" in complaint("--length-unit", "furlong")
    assert "Xx is not the symbol of an element" in complaint("--elements", "H,Xx")
    assert "the embedding has 100 rows, too few for Lr" in complaint("--elements", "H,Lr", "--energy-unit", "eV")
    assert "which is nothing that distiller saves" in complaint("--source", "distiller")
    good = ["import", str(DATA / "painn-bohr.pt"), "--out", str(out), "--elements", "O H,C", "--energy-unit", "Ha"]
    main(good)
    assert "energies in hartree, lengths in angstrom, elements H, C, O" in capsys.readouterr().out
    assert "exists already" in complaint("--elements", "H")


def student_checkpoint() -> dict:
    """The Distiller's layout with trained weights; the last mixing matrix, which they lack, reaches nothing."""
    state = tensors_of(shared("models/student-427k.safetensors"))
    state["interactions.2.update.mixing_matrix"] = torch.ones(3, 3)
    sizes = {"hidden_dim": 128, "num_interactions": 3, "num_rbf": 20, "cutoff": 5.0, "max_z": 100}
    return {"model_state_dict": state, "config": sizes | {"use_torch_cluster": True}, "num_parameters": 427292}


def test_a_distiller_checkpoint_gives_the_weights_it_holds(tmp_path):
    saved = student_checkpoint()
    training = {f"model.{name}": tensor for name, tensor in saved["model_state_dict"].items()}
    trained = {"model_state_dict": training, "config": {"max_epochs": 100}, "epoch": 3, "best_val_loss": 0.1}
    for number, checkpoint in enumerate([saved, trained]):
        path, out = tmp_path / "student.pt", tmp_path / f"{number}.safetensors"
        torch.save(checkpoint, path)
        imported = import_model(path, out, STUDENT)
        assert_same_tensors(out, shared("models/student-427k.safetensors"))
        ours, theirs = config_of(out), config_of(shared("models/student-427k.safetensors"))
        for key in ("architecture", "features", "interactions", "cutoff", "readout_layers", "units", "elements"):
            assert ours[key] == theirs[key], key
        assert imported.architecture == "student"


def test_a_distiller_checkpoint_gives_its_answers(tmp_path, engine):
    path, out = tmp_path / "student.pt", tmp_path / "student.safetensors"
    torch.save(student_checkpoint(), path)
    import_model(path, out, STUDENT)
    cases = json.loads(shared("reference/student-427k.json").read_text())["cases"]
    assert len(cases) > 3
    frames = evaluate(engine, out, [atoms_of(case) for case in cases], tmp_path)
    for frame, case in zip(frames, cases, strict=True):
        assert_answers(frame, case)


def test_a_distiller_checkpoint_that_is_not_whole_is_refused(tmp_path):
    def refused(change, words: str, choices: Choices = STUDENT) -> None:
        checkpoint = student_checkpoint()
        change(checkpoint)
        path = tmp_path / "student.pt"
        torch.save(checkpoint, path)
        with pytest.raises(Refused, match=words):
            import_model(path, tmp_path / "out.safetensors", choices)

    def cutoffless(checkpoint):
        checkpoint["config"].pop("cutoff")
        checkpoint["model_state_dict"]["rbf.centers"] += 0.1

    state = "model_state_dict"
    refused(lambda c: c[state].pop("energy_head.2.bias"), "the tensor energy_head.2.bias is missing")
    refused(lambda c: c[state].update(charge=torch.zeros(1)), "has charge, which is no part of a StudentForceField")
    refused(lambda c: c[state].update({"rbf.widths": torch.ones(3)}), r"rbf.widths has the shape \[3\] instead of")
    refused(cutoffless, "config has no cutoff, and its Gaussians")
    refused(lambda c: None, "kcal/mol is given, but a StudentForceField is in eV", Choices.read("kcal/mol", None, "H"))
    refused(lambda c: None, "does not say which elements", Choices())
