"""Videos and texts of all lengths go through a few compiled programs."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.corpus.check import check
from data_prep.corpus.layout import scan
from maven_jax import recipes
from maven_jax.features.device import Clock
from maven_jax.features.reader import Encoders, RecordingReader, open_encoders
from maven_jax.features.text import TextEncoder
from maven_jax.media.transcripts import Segment
from tests.support import corpora
from tests.support.compilations import counted


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    config = recipes.load("tiny", group="encoders")
    # Sizes at which the lengths below reach every bucket.
    config.visual.batch_size, config.audio.chunk_s, config.audio.overlap_s = 16, 1.0, 0.2
    return open_encoders(config, ("visual", "audio", "text"), workers=2)


def frames_of(encoders: Encoders, root) -> int:
    (found,) = check(scan(root)).checks
    return sum(len(block) for block in RecordingReader(found.recording, encoders, Clock()).blocks())


def test_videos_of_other_lengths_compile_nothing_more(encoders, tmp_path):
    def video(seconds: float):
        folder = tmp_path / f"{seconds}"
        return corpora.write_tiny_corpus(folder, {"one": "train"}, seconds=seconds)

    with counted() as found:
        for seconds in (0.4, 0.8, 1.6):
            frames_of(encoders, video(seconds))
    config = recipes.load("tiny", group="encoders")
    # Crops: their batches. Sound: batches of whole chunks, or one chunk of each length.
    visual, audio = config.visual.batch_buckets, 2 * config.audio.batch_buckets
    assert 3 <= found["compiled"] <= visual + audio + config.text.length_buckets
    others = {seconds: video(seconds) for seconds in (0.48, 1.0, 1.24, 2.0)}
    with counted() as more:
        for seconds, root in others.items():
            assert frames_of(encoders, root) == round(seconds * 25)
    assert more == {"traced": 0, "compiled": 0}


def test_texts_of_all_lengths_share_as_many_programs_as_there_are_buckets(encoders):
    text = encoders.text
    assert isinstance(text, TextEncoder)
    buckets = recipes.load("tiny", group="encoders").text.length_buckets
    with counted() as found:
        for words in range(1, 40):
            track = text.encode([Segment(0.0, 1.0, "good " * words)], Clock())
            values, mask, _ = track.at(np.array([0.5]))
            assert mask.all()
            assert np.isfinite(values).all()
    assert found["compiled"] <= buckets
