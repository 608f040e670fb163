"""Aff-Wild2's expressions and action units, from its folders into a store."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.beam.job import Job, read
from data_prep.corpus.check_video import check_video
from data_prep.corpus.extra_targets import read_extra
from data_prep.corpus.layout import scan
from data_prep.encode import extra_values
from data_prep.imports.features import run
from maven_jax.errors import UserError
from maven_jax.store.schema import ExtraTarget, ModalitySpec
from tests.support.corpora import write_tiny_corpus

EXPR = ExtraTarget("expr", "classes", ("Neutral", "Anger", "Happiness"))
AU = ExtraTarget("au", "binary", ("AU1", "AU2"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two videos of five frames; the expressions of `b` are in the other split's folder."""
    root = tmp_path_factory.mktemp("corpus") / "c"
    write_tiny_corpus(root, {"a": "train", "b": "validation"}, seconds=0.2)
    folder = root / "annotations" / "EXPR_Classification_Challenge"
    for split, rows in (("Train_Set", [0, 1, -1, 2, 0]), ("Validation_Set", [2, 2])):
        (folder / split).mkdir(parents=True)
        name = {"Train_Set": "b", "Validation_Set": "other"}[split]
        text = "Neutral,Anger,Happiness\n" + "".join(f"{row}\n" for row in rows)
        (folder / split / f"{name}.txt").write_text(text)
    units = root / "annotations" / "AU_Detection_Challenge" / "Train_Set"
    units.mkdir(parents=True)
    text = "AU1,AU2\n1,0\n-1,-1\n-1,1\n0,0\n"  # a frame less than the video
    (units / "a.txt").write_text(text)
    return root


def test_a_corpus_has_them_of_its_own_videos_whatever_folder_they_are_in(corpus):
    found = scan(corpus)
    assert {v.name: [name for name, _ in v.extra] for v in found.videos} == {
        "a": ["au"],
        "b": ["expr"],
    }
    notes = [p.message for p in found.problems]
    assert "1 videos without valence and arousal: unused" in notes
    a, b = (check_video(video, corpus) for video in found.videos)
    assert (list(a.extra), list(b.extra)) == ([AU], [EXPR])
    assert any("4 rows for 5 frames: the others are masked" in str(p) for p in a.problems)


def test_features_are_stored_with_them(corpus, tmp_path):
    for video in ("a", "b"):
        (tmp_path / "f" / "m").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "f" / "m" / f"{video}.npy", np.full((5, 2), 0.5))
    store = run(tmp_path / "f", corpus, tmp_path / "s")
    assert store.extra_targets == {"expr": EXPR, "au": AU}
    (a,), (b,) = store.videos("train"), store.videos("validation")
    frames = store.read(a, 0, 5, ("expr", "au"))
    assert frames.masks["au"].tolist() == [True, False, True, True, False]
    assert frames.features["au"][[0, 2]].tolist() == [[1, 0], [-1, 1]]
    assert not frames.masks["expr"].any()
    frames = store.read(b, 0, 5, ("expr",))
    assert frames.features["expr"][:, 0].tolist() == [0, 1, 0, 2, 0]
    assert frames.masks["expr"].tolist() == [True, True, False, True, True]


def test_workers_of_beam_are_told_of_them(corpus, tmp_path):
    checks = [check_video(video, corpus) for video in scan(corpus).videos]
    job = Job(tmp_path / "s", checks, {}, ["visual"], None, 1, [("train", 0)])
    read_back = read(job.write(tmp_path)).checks
    assert [c.extra for c in read_back] == [c.extra for c in checks]
    assert [c.video for c in read_back] == [c.video for c in checks]
    stored = {t.name: ModalitySpec.of_target(t) for t in (EXPR, AU)}
    values = extra_values(read_back[0], stored)
    assert values[EXPR] is None
    units = values[AU]
    assert units is not None
    np.testing.assert_array_equal(np.isnan(units).all(axis=1), [0, 1, 0, 0, 1])


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("0\n1\n", "expr", "line 1: expected a header of labels, found '0'"),
        ("A,B\n0\n2\n", "expr", "line 3: expected 1 whole numbers from -1 to 1, found '2'"),
        ("AU1,AU2\n0,1\n0\n", "au", "line 3: expected 2 whole numbers from -1 to 1, found '0'"),
        ("A,B\n0.5\n", "expr", "line 2: expected 1 whole numbers"),
        ("valence\n0\n", "dominance", "line 1: expected the header dominance, found 'valence'"),
        ("liking\n0\n1.5\n", "liking", "line 3: 1.5 is outside"),
    ],
)
def test_faults_are_named(tmp_path, text, name, message):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_extra(tmp_path / "v.txt", name)
