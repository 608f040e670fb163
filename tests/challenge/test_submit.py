"""From trained runs to the challenge's file: rows, gaps, smoothing, ensembles."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maven_jax.__main__ import main
from maven_jax.challenge.submit import observed_frames
from maven_jax.evaluation.calibration import Adjustment, Calibration, adjusted, fill_gaps
from maven_jax.evaluation.scores import score
from maven_jax.files import write_json
from maven_jax.runs.evaluate import calibration_of, evaluate
from maven_jax.runs.export import export
from maven_jax.runs.predict_split import predict_split
from maven_jax.runs.trained_model import open_model
from maven_jax.store.reader import Store
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store

WAYS = (
    (Adjustment(0.2, 5, 1.5, 0.1), Adjustment(0.0, 0, 1.0, 0.0)),
    (Adjustment(0.0, 9, 1.0, 0.0), Adjustment(0.1, 21, 1.0, -0.2)),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(
        tmp_path_factory.mktemp("store") / "s",
        videos=5,
        frames=120,
        splits=("train", "validation", "test"),
        unobserved=0.1,
    )


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory) -> list[Path]:
    """One run on all modalities, one on the voice alone."""
    folder = tmp_path_factory.mktemp("runs")
    for name, modalities in (("all", ("visual", "audio", "text")), ("voice", ("audio",))):
        config = small_recipe(
            store.path, "quickstart:concat", train__num_epochs=1.0, data__modalities=modalities
        )
        train(config, folder / name)
    return [folder / "all", folder / "voice"]


@pytest.fixture(scope="module")
def template(store, tmp_path_factory) -> Path:
    """The test videos, one row behind the end of the first, every second row of the last."""
    lines = ["image_location"]
    *others, last = store.videos("test")
    for entry in others:
        more = 1 if entry is others[0] else 0
        lines += [f"{entry.video}/{i + 1:05d}.jpg" for i in range(entry.num_frames + more)]
    lines += [f"{last.video}/{i + 1:05d}.jpg" for i in range(0, last.num_frames, 2)]
    path = tmp_path_factory.mktemp("template") / "template.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def values_of(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, list[list[float]]] = {}
    for line in path.read_text().splitlines()[1:]:
        location, valence, arousal = line.split(",")
        found.setdefault(location.split("/")[0], []).append([float(valence), float(arousal)])
    return {video: np.array(rows) for video, rows in found.items()}


def evaluated(workdir: Path, video: str) -> np.ndarray:
    table = np.genfromtxt(workdir / "eval/test" / f"{video}.csv", delimiter=",", names=True)
    return np.stack([table["valence"], table["arousal"]], 1)


@pytest.mark.slow
def test_rows_are_the_predictions_of_evaluate(runs, store, template, tmp_path, capsys):
    out = tmp_path / "submission.csv"
    words = ["--workdir", str(runs[0]), "--template", str(template), "--out", str(out), "--check"]
    assert main(["submit", *words]) == 0
    printed = capsys.readouterr().out
    assert "as the template wants it" in printed
    assert "submission.csv on the annotated rows" in printed
    assert "filled: 1 rows are behind the last frame" in printed
    evaluate(runs[0], "test")
    found = values_of(out)
    first, second = store.videos("test")
    np.testing.assert_allclose(found[first.video][:-1], evaluated(runs[0], first.video), atol=2e-6)
    np.testing.assert_array_equal(found[first.video][-1], found[first.video][-2])
    wanted = evaluated(runs[0], second.video)[::2]
    np.testing.assert_allclose(found[second.video], wanted, atol=2e-6)


def test_frames_without_any_observation_are_interpolated_and_counted(
    runs, store, template, tmp_path, capsys
):
    out = tmp_path / "voice.csv"
    words = ["--workdir", str(runs[1]), "--template", str(template), "--out", str(out)]
    assert main(["submit", *words]) == 0
    printed = capsys.readouterr().out
    evaluate(runs[1], "test")
    first, second = store.videos("test")
    known = observed_frames(store, first, ("audio",))
    unobserved = sum(int((~observed_frames(store, e, ("audio",))).sum()) for e in (first, second))
    assert unobserved > 5
    assert f"filled: {unobserved} frames show no modality" in printed
    raw, found = evaluated(runs[1], first.video), values_of(out)[first.video][:-1]
    np.testing.assert_allclose(found[known], raw[known], atol=2e-6)
    gap = int(np.flatnonzero(~known)[0])
    assert known[gap - 1]
    before, behind = gap - 1, gap + int(np.flatnonzero(known[gap:])[0])
    share = (gap - before) / (behind - before)
    wanted = raw[before] + share * (raw[behind] - raw[before])
    np.testing.assert_allclose(found[gap], wanted, atol=3e-6)


def test_gaps_are_held_at_the_ends():
    values = np.array([9, 9, 1, 9, 3, 9], np.float32)
    known = np.array([0, 0, 1, 0, 1, 0], bool)
    assert fill_gaps(values, known).tolist() == [1, 1, 1, 2, 3, 3]
    assert fill_gaps(values, np.zeros(6, bool)).tolist() == values.tolist()


def calibrated_copies(runs: list[Path], store: Store, folder: Path) -> list[Path]:
    copies = []
    for i, (run, how) in enumerate(zip(runs, WAYS)):
        copy = Path(shutil.copytree(run, folder / f"{run.name}{i}"))
        tuned = Calibration(how, open_model(copy).step, "validation", store.fingerprint)
        write_json(copy / "calibration.json", tuned.to_json())
        copies.append(copy)
    return copies


def test_ensembles_calibrate_each_run_in_its_own_way(runs, store, template, tmp_path):
    copies = calibrated_copies(runs, store, tmp_path)
    both = ["--workdir", *map(str, copies)]
    given = ["--template", str(template)]
    assert main(["submit", *both, *given, "--out", str(tmp_path / "both.csv")]) == 0
    joined = values_of(tmp_path / "both.csv")
    entry = store.videos("test")[0]
    video, tracks = entry.video, []
    for copy, how in zip(copies, WAYS):
        out = tmp_path / f"{copy.name}.csv"
        words = ["--workdir", str(copy), *given, "--out", str(out), "--calibrated", "none"]
        assert main(["submit", *words]) == 0
        raw = values_of(out)[video][:-1].astype(np.float32)
        tracks.append(adjusted(raw, entry.fps, how))
    np.testing.assert_allclose(joined[video][:-1], np.mean(tracks, 0), atol=3e-6)


def test_weights_of_calibrated_runs_are_those_of_ensemble(runs, store, template, tmp_path, capsys):
    for split in ("validation", "test"):
        evaluate(runs[0], split)
    copies = calibrated_copies([runs[0]] * 2, store, tmp_path)
    how = ["--weights", "validation"]
    given = [*map(str, copies), "--split", "test", "--calibrated", *how]
    assert main(["ensemble", *given, "--out", str(tmp_path / "e")]) == 0
    assert "x 1.500 + 0.100" in capsys.readouterr().out
    record = json.loads((tmp_path / "e/eval/test.json").read_text())
    assert record["weights"]["arousal"] != [0.5, 0.5]
    raw = json.loads((copies[0] / "eval/test.json").read_text())
    assert record["members"][0]["ccc_valence"] != raw["ccc_valence"]
    out = tmp_path / "weighted.csv"
    words = ["--workdir", *map(str, copies), "--template", str(template), "--out", str(out)]
    assert main(["submit", *words, *how]) == 0
    video = store.videos("test")[0].video
    joined = evaluated(tmp_path / "e", video)
    np.testing.assert_allclose(values_of(out)[video][:-1], joined, atol=3e-6)


def test_tune_writes_what_submit_takes(runs, store, template, tmp_path, capsys):
    copy = Path(shutil.copytree(runs[0], tmp_path / "run"))
    path = copy / "calibration.json"
    words = ["tune", "--workdir", str(copy), "--widths", "0,5,25", "--delays", "0,0.2"]
    assert main(words) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "fewer than 3 annotated recordings" in printed
    assert json.loads(path.read_text())["valence"] == vars(Adjustment(0.0, 0, 1.0, 0.0))
    assert main([*words, "--split", "train", "--no-delay"]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "to be expected elsewhere: valence" in printed
    assert "`chosen on it` is of train itself and flatters" in printed
    assert "+ mean and spread" in printed
    assert "+ delay" not in printed
    written = json.loads(path.read_text())
    assert written["valence"]["frames"] in (0, 5, 25)
    assert written["scores"]["arousal"]["ccc_calibrated"] >= written["scores"]["arousal"]["ccc_raw"]
    assert (written["split"], written["store_fingerprint"]) == ("train", store.fingerprint)
    written["valence"] = vars(Adjustment(0.2, 5, 1.2, 0.0))
    write_json(path, written)
    words = ["--workdir", str(copy), "--template", str(template), "--out", str(tmp_path / "s.csv")]
    assert main(["submit", *words]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "valence 0.2 s later, 5 frames, x 1.200 + 0.000; arousal" in printed
    assert "(tuned on train)" in printed
    write_json(path, written | {"store_fingerprint": "another"})
    assert main(["submit", *words]) == 0
    assert "(tuned on train of another store)" in capsys.readouterr().out.replace("\n", " ")
    write_json(path, written | {"step": 77})
    assert main(["submit", *words]) == 2
    assert "was tuned on step 77, this is step" in capsys.readouterr().err
    assert main(["submit", *words, "--calibrated", "none"]) == 0


def test_evaluate_scores_what_a_bundle_calibrates(runs, store, tmp_path, capsys):
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    how = Adjustment(0.2, 5, 1.5, 0.1), Adjustment(0.0, 7, 1.0, 0.0)
    tuned = Calibration(how, open_model(run).step, "validation", store.fingerprint)
    write_json(run / "calibration.json", tuned.to_json())
    scores = evaluate(run, "test")
    assert "CCC, calibrated" in capsys.readouterr().out
    assert not scores["calibrated"]["chosen_on_it"]
    bundle = export(run, tmp_path / "bundle", platforms=())
    calibration = bundle.tuned()
    assert calibration == tuned
    raw = predict_split(bundle, "test")
    done = [replace(v, predictions=calibration(v.predictions, v.entry.fps)) for v in raw]
    for videos, of in ((raw, scores), (done, scores["calibrated"])):
        assert of["ccc"] == pytest.approx(score(videos)[0]["ccc"], abs=1e-6)
    assert scores["calibrated"]["ccc"] != pytest.approx(scores["ccc"], abs=1e-3)
    # Other weights jitter in another way.
    assert calibration_of(run, tuned.step) == tuned
    assert calibration_of(run, 77) is None
    assert "so not scored on step 77" in capsys.readouterr().out.replace("\n", " ")


def test_the_run_of_a_fold_writes_the_videos_of_the_template(runs, store, tmp_path):
    """Whatever its fold calls validation: the official videos may be among its training ones."""
    template, files = tmp_path / "template.txt", []
    template.write_text(
        "".join(
            f"{e.video}/{i + 1:05d}.jpg\n"
            for e in store.videos("validation")
            for i in range(e.num_frames)
        )
    )
    for fold in (None, 1):
        run = Path(shutil.copytree(runs[0], tmp_path / f"fold_{fold}"))
        record = json.loads((run / "config.json").read_text())
        record["config"]["data"]["fold"] = fold
        write_json(run / "config.json", record)
        files.append(tmp_path / f"{fold}.csv")
        words = ["--workdir", str(run), "--template", str(template), "--out", str(files[-1])]
        assert main(["submit", *words]) == 0
    assert files[0].read_text() == files[1].read_text()


def test_mistakes_end_in_one_line(runs, store, template, tmp_path, capsys):
    def refused(*words: object) -> str:
        assert main(["submit", *map(str, words)]) == 2
        return capsys.readouterr().err

    out = ("--out", tmp_path / "s.csv")
    given = ("--workdir", runs[0], *out)
    foreign = tmp_path / "foreign.txt"
    foreign.write_text("image_location\nnobody/00001.jpg\n")
    assert "holds none of the 1 videos" in refused(*given, "--template", foreign)
    partly = tmp_path / "partly.txt"
    partly.write_text(template.read_text() + "nobody/00001.jpg\n")
    assert "1 of the 3 videos" in refused(*given, "--template", partly)
    assert not (tmp_path / "s.csv").exists()
    assert main(["submit", *map(str, (*given, "--template", partly, "--allow-missing", 1))]) == 0
    mean = store.statistics["targets"].mean
    np.testing.assert_allclose(values_of(tmp_path / "s.csv")["nobody"][0], mean, atol=1e-6)
    capsys.readouterr()
    template_words = ("--template", template)
    assert "written by `submit` for" in refused(*given, *template_words)
    before = foreign.read_bytes()
    for more in ((), ("--force",)):
        line = refused("--workdir", runs[0], "--template", foreign, "--out", foreign, *more)
        assert "which this command reads" in line
    assert foreign.read_bytes() == before
    given = ("--workdir", runs[0], "--out", tmp_path / "t.csv")
    assert "tuned, none, or frames" in refused(*given, *template_words, "--calibrated", "3,x")
    assert "goes with --check" in refused(*given, *template_words, "--annotations", tmp_path)
    assert "the same run twice" in refused("--workdir", runs[0], *given, *template_words)
    line = refused(*given, *template_words, "--store", tmp_path)
    assert "not a feature store" in line
