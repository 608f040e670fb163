"""Several runs' predictions made one."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from maven_jax.__main__ import main
from maven_jax.challenge.ensemble import ccc_centring, ensemble, pairwise_ccc
from maven_jax.challenge.evaluated import read_table
from maven_jax.errors import UserError
from maven_jax.evaluation.report import report_of, write_report
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.store.schema import VideoEntry
from maven_jax.types import DIMENSIONS

LENGTHS = {"a": 60, "b": 45, "odd name/1": 30}


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    cov = ((x - x.mean()) * (y - y.mean())).mean()
    return 2 * cov / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def targets_of(video: str) -> np.ndarray:
    rng = np.random.default_rng(len(video) + ord(video[0]))
    return np.tanh(rng.normal(size=(LENGTHS[video], 2)).cumsum(0) / 4).astype(np.float32)


def write_run(
    folder: Path, *, seed: int, videos=tuple(LENGTHS), dimensions=DIMENSIONS, fold=None, cut=0
) -> Path:
    """What an evaluation leaves, of noisy predictions."""
    rng = np.random.default_rng(seed)
    tracks, times = [], []
    for video in videos:
        targets = targets_of(video)[cut:]
        n = len(targets)
        noise = 0.3 * rng.normal(size=(n, 2)) + 0.2 * rng.normal(size=2)
        predictions = (targets + noise).clip(-1, 1).astype(np.float32)
        mask = np.arange(n) % 7 != 3
        entry = VideoEntry(
            video=video,
            split="test",
            num_frames=n,
            first_record=0,
            fps=25.0,
            duration_s=n / 25,
            num_annotated=int(mask.sum()),
            stem=video,
            observed={},
            nonfinite={},
            segments=((0, n),),
        )
        tracks.append(PredictedVideo(entry, predictions, targets * mask[:, None], mask))
        times.append(np.arange(n) / 25.0)
    scores, by_video = score(tracks, dimensions)
    scores |= {
        "dimensions": list(dimensions),
        "split": "test",
        "fold": fold,
        "step": 3,
        "model": "rjcma",
        "modalities": ["visual", "audio"],
        "num_parameters": 10,
        "untrained_encoders": ["audio"],
    }
    report = report_of(folder, "test", "evaluate", None)
    write_report(report, "test", tracks, times, scores, by_video)
    return folder


def columns(path: Path, *names: str) -> np.ndarray:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(r[n]) if r[n] else np.nan for n in names] for r in rows])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    home = tmp_path_factory.mktemp("runs")
    return [write_run(home / f"fold{i}", seed=i, fold=i) for i in range(3)]


def test_the_mean_is_the_mean_of_the_frames_and_better_than_its_members(runs, tmp_path, capsys):
    scores = ensemble(runs, tmp_path / "out", "test", "mean")
    shown = capsys.readouterr().out
    for run in runs:
        assert run.name in shown
    alone = [json.loads((run / "eval/test.json").read_text())["ccc"] for run in runs]
    assert [m["ccc"] for m in scores["members"]] == alone
    assert scores["ccc"] > max(alone)
    for file in (runs[0] / "eval/test").glob("*.csv"):
        each = [columns(run / "eval/test" / file.name, *DIMENSIONS) for run in runs]
        made = columns(tmp_path / "out/eval/test" / file.name, *DIMENSIONS)
        np.testing.assert_allclose(made, np.mean(each, 0), atol=2e-6)
        target = ("target_valence", "target_arousal", "time_s")
        np.testing.assert_array_equal(
            columns(tmp_path / "out/eval/test" / file.name, *target), columns(file, *target)
        )
    written = json.loads((tmp_path / "out/eval/test.json").read_text())
    assert set(written["videos"]) == set(LENGTHS)  # the names, not those of files
    assert written["num_parameters"] == 30


def test_centring_follows_its_definition(runs, tmp_path):
    ensemble(runs, tmp_path / "out", "test", "ccc_centring")
    each = np.stack([columns(run / "eval/test/a.csv", *DIMENSIONS) for run in runs])
    made = columns(tmp_path / "out/eval/test/a.csv", *DIMENSIONS)
    for d in range(2):
        x = each[..., d]
        agreement = [np.mean([ccc(x[i], x[j]) for j in range(3) if j != i]) for i in range(3)]
        assert min(agreement) > 0
        level = np.average(x.mean(1), weights=agreement)
        expected = np.mean([track - track.mean() + level for track in x], 0)
        np.testing.assert_allclose(made[:, d], expected.clip(-1, 1), atol=3e-6)


def test_a_run_that_agrees_with_nobody_does_not_set_the_level():
    t = np.linspace(0, 6, 80)
    good, also, upside_down = np.sin(t), np.sin(t) + 0.1, 5 - np.sin(t)
    tracks = np.stack([good, also, upside_down])
    assert pairwise_ccc(tracks)[0, 2] < 0
    made = ccc_centring(tracks)
    between = (good.mean() + also.mean()) / 2
    assert made.mean() == pytest.approx(between, abs=0.06)
    np.testing.assert_allclose(
        ccc_centring(np.stack([good, -good])), np.zeros(80), atol=1e-12
    )  # nobody agrees: the plain mean
    np.testing.assert_array_equal(ccc_centring(good[None]), good)
    still = np.zeros((2, 5))
    np.testing.assert_array_equal(pairwise_ccc(still), np.zeros((2, 2)))


def test_runs_of_one_dimension_complement_each_other(tmp_path, capsys):
    valence = write_run(tmp_path / "v", seed=0, dimensions=("valence",))
    arousal = write_run(tmp_path / "a", seed=1, dimensions=("arousal",))
    scores = ensemble([valence, arousal], tmp_path / "out", "test", "mean")
    assert "–" in capsys.readouterr().out
    own = [json.loads((run / "eval/test.json").read_text()) for run in (valence, arousal)]
    assert own[0]["ccc_arousal"] is None
    assert scores["ccc_valence"] == pytest.approx(own[0]["ccc_valence"], abs=1e-5)
    assert scores["ccc_arousal"] == pytest.approx(own[1]["ccc_arousal"], abs=1e-5)
    mean = (scores["ccc_valence"] + scores["ccc_arousal"]) / 2
    assert scores["ccc"] == pytest.approx(mean, abs=1e-6)
    assert scores["dimensions"] == ["valence", "arousal"]
    other = write_run(tmp_path / "v2", seed=4, dimensions=("valence",))
    scores = ensemble([valence, other], tmp_path / "out2", "test", "mean")
    assert scores["ccc_arousal"] is None
    assert scores["ccc"] == scores["ccc_valence"]
    made = columns(tmp_path / "out2/eval/test/a.csv", *DIMENSIONS)
    assert np.isnan(made[:, 1]).all()
    assert np.isfinite(made[:, 0]).all()


def test_other_videos_and_frames_are_refused(runs, tmp_path):
    fewer = write_run(tmp_path / "fewer", seed=0, videos=("a", "b"))
    with pytest.raises(UserError, match=r"different videos \(1 of them, the first, odd_name_1-"):
        ensemble([runs[0], fewer], tmp_path / "out", "test", "mean")
    shorter = write_run(tmp_path / "shorter", seed=0, cut=1)
    with pytest.raises(UserError, match=r"a has 59 frames in .*shorter and 60 in"):
        ensemble([runs[0], shorter], tmp_path / "out", "test", "mean")
    changed = write_run(tmp_path / "changed", seed=0)
    file = changed / "eval/test/b.csv"
    rows = file.read_text().splitlines()
    rows[1] = ",".join([*rows[1].split(",")[:4], "0.5", "0.5"])
    file.write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"b is annotated differently in .*changed"):
        ensemble([runs[0], changed], tmp_path / "out", "test", "mean")
    rows[2] = rows[2].replace(",", ",x", 1)
    file.write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"b.csv:3: could not convert"):
        ensemble([runs[0], changed], tmp_path / "out", "test", "mean")
    with pytest.raises(UserError, match="two or more different runs"):
        ensemble([runs[0], runs[0]], tmp_path / "out", "test", "mean")
    with pytest.raises(UserError, match="is one of the runs"):
        ensemble(runs, runs[1], "test", "mean")


def test_the_command_writes_what_compare_reads(runs, tmp_path, capsys):
    words = [*map(str, runs), "--out", str(tmp_path / "out"), "--split", "test"]
    assert main(["ensemble", *words, "--method", "ccc_centring"]) == 0
    assert main(["compare", str(tmp_path / "out"), str(runs[0]), "--split", "test"]) == 0
    assert "ccc_centring of 3" in capsys.readouterr().out
    assert main(["ensemble", *words[:3], "--out", str(tmp_path / "o"), "--split", "nope"]) == 2
    assert "nope.json: not there" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_prediction_that_is_no_number_is_named(value, runs, tmp_path):
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    file = min((run / "eval/test").glob("*.csv"))
    lines = file.read_text().splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([*cells[:2], value, *cells[3:]])
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"{file.name}:4: a value is not a finite number"):
        ensemble([run, runs[1]], tmp_path / "out", "test", "mean")


@pytest.mark.parametrize("text", ["[]", "{}", '{"ccc": NaN}', "\xff", '{"ccc": 1'])
def test_scores_of_another_program_are_one_line(text, runs, tmp_path):
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    (run / "eval/test.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"eval/test\.json: .*evaluate it again") as caught:
        ensemble([run, runs[1]], tmp_path / "out", "test", "mean")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"0.", b"\xff.")), "a.csv:2: could not"),
        (lambda p: p.write_text(p.read_text() + "1" * 200_000), "a.csv:62: field larger than"),
        (lambda p: p.write_text("frame\r\n"), "a.csv:1: not the columns frame, "),
    ],
)
def test_a_table_that_no_evaluation_wrote_is_refused_in_one_line(change, fault, runs, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes((runs[0] / "eval/test/a.csv").read_bytes())
    change(path)
    with pytest.raises(UserError, match=fault):
        read_table(path)


def test_a_modality_without_a_name_is_compared(runs, tmp_path, capsys):
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    scores = json.loads((run / "eval/test.json").read_text())
    (run / "eval/test.json").write_text(json.dumps(scores | {"modalities": ["", "audio"]}))
    assert main(["compare", str(run), "--split", "test"]) == 0
    assert " a " in capsys.readouterr().out
