"""Evaluation of a trained run: whole videos, exact scores, what is left in the workdir."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.evaluation.report import file_stem, read_scores, write_csv
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.split_predictor import PredictedVideo, SplitPredictor
from maven_jax.experiment import Experiment
from maven_jax.runs.evaluate import evaluate
from maven_jax.runs.workdir import claim, read_record
from maven_jax.state import Weights
from maven_jax.store.reader import Store
from maven_jax.store.schema import VideoEntry
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


def reference_ccc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x.astype(np.float64), y.astype(np.float64)
    cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    return 2 * cov / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("store") / "s"
    return write_small_store(path, videos=6, frames=130, splits=("train", "validation", "test"))


@pytest.fixture(scope="module")
def workdir(store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    config = small_recipe(store.path, "quickstart:concat", train__num_epochs=3.0)
    config.train.eval_every_epochs = 3.0
    train(config, folder)
    evaluate(folder, "validation")
    return folder


def entry(video: str, frames: int) -> VideoEntry:
    return VideoEntry(
        video=video,
        split="validation",
        num_frames=frames,
        first_record=0,
        fps=25.0,
        duration_s=frames / 25,
        num_annotated=frames,
        stem=video,
        observed={},
        nonfinite={},
        segments=((0, frames),),
    )


def tracks(lengths: list[int], seed: int = 0) -> list[PredictedVideo]:
    rng = np.random.default_rng(seed)
    made = []
    for i, n in enumerate(lengths):
        targets = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
        predictions = (0.6 * targets + 0.3 * rng.normal(size=(n, 2)) + 0.4 * i).astype(np.float32)
        mask = rng.random(n) < 0.8
        made.append(
            PredictedVideo(
                entry(f"v{i}", n), predictions, np.where(mask[:, None], targets, 9), mask
            )
        )
    return made


def test_scores_are_those_of_the_concatenated_annotated_frames():
    made = tracks([17000, 300, 5, 20001])  # some longer than a block of the metric
    scores, by_video = score(made)
    x = np.concatenate([t.predictions[t.target_mask] for t in made])
    y = np.concatenate([t.targets[t.target_mask] for t in made])
    expected = reference_ccc(x, y)
    each = np.array(
        [reference_ccc(t.predictions[t.target_mask], t.targets[t.target_mask]) for t in made]
    )
    assert [scores["ccc_valence"], scores["ccc_arousal"]] == pytest.approx(expected, abs=1e-6)
    assert scores["ccc"] == pytest.approx(expected.mean(), abs=1e-6)
    np.testing.assert_allclose(by_video, each, atol=1e-5)
    assert scores["ccc_video_mean"] == pytest.approx(each.mean(), abs=1e-5)
    assert abs(scores["ccc"] - scores["ccc_video_mean"]) > 0.01  # two numbers, not one
    assert scores["rmse_valence"] == pytest.approx(
        np.sqrt(np.mean((x - y)[:, 0] ** 2, dtype=np.float64)), abs=1e-6
    )
    assert scores["num_frames"] == len(x)
    assert scores["num_videos"] == 4


def test_the_order_of_videos_does_not_matter():
    made = tracks([400, 900, 31, 7000, 2])
    forwards, _ = score(made)
    backwards, _ = score(made[::-1])
    assert forwards == pytest.approx(backwards, abs=1e-6)


def test_a_frame_in_several_windows_gets_the_mean(store):
    """A model whose output is its window's number: what each frame gets can be counted."""
    config = small_recipe(store.path, eval__hop=20)
    experiment = Experiment.of(config)
    windows = experiment.windows("validation", train=False)

    def numbered(weights, batch):
        return jax.numpy.broadcast_to(
            batch.window[:, None, None].astype(jax.numpy.float32), (*batch.frame_mask.shape, 2)
        )

    predictor = SplitPredictor(
        numbered,
        store,
        windows,
        modalities=tuple(store.modalities),
        single_vector={},
        batch_size=8,
        num_threads=2,
        mesh=experiment.mesh,
        blend="mean",
        smooth_frames=(0, 0),
    )
    for i, track in enumerate(predictor(Weights({}, {}, None))):
        mine = [w for w in range(len(windows)) if windows.video[w] == i]
        for frame in range(track.entry.num_frames):
            over = [w for w in mine if windows.start[w] <= frame < windows.stop[w]]
            assert track.predictions[frame] == pytest.approx(np.mean(over))
        whole = store.read(track.entry, 0, track.entry.num_frames, ())
        np.testing.assert_array_equal(track.target_mask, whole.target_mask)
        np.testing.assert_array_equal(track.targets, whole.targets)


def test_the_score_does_not_depend_on_the_batch_size(store, workdir):
    results = []
    for size in (8, 3):
        path = workdir / "config.json"
        record = json.loads(path.read_text())
        record["config"]["eval"]["batch_size"] = size
        path.write_text(json.dumps(record))
        results.append(evaluate(workdir, "validation"))
    assert results[0]["ccc"] == pytest.approx(results[1]["ccc"], abs=1e-6)


