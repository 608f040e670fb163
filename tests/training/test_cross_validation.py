"""Cross-validation: every video is predicted by a run that has not seen it, and scored once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from maven_jax.__main__ import main
from maven_jax.challenge.evaluated import read_table
from maven_jax.data.folds import cut
from maven_jax.store.reader import Store
from tests.support.stores import write_small_store

RECIPE = """
from tests.support.recipes_for_tests import small_recipe

def get_config(arg=""):
    c = small_recipe({store!r}, "quickstart:mean")
    c.train.plateau.stop_patience = 3
    return c
"""


def command(folder: Path, *words: str) -> int:
    recipe = ["--config", str(folder / "recipe.py"), "--workdir", str(folder / "cv")]
    return main(["cross-validate", *recipe, *words])


def steps(run: Path) -> list[int]:
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())


@pytest.fixture(scope="module")
def validated(tmp_path_factory) -> Path:
    """A store of six annotated videos, validated in two folds by three groups."""
    folder = tmp_path_factory.mktemp("validated")
    store = write_small_store(folder / "s", videos=4, frames=60, splits=("train", "validation"))
    (folder / "recipe.py").write_text(RECIPE.format(store=str(store.path)))
    videos = [e.video for split in store.splits for e in store.videos(split)]
    rows = [f"{video},person{i % 3}" for i, video in enumerate(videos)]
    (folder / "groups.csv").write_text("\n".join(["video,group", *rows]))
    assert command(folder, "--folds", "2", "--groups", str(folder / "groups.csv")) == 0
    return folder


def tables(folder: Path) -> dict:
    return {f.stem: read_table(f) for f in sorted(folder.glob("*.csv"))}


def test_the_score_is_that_of_all_frames_that_the_folds_held_out(validated):
    report = json.loads((validated / "cv/eval/out_of_fold.json").read_text())
    written = tables(validated / "cv/eval/out_of_fold")
    store = Store(validated / "s")
    made = cut(store, 2, str(validated / "groups.csv"))
    assert sorted(written) == sorted(report["videos"]) == sorted(e.video for e in made.videos)
    for i, name in enumerate(("valence", "arousal")):
        x = np.concatenate([t.predictions[name][t.target_mask] for t in written.values()])
        y = np.concatenate([t.targets[t.target_mask, i] for t in written.values()]).astype(float)
        spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
        ccc = 2 * np.mean((x - x.mean()) * (y - y.mean())) / spread
        assert report[f"ccc_{name}"] == pytest.approx(ccc, abs=1e-5)
    assert report["ccc_interval"]["recordings"] == len(made.videos)
    assert (report["folds"], report["seed"], report["cut_by"]) == (2, 0, "groups")
    assert report["step_chosen_by"] == "nothing, last step"
    for k, part in enumerate(made.parts):
        fold = validated / f"cv/fold_{k}"
        mine = tables(fold / "eval/validation")
        assert sorted(mine) == sorted(e.video for e in part)
        assert report["members"][k]["step"] == steps(fold)[-1]
        for video, table in mine.items():
            expected = table.predictions["valence"]
            np.testing.assert_array_equal(written[video].predictions["valence"], expected)
    assert main(["compare", str(validated / "cv"), "--split", "out_of_fold"]) == 0


def test_the_same_command_continues_where_it_stopped(validated, tmp_path, capsys):
    again = tmp_path / "again"
    shutil.copytree(validated, again)
    report = json.loads((again / "cv/eval/out_of_fold.json").read_text())
    first, second = again / "cv/fold_0", again / "cv/fold_1"
    # As if it had been killed in the second fold, after somebody had evaluated the first anew.
    newest = steps(second)[-1]
    shutil.rmtree(second / f"checkpoints/{newest}")
    (second / "finished.json").unlink()
    words = ["--split", "validation", "--checkpoint", str(steps(first)[0])]
    assert main(["evaluate", "--workdir", str(first), *words]) == 0
    trained = (first / "metrics.jsonl").stat().st_mtime_ns
    # The file of groups may move, as long as the folds stay what they are.
    file = (again / "groups.csv").rename(again / "people.csv")
    options = ("--folds", "2", "--groups", str(file))
    capsys.readouterr()
    assert command(again, *options) == 0
    said = capsys.readouterr().out
    assert f"continuing from step {steps(second)[0]} of {newest}" in said
    assert "the early stop would choose by the held-out videos" in said.replace("\n", " ")
    assert (first / "metrics.jsonl").stat().st_mtime_ns == trained
    now = json.loads((again / "cv/eval/out_of_fold.json").read_text())
    assert now | {"groups": None} == report | {"groups": None}
    assert command(again, *options) == 0
    assert capsys.readouterr().out.count("finished before") == 2

    file.write_text(file.read_text().replace("train_00,person0", "train_00,person1"))
    assert command(again, *options) == 2
    assert "holds out other videos than when" in capsys.readouterr().err
    record = json.loads((first / "config.json").read_text())
    record["config"]["data"]["fold_groups"] = str(file)
    (first / "config.json").write_text(json.dumps(record))
    assert main(["evaluate", "--workdir", str(first)]) == 2
    assert "holds out other videos than when" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--folds is missing"),
        (("--folds", "some"), "--folds some: expected a number of folds or abaw"),
        (("--folds", "1"), "config.data.folds=1: expected a whole number from 2"),
        (("--folds", "7"), "7 folds of 6 recordings cannot be cut"),
        (("--folds", "abaw", "--groups", "g.csv"), "takes no groups"),
        (("--folds", "2", "--groups", "nowhere.csv"), "nowhere.csv: no such file"),
        (("--folds", "2", "--config.data.fold=1"), "leave it out"),
        (("--folds", "2", "--config.data.eval_split=test"), "leave it at 'validation'"),
        (("--folds", "2", "--config.train.stages=head"), "config.train.stages"),
        (("--folds", "3"), "belongs to a run with another config: data.fold"),
    ],
)
def test_what_cannot_be_validated_is_refused(validated, words, said, capsys):
    assert command(validated, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_fold_that_nobody_chose_is_refused_elsewhere(validated, tmp_path, capsys):
    words = ["--config", str(validated / "recipe.py"), "--workdir", str(tmp_path / "run")]
    assert main(["train", *words, "--config.data.folds=2"]) == 2
    assert "config.data.folds=2 needs config.data.fold" in capsys.readouterr().err
