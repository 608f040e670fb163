"""Fine-tuning: a run goes on, on other ratings, from where another one or a bundle of it ended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from maven_jax import recipes
from maven_jax.__main__ import main
from maven_jax.convert import face_detectors
from maven_jax.errors import UserError
from maven_jax.files import write_json
from maven_jax.media import find_faces
from maven_jax.runs.bundle import arrays_of
from maven_jax.runs.export import export
from maven_jax.runs.trained_model import open_model
from maven_jax.training.train import train
from tests.support.corpora import write_rated_videos
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("base")
    write_small_store(root / "store", videos=4, frames=120)
    config = small_recipe(root / "store", "quickstart:concat", train__num_epochs=1.0)
    config.model.embed_dim = 24  # not the recipe's: a run's own sizes have to be taken
    train(config, root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "store"
    write_small_store(path, videos=2, frames=90, seed=7)
    return path


def fine_tune(start: Path, mine: Path, workdir: Path, *words: str) -> int:
    config = ["--config", f"fine_tune:{start}", f"--config.data.store={mine}"]
    return main(["train", *config, "--workdir", str(workdir), *words])


def parameters(path: Path, which: str = "best") -> dict[str, np.ndarray]:
    arrays = arrays_of(open_model(path, which).weights)
    return {k: x for k, x in arrays.items() if not k.startswith("statistics")}


def test_without_a_step_size_the_weights_are_those_of_the_run_or_its_bundle(base, mine, tmp_path):
    assert (
        main(
            [
                "export",
                "--checkpoint",
                str(base),
                "--out",
                str(tmp_path / "bundle"),
                "--platforms",
                "none",
            ]
        )
        == 0
    )
    still = ("--config.optimizer.learning_rate=0.0", "--config.train.num_epochs=1.0")
    wanted = parameters(base)
    for start in (base, tmp_path / "bundle"):
        workdir = tmp_path / f"from_{start.name}"
        assert fine_tune(start, mine, workdir, *still) == 0
        found = parameters(workdir)
        assert found.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name], name)
    # Another corpus has its own statistics.
    theirs, ours = (open_model(p).weights.statistics for p in (base, workdir))
    assert np.abs(theirs.mean["visual"] - np.asarray(ours.mean["visual"])).max() > 0.01


def test_it_learns_on_from_there(base, mine, tmp_path):
    longer = ("--config.train.num_epochs=3.0", "--config.optimizer.learning_rate=1e-2")
    assert fine_tune(base, mine, tmp_path / "run", *longer) == 0
    before, after = parameters(base), parameters(tmp_path / "run", "latest")
    assert any(np.abs(before[name] - after[name]).max() > 1e-3 for name in before)
    assert json.loads((tmp_path / "run/finished.json").read_text())["steps"] > 0
    config = open_model(tmp_path / "run").config
    assert dict(config.train.init) == {"/": str(base)}


def test_the_recipe_keeps_the_model_and_its_inputs_and_eases_the_training(base):
    run = json.loads((base / "config.json").read_text())["config"]
    tuned = json.loads(recipes.load(f"fine_tune:{base}").to_json_best_effort())
    for section in ("model", "inputs", "loss"):
        assert tuned[section] == run[section]
    assert tuned["data"]["window"] == run["data"]["window"]
    assert tuned["data"]["synthetic"] is None
    rate = tuned["optimizer"]["learning_rate"]
    assert rate == pytest.approx(run["optimizer"]["learning_rate"] / 10)
    assert tuned["train"]["batch_size"] == run["train"]["batch_size"] // 2
    by_name = recipes.load("fine_tune:quickstart:visual")
    assert by_name.data.modalities == ("visual",)
    assert dict(by_name.train.init) == {}
    with pytest.raises(UserError, match="no recipe 'nowhere'"):
        recipes.load("fine_tune:nowhere")


def test_features_of_another_width_end_in_one_line(base, tmp_path, capsys):
    write_small_store(
        tmp_path / "store", videos=2, frames=60, modalities={"visual": 8, "audio": 6, "text": 5}
    )
    assert fine_tune(base, tmp_path / "store", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "config.train.init./" in error
    assert error.count("\n") == 1


def test_features_of_other_encoders_are_refused_though_shapes_fit(base, mine, tmp_path, capsys):
    other = Path(shutil.copytree(base, tmp_path / "W"))
    record = json.loads((other / "config.json").read_text())
    record["features"]["audio"]["sha256"] = "0123abcd"
    record["trained_on"]["modalities"][1]["spec"]["sha256"] = "0123abcd"
    write_json(other / "config.json", record)
    export(other, tmp_path / "bundle", which="best", platforms=(), licence=None)
    capsys.readouterr()
    for start in (other, tmp_path / "bundle"):
        assert fine_tune(start, mine, tmp_path / "run") == 2
        error = capsys.readouterr().err
        assert f"config.train.init./: {start}: {mine}: audio comes from another encoder" in error
        assert "0123abcd" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "run/config.json").exists()


def test_modalities_in_another_order_are_refused_though_shapes_fit(base, mine, tmp_path):
    """The concatenation takes them in the recipe's order, and no name says which is which."""
    config = recipes.load(f"fine_tune:{base}")
    config.data.store = str(mine)
    config.data.modalities = ("text", "audio", "visual")
    with pytest.raises(UserError, match="takes visual, audio, text, config"):
        train(config, tmp_path / "run")


@pytest.mark.slow
def test_from_videos_and_ratings_to_a_tuned_run(tmp_path, monkeypatch):
    """The four commands of docs/fine_tuning.md, with a detector that sees a face in anything."""
    face = find_faces.Face((8.0, 8.0, 40.0, 40.0), 0.9)
    monkeypatch.setattr(face_detectors, "open_detector", lambda search: lambda *_: [face])
    stores = {}
    for name in ("theirs", "mine"):
        videos = {f"{name}_a": "train", f"{name}_b": "train", f"{name}_c": "validation"}
        source = write_rated_videos(tmp_path / name, videos)
        root, stores[name] = tmp_path / f"{name}_corpus", tmp_path / f"{name}_store"
        assert main(["corpus", "--from", str(source), "--out", str(root)]) == 0
        words = ["--root", str(root), "--out", str(stores[name]), "--encoders", "tiny"]
        assert main(["prepare", *words, "--modalities", "visual"]) == 0
    config = small_recipe(stores["theirs"], "quickstart:visual", train__num_epochs=2.0)
    config.model = recipes.load("quickstart:concat").model
    train(config, tmp_path / "W")
    workdir = tmp_path / "tuned"
    assert fine_tune(tmp_path / "W", stores["mine"], workdir, "--config.train.num_epochs=2.0") == 0
    scores = json.loads((workdir / "eval/validation.json").read_text())
    assert scores["num_frames"] == 26
    assert list(scores["videos"]) == ["mine_c"]
    assert open_model(workdir).label.startswith("features of untrained encoders (visual)")