def test_the_report_can_be_recomputed_from_its_files(store, workdir):
    written = json.loads((workdir / "eval/validation.json").read_text())
    x, y = [], []
    for video in store.videos("validation"):
        with (workdir / f"eval/validation/{video.video}.csv").open() as file:
            rows = list(csv.DictReader(file))
        whole = store.read(video, 0, video.num_frames, ())
        assert [int(r["frame"]) for r in rows] == list(range(1, video.num_frames + 1))
        np.testing.assert_allclose([float(r["time_s"]) for r in rows], whole.time_s, atol=1e-4)
        for row, annotated in zip(rows, whole.target_mask):
            assert bool(row["target_valence"]) == annotated
            if annotated:
                x.append([float(row["valence"]), float(row["arousal"])])
                y.append([float(row["target_valence"]), float(row["target_arousal"])])
    assert written["num_frames"] == len(x)
    expected = reference_ccc(np.array(x), np.array(y))
    assert [written["ccc_valence"], written["ccc_arousal"]] == pytest.approx(expected, abs=1e-5)
    assert len(list((workdir / "plots").glob("validation_*.png"))) >= 3
    low, high = written["ccc_interval"]["ccc"]
    assert written["ccc_interval"]["recordings"] == len(store.videos("validation"))
    assert low <= written["ccc"] <= high


def test_scores_of_an_earlier_version_have_no_interval(workdir, tmp_path):
    written = json.loads((workdir / "eval/validation.json").read_text())
    interval = written.pop("ccc_interval")
    (tmp_path / "eval").mkdir()
    path = tmp_path / "eval/validation.json"
    path.write_text(json.dumps(written))
    assert read_scores(tmp_path, "validation")["ccc_interval"] is None
    path.write_text(json.dumps(written | {"ccc_interval": interval | {"ccc": "wide"}}))
    with pytest.raises(UserError, match=r"ccc_interval\.ccc is 'wide'"):
        read_scores(tmp_path, "validation")


def test_a_split_without_annotations_is_predicted_and_not_scored(tmp_path, workdir, capsys):
    unlabelled = write_small_store(
        tmp_path / "u", videos=2, frames=130, splits=("train", "test"), unannotated=1.0
    )
    before = {p: p.read_bytes() for p in (workdir / "eval").glob("*.json")}
    scores = evaluate(workdir, "test", store=str(unlabelled.path))
    assert scores["num_frames"] == 0
    assert "nothing to score" in capsys.readouterr().out
    assert len(list((workdir / "eval/test@u").glob("*.csv"))) == len(unlabelled.videos("test"))
    # What the run is known by is what it does on its own store.
    assert {p: p.read_bytes() for p in before} == before
    assert not (workdir / "eval/test.json").exists()


def test_features_of_another_width_are_refused(tmp_path, workdir):
    other = write_small_store(
        tmp_path / "o", videos=2, modalities={"visual": 9, "audio": 6, "text": 4}
    )
    with pytest.raises(UserError, match="visual is 9 wide there, the model takes 8"):
        evaluate(workdir, "validation", store=str(other.path))


def test_features_of_other_weights_are_refused(store, tmp_path, workdir):
    other = tmp_path / "other"
    shutil.copytree(store.path, other)
    meta = json.loads((other / "store.json").read_text())
    meta["modalities"]["audio"]["spec"]["sha256"] = "0" * 64
    (other / "store.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="audio comes from another encoder"):
        evaluate(workdir, "validation", store=str(other))


def test_unknown_splits_are_named(workdir):
    with pytest.raises(UserError, match="did you mean 'validation'"):
        evaluate(workdir, "validaton")


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", "x" * 400, "\n", "..", "ü"])
def test_names_from_outside_stay_in_their_folder(name, tmp_path):
    stem = file_stem(name)
    (made,) = tracks([3])
    write_csv(made, np.arange(3.0), tmp_path / "inside" / f"{stem}.csv")
    assert [p.parent for p in tmp_path.rglob("*.csv")] == [tmp_path / "inside"]


def test_different_names_give_different_files():
    names = ["a/b", "a_b", "a b", "a\\b", "../a_b"]
    assert len({file_stem(n) for n in names}) == len(names)


def test_a_workdir_of_an_earlier_version_is_refused_in_one_line(workdir, tmp_path):
    record = json.loads((workdir / "config.json").read_text())
    del record["config"]["eval"]["smooth_frames"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"written before config\.eval\.smooth_frames") as caught:
        evaluate(tmp_path, "validation")
    assert "\n" not in str(caught.value)


def test_a_workdir_from_before_own_folds_opens_as_it_was(workdir, tmp_path):
    record = json.loads((workdir / "config.json").read_text())
    now, _ = read_record(workdir)
    for key in ("folds", "fold_groups"):
        del record["config"]["data"][key]
    del record["trained_on"]["held_out"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    then, _ = read_record(tmp_path)
    assert then.to_dict() == now.to_dict()
    experiment = Experiment.of(then)
    claim(tmp_path, experiment, {}, [])  # a run from then may be continued
