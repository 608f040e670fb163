"""What annotation programs get, opened by parsers that are not ours."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

from maven_jax.video.prediction import Word
from maven_jax.video.show.exports import WRITERS
from tests.support.predictions import HOSTILE, beside, prediction_of, stepped, without_frames


@pytest.fixture
def prediction(tmp_path):
    """Ten seconds whose valence falls at 2.5 s; words that overlap, one of which is hostile."""
    words = (Word(0.5, 2.0, "so"), Word(1.5, 1.8, HOSTILE), Word(9.5, 12.0, '\x07日本 "q"'))
    source = tmp_path / "clip one.mp4"
    source.write_bytes(b"")
    return dataclasses.replace(
        stepped(), source=source, words=words, label="untrained, all of it", extra=beside(240)
    )


def written(prediction, kind, folder):
    end, write = WRITERS[kind]
    write(prediction, folder / f"clip{end}")
    return folder / f"clip{end}"


def test_elan_gets_tiers_of_seconds_and_words(prediction, tmp_path):
    pympi = pytest.importorskip("pympi", reason="pip install pympi-ling")
    eaf = pympi.Elan.Eaf(str(written(prediction, "elan", tmp_path)))
    tiers = ["valence", "arousal", "dominance", "expr", "words", "note"]
    assert list(eaf.get_tier_names()) == tiers
    assert eaf.get_annotation_data_for_tier("dominance")[9] == (9000, 10000, "+0.90")
    said = [text for _, _, text in eaf.get_annotation_data_for_tier("expr")]
    assert said == ["Calm"] * 8 + ["=Happy"] * 2
    valence = eaf.get_annotation_data_for_tier("valence")
    assert valence[0] == (0, 1000, "+0.80")
    assert valence[2] == (2000, 3000, "+0.10")  # half of it before the step, half behind
    assert valence[9] == (9000, 10000, "-0.60")
    spoken = eaf.get_annotation_data_for_tier("words")
    assert spoken == [
        (500, 1500, "so"),
        (1500, 1800, HOSTILE),
        (9500, 10000, '\ufffd日本 "q"'),
    ]
    assert eaf.get_annotation_data_for_tier("note") == [(0, 10000, prediction.label)]
    (media,) = eaf.get_linked_files()
    assert media["MEDIA_URL"].endswith("/clip%20one.mp4")


def test_praat_gets_the_same_without_gaps(prediction, tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid", reason="pip install praatio")
    path = written(prediction, "textgrid", tmp_path)
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    assert grid.tierNames == ("valence", "arousal", "dominance", "expr", "words", "note")
    assert grid.maxTimestamp == 10
    words = grid.getTier("words").entries
    assert [tuple(entry) for entry in words][:4] == [
        (0, 0.5, ""),
        (0.5, 1.5, "so"),
        (1.5, 1.8, HOSTILE.replace("\n", " ")),
        (1.8, 9.5, ""),
    ]
    for before, after in itertools.pairwise(words):
        assert before.end == after.start
    assert grid.getTier("arousal").entries[0].label == "+0.30"


def test_boris_gets_states_that_end_and_words_as_points(prediction, tmp_path):
    project = json.loads(written(prediction, "boris", tmp_path).read_text())
    (observation,) = project["observations"].values()
    kinds = {b["code"]: b["type"] for b in project["behaviors_conf"].values()}
    events = [(time_s, code) for time_s, _, code, _, _ in observation["events"]]
    assert events == sorted(events, key=lambda event: event[0])
    for code, kind in kinds.items():
        times = [t for t, c in events if c == code]
        assert kind == "Point event" or len(times) % 2 == 0
    # The second of the step is positive on the whole.
    assert [t for t, c in events if c == "positive active"] == [0, 3]
    assert [t for t, c in events if c == "negative passive"] == [7, 10]
    assert next(e[4] for e in observation["events"] if e[2] == "word") == "so"
    (media,) = observation["file"]["1"]
    assert media == str(prediction.source)
    assert observation["media_info"]["length"][media] == 10


@pytest.mark.parametrize("kind", WRITERS)
def test_odd_predictions_are_exported(kind, tmp_path):
    whole = prediction_of(hostile=True)
    nothing = np.full_like(whole.va, np.nan)
    for odd in (
        without_frames(whole, 0),
        without_frames(whole, 1),
        dataclasses.replace(whole, va=nothing, smoothed=nothing, words=(), source=tmp_path),
        dataclasses.replace(whole, name="caf\udce9", words=(Word(0.0, 1.0, "caf\udce9"),)),
    ):
        assert written(odd, kind, tmp_path).stat().st_size > 100
