"""Bundles: what comes out is what went in, and nothing foreign gets in."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from maven_jax.__main__ import main
from maven_jax.challenge.calibrate import Tried, calibrate
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import Adjustment, Calibration
from maven_jax.files import write_json
from maven_jax.runs import export as export_module
from maven_jax.runs.bundle import PARTS, arrays_of, digests
from maven_jax.runs.evaluate import evaluate
from maven_jax.runs.export import export
from maven_jax.runs.program import open_program
from maven_jax.runs.released import write_workdir
from maven_jax.runs.trained_model import open_model
from maven_jax.runtime.seal import SEAL, digest_of_list, find_fault, seal
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """An evaluated run whose store is gone: what it was trained on, it has to know itself."""
    root = tmp_path_factory.mktemp("run")
    write_small_store(root / "store", videos=4, frames=120)
    config = small_recipe(root / "store", "quickstart:concat", train__num_epochs=1.0)
    train(config, root / "run")
    evaluate(root / "run", "validation")
    (root / "store").rename(root / "moved")
    return root / "run"


@pytest.fixture(scope="module")
def bundle(workdir, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "mine"
    words = ["--checkpoint", str(workdir), "--out", str(out), "--licence", "CC BY 4.0"]
    assert main(["export", *words, "--platforms", "cpu,tpu"]) == 0
    return out


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def noise(model, rows: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    example = model.example(rows)
    return example.replace(
        features={
            m: rng.normal(size=x.shape).astype(np.float16) for m, x in example.features.items()
        },
        modality_masks={m: rng.random(x.shape) < 0.8 for m, x in example.modality_masks.items()},
        frame_mask=np.arange(example.frame_mask.shape[1]) < np.full((rows, 1), 40),
    )


def test_a_bundle_is_the_run_in_all_that_prediction_needs(workdir, bundle):
    run, again = open_model(workdir), open_model(bundle)
    assert again.step == run.step > 0
    assert str(again.config) == str(run.config)
    assert again.trained_on == run.trained_on
    assert list(again.trained_on.modalities) == ["visual", "audio", "text"]
    assert again.scores["validation"]["ccc"] == run.scores["validation"]["ccc"]
    before, after = arrays_of(run.weights), arrays_of(again.weights)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], name)
    batch = noise(run, rows=3)
    wanted = jax.jit(run.function())(run.weights, batch)
    found = jax.jit(again.function())(again.weights, batch)
    np.testing.assert_array_equal(wanted, found)
    assert np.std(wanted) > 0.01


def test_the_program_gives_the_same_numbers_for_any_number_of_windows(bundle):
    model, program = open_model(bundle), open_program(bundle)
    assert program.platforms == ("cpu", "tpu")
    for rows in (1, 5):
        batch = noise(model, rows, seed=rows)
        features = {m: x.astype(np.float32) for m, x in batch.features.items()}
        found = program(features, batch.modality_masks, batch.frame_mask)
        wanted = jax.jit(model.function())(model.weights, batch)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_card_says_data_scores_licences_and_every_digest(bundle, workdir):
    card = (bundle / "MODEL_CARD.md").read_text()
    ccc = json.loads((workdir / "eval/validation.json").read_text())["ccc"]
    for text in ("CC BY 4.0", "| train | 4 |", f"{ccc:.3f}"[1:], "cpu, tpu", "maven_jax 0"):
        assert text in card
    sealed = digests(bundle)
    assert set(sealed) == set(PARTS)
    for name, part in sealed.items():
        assert find_fault(bundle) is None
        assert name == "MODEL_CARD.md" or f"| {part['sha256']} |" in card


def test_nothing_in_a_bundle_is_a_pickle(bundle):
    for path in bundle.iterdir():
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError)):
            pickle.loads(path.read_bytes())


def reseal(folder: Path) -> None:
    (folder / SEAL).unlink()
    seal(folder)


def change(folder: Path, name: str, **values: object) -> None:
    content = json.loads((folder / name).read_text())
    write_json(folder / name, content | values)
    reseal(folder)


def weights(folder: Path, **changes: np.ndarray | None) -> None:
    path = folder / "weights.safetensors"
    arrays = load_file(path) | {k.replace("__", "/"): v for k, v in changes.items()}
    save_file({k: v for k, v in arrays.items() if v is not None}, path)
    reseal(folder)


def deep(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    reseal(folder)


def model_of(folder: Path, **values: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["model"] |= values
    write_json(folder / "config.json", content)
    reseal(folder)


def data_of(folder: Path, **values: object) -> None:
    data = json.loads((folder / "config.json").read_text())["data"]
    change(folder, "config.json", data=data | values)


def linked(folder: Path) -> None:
    (folder / "metrics.json").rename(folder.parent / "elsewhere.json")
    (folder / "metrics.json").symlink_to(folder.parent / "elsewhere.json")


def fifo(folder: Path) -> None:
    (folder / "MODEL_CARD.md").unlink()
    os.mkfifo(folder / "MODEL_CARD.md")


def outside(folder: Path) -> None:
    """A seal, itself whole, that names a file elsewhere."""
    path = folder / SEAL
    files = json.loads(path.read_text())["files"] | {"../../secret": {"bytes": 0, "sha256": ""}}
    digest = digest_of_list(files)
    path.write_text(json.dumps({"files": files, "sha256": digest}))


def cut(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def garbage(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"\xff" * 100)
    reseal(folder)


WINDOW = {"kind": "sliding", "length": 0, "hop": 1, "step_s": None}
STATISTICS = {"statistics__mean__visual": np.zeros(9, np.float32)}
BREAKS = {
    "no weights": (
        lambda f: (f / "weights.safetensors").unlink(),
        "weights.safetensors is missing",
    ),
    "no seal": (lambda f: (f / "seal.json").unlink(), "no whole bundle, seal.json is missing"),
    "cut": (cut, "damaged, weights.safetensors has"),
    "one byte": (
        lambda f: (f / "metrics.json").write_text((f / "metrics.json").read_text() + " "),
        "damaged, metrics.json has",
    ),
    "no safetensors": (garbage, "damaged or no safetensors file"),
    "link": (linked, "metrics.json: not a plain file"),
    "fifo": (fifo, "MODEL_CARD.md: not a plain file"),
    "path": (outside, r"'../../secret' is not a sealed part"),
    "deep json": (deep, "config.json: cannot be read as JSON"),
    "list": (lambda f: ((f / "bundle.json").write_text("[]"), reseal(f)), "no JSON object"),
    "format": (lambda f: change(f, "bundle.json", format="x"), "not written by `maven-jax export`"),
    "version": (lambda f: change(f, "bundle.json", version=99), "bundle format 99, this version"),
    "step": (lambda f: change(f, "bundle.json", step="1"), "step or record are missing"),
    "widths": (
        lambda f: change(f, "bundle.json", calibration={"valence": -1, "arousal": 2}),
        "smoothing widths",
    ),
    "trained_on": (lambda f: change(f, "bundle.json", trained_on={"modalities": 3}), "trained_on"),
    "config": (lambda f: change(f, "config.json", data={}), "config.json: not a resolved recipe"),
    "sections": (lambda f: change(f, "config.json", bomb={}), "has a section 'bomb'"),
    "model": (lambda f: model_of(f, name="os.system"), "unknown name 'os.system'"),
    "own file": (lambda f: model_of(f, name="a/b.py:C"), "in a file of its own, a/b.py:C"),
    "own fusion": (lambda f: model_of(f, fusion={"name": "b.py:C"}), "in a file of its own, b.py"),
    "key": (lambda f: model_of(f, extra=1), "config.model has a key 'extra'"),
    "window": (lambda f: data_of(f, window=[1]), "config.json: not a resolved recipe"),
    "threads": (lambda f: data_of(f, num_threads="x"), "data.num_threads='x': expected a whole"),
    "length": (lambda f: data_of(f, window=WINDOW), "data.window.length=0: expected a whole"),
    "inputs": (lambda f: change(f, "config.json", inputs={"noise": 1}), "config.inputs has a key"),
    "loss": (lambda f: change(f, "config.json", loss=3), "config.loss=3: expected a section"),
    "type": (lambda f: model_of(f, embed_dim="wide"), "embed_dim='wide': expected a whole number"),
    "wide": (lambda f: model_of(f, embed_dim=10**4), r"the model's is float32\[10000\]"),
    "huge": (lambda f: model_of(f, embed_dim=10**7), "embed_dim=10000000: expected a whole number"),
    "lacking": (lambda f: weights(f, statistics__std__audio=None), "lacks std/audio"),
    "shape": (lambda f: weights(f, **STATISTICS), r"has mean/visual float32\[9\]"),
    "unknown": (lambda f: weights(f, evil=np.zeros(1)), "no weights are called 'evil'"),
    "nan": (
        lambda f: weights(f, statistics__mean__text=np.full(4, np.nan, np.float32)),
        "values in mean/text that are not finite",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_hostile_and_damaged_bundles_get_one_line(name, copy):
    break_it, message = BREAKS[name]
    break_it(copy)
    with pytest.raises(UserError, match=message) as caught:
        open_model(copy)
    assert "\n" not in str(caught.value)
    assert "copy" in str(caught.value)


def test_programs_that_are_none_or_take_other_weights_get_one_line(copy, bundle):
    (copy / "predictor.stablehlo").write_bytes(b"no program")
    reseal(copy)
    assert open_model(copy).step
    with pytest.raises(UserError, match=r"predictor.stablehlo: no program that this JAX reads"):
        open_program(copy)
    (copy / "predictor.stablehlo").write_bytes((bundle / "predictor.stablehlo").read_bytes())
    weights(copy, params__another=np.zeros(1, np.float32))
    with pytest.raises(UserError, match=r"takes other weights than weights.safetensors holds"):
        open_program(copy)
    (copy / "predictor.stablehlo").unlink()
    reseal(copy)
    with pytest.raises(UserError, match="was exported without predictor"):
        open_program(copy)


def test_a_calibration_goes_along_with_the_step_that_it_was_tuned_on(workdir, tmp_path, capsys):
    run = Path(shutil.copytree(workdir, tmp_path / "run"))
    step, how = open_model(run).step, (Adjustment(0.2, 5, 1.5, 0.1), Adjustment(0.0, 7, 1.0, 0.0))
    for tuned_on in (step, step - 1):
        tuned = Calibration(how, tuned_on, "validation", "abc")
        write_json(run / "calibration.json", tuned.to_json())
        export(run, tmp_path / f"of_{tuned_on}", which="best", platforms=(), licence=None)
        again = open_model(tmp_path / f"of_{tuned_on}")
        assert again.tuned() == (tuned if tuned_on == step else None)
        card = (again.source / "MODEL_CARD.md").read_text()
        line = "(valence 0.2 s later, 5 frames, x 1.500 + 0.100; arousal 7 frames)"
        assert (line in card) == (tuned_on == step)
    assert f"calibration was tuned on step {step - 1}: it does not" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"tuned on step {step - 1}, this is step {step}"):
        open_model(run).tuned()
    with pytest.raises(UserError, match="a bundle is not changed"):
        calibrate(again.source, Tried((), (), ()), which="best", split=None, store=None)


def test_export_refuses_what_is_in_the_way_and_what_is_not_there(workdir, bundle, tmp_path, capsys):
    def refused(*words: object) -> str:
        assert main(["export", *map(str, words)]) == 2
        return capsys.readouterr().err

    line = refused("--checkpoint", workdir, "--out", bundle)
    assert "holds other things already" in line
    line = refused("--checkpoint", tmp_path, "--out", tmp_path / "x")
    assert "no config.json here" in line
    line = refused("--checkpoint", workdir, "--out", tmp_path / "x", "--platforms", "gpu")
    assert "--platforms gpu: no such platform" in line
    line = refused("--checkpoint", workdir, "--out", tmp_path / "x", "--step", "7777")
    assert "no checkpoint '7777'" in line
    assert not (tmp_path / "x").exists()


def test_a_bundle_that_gives_other_numbers_does_not_appear(workdir, tmp_path, monkeypatch):
    for difference in (1e-3, float("nan")):
        monkeypatch.setattr(export_module, "largest_difference", lambda *_, d=difference: d)
        with pytest.raises(UserError, match=r"predictions differ from the run's by"):
            export(workdir, tmp_path / "x", which="best", platforms=(), licence=None)
        assert not list(tmp_path.iterdir())


def test_only_scores_of_the_step_go_along(workdir, tmp_path):
    run = Path(shutil.copytree(workdir, tmp_path / "run"))
    scores = json.loads((run / "eval/validation.json").read_text())
    write_json(run / "eval/train.json", scores | {"step": scores["step"] - 1})
    assert set(open_model(run).scores) == {"validation"}


def test_untrained_weights_and_encoders_are_labelled(workdir, tmp_path):
    model = open_model(workdir)
    assert model.label == ""
    record = json.loads((workdir / "config.json").read_text())
    record["trained_on"]["modalities"][1]["spec"]["untrained"] = True
    folder = Path(shutil.copytree(workdir, tmp_path / "run"))
    write_json(folder / "config.json", record)
    assert open_model(folder).label.startswith("features of untrained encoders (audio)")


def test_a_converted_run_takes_the_statistics_of_its_store(workdir, tmp_path):
    """As `maven-jax convert` writes it: without statistics, on the word of its store."""
    model = open_model(workdir)
    record = json.loads((workdir / "config.json").read_text())
    record |= {"statistics": "store", "converted": {"model": "m", "file": "f"}}
    del record["trained_on"]
    flat = {
        path.removeprefix("params/"): x
        for path, x in arrays_of(model.weights).items()
        if path.startswith("params/")
    }
    write_workdir(tmp_path / "run", flat, record)
    with pytest.raises(UserError, match="does not say itself what it was trained on"):
        open_model(tmp_path / "run")
    record["config"]["data"]["store"] = str(workdir.parent / "moved")
    write_json(tmp_path / "run/config.json", record)
    converted = open_model(tmp_path / "run")
    assert converted.label == ""
    assert converted.trained_on == model.trained_on
    for name in ("mean", "std"):
        wanted = getattr(model.weights.statistics, name)
        for modality, values in getattr(converted.weights.statistics, name).items():
            np.testing.assert_allclose(values, wanted[modality], rtol=1e-6)
