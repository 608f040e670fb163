"""What a store's float16 can hold, and what is refused because it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.store.schema import ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter
from tests.store.test_writer import frames_of, open_writer


def store(folder, values):
    """Stores the features (30, 3) of a video in two blocks; returns the writer."""
    writer = open_writer(folder)
    parts = (values[:20], values[20:])
    with writer.video("one", 1.0, 1.0) as video:
        for i, part in enumerate(parts):
            frames = frames_of(len(part), features={"m": part})
            frames.time_s[:] = 100 * i + np.arange(len(part))
            video.append(frames)
    return writer


@pytest.mark.parametrize("scale", [1e-8, 1e-6, 1e-300])
def test_values_that_float16_would_round_to_nothing_are_refused(tmp_path, scale):
    values = scale * np.random.default_rng(0).uniform(-1, 1, (30, 3))
    with pytest.raises(UserError, match=r"'one', m: .*% of its values are below 9\.5e-07.*scale"):
        store(tmp_path, values)
    assert not open_writer(tmp_path).is_done("one")


def test_some_tiny_values_among_others_pass(tmp_path):
    values = np.random.default_rng(0).uniform(-1, 1, (30, 3))
    values[:, 0] *= 1e-8  # a channel that is all but dead
    values[:9] = 0
    values[9:12] *= 1e-30
    assert store(tmp_path, values).is_done("one")


def test_zeros_alone_pass(tmp_path):
    assert store(tmp_path, np.zeros((30, 3))).is_done("one")


def test_of_many_videos_none_is_looked_at_more_than_a_few_times(tmp_path, monkeypatch):
    names = [f"v{i}" for i in range(40)]
    writer = StoreWriter(
        tmp_path,
        videos=[PlannedVideo(name, "train", 1, name) for name in names],
        modalities={"m": ModalitySpec("m", 3, {})},
        provenance={},
    )
    looks, plain = [], StoreWriter.is_done
    monkeypatch.setattr(StoreWriter, "is_done", lambda s, v: looks.append(v) or plain(s, v))
    for name in names:
        with writer.video(name, 1.0, 1.0) as video:
            video.append(frames_of(1, features={"m": np.ones((1, 3))}))
    assert len(writer.finish().videos("train")) == len(names)
    assert len(looks) < 5 * len(names)
