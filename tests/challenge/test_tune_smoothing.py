"""Widths of box filters: the best by ccc, and what they would gain on recordings not seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from maven_jax.challenge.template import bare_entry
from maven_jax.challenge.tune_smoothing import ccc_of, sums, tune
from maven_jax.errors import UserError
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.smoothing import Smoothing, as_widths, box_filter, read_smoothing
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.files import write_json

WIDTHS = (0, 5, 21, 61, 201)


def noisy_tracks(
    count: int, noise: float, frames: int = 400, seed: int = 0
) -> list[PredictedVideo]:
    """Slow sines, predicted with noise of its own at every frame."""
    rng = np.random.default_rng(seed)
    tracks = []
    for i in range(count):
        at = np.arange(frames)[:, None] / 60 + rng.uniform(0, 6, 2)
        targets = (0.6 * np.sin(at)).astype(np.float32)
        predictions = np.clip(targets + noise * rng.normal(size=targets.shape), -1, 1)
        mask = rng.random(frames) < 0.9
        tracks.append(
            PredictedVideo(
                bare_entry(f"v{i}", frames, int(mask.sum())),
                predictions.astype(np.float32),
                np.where(mask[:, None], targets, 0),
                mask,
            )
        )
    return tracks


def test_scores_are_those_of_the_smoothed_tracks():
    tracks = noisy_tracks(3, 0.3)
    for dimension, key in enumerate(("ccc_valence", "ccc_arousal")):
        found = ccc_of(sums(tracks, dimension, WIDTHS).sum(1))
        for width, value in zip(WIDTHS, found):
            smooth = [
                dataclasses.replace(t, predictions=box_filter(t.predictions, (width, width)))
                for t in tracks
            ]
            assert value == pytest.approx(score(smooth)[0][key], abs=1e-5)


def test_noise_wants_a_filter_and_none_does_not():
    noisy = tune(noisy_tracks(4, 0.4), 0, WIDTHS, ["a", "b", "c", "d"])
    assert 0 < noisy.width < 201  # the sines' period is 377 frames
    assert noisy.raw < noisy.cross_validated
    exact = tune(noisy_tracks(4, 0.0), 1, WIDTHS, ["a", "b", "c", "d"])
    assert exact.width == 0
    assert exact.cross_validated == pytest.approx(1.0, abs=1e-6)


def test_a_recording_does_not_choose_for_itself():
    """Three quiet recordings and one noisy one: alone it would take 21, the others leave it raw."""
    tracks = [*noisy_tracks(3, 0.0), *noisy_tracks(1, 0.4, seed=5)]
    tuned = tune(tracks, 0, WIDTHS, ["a", "b", "c", "d"])
    assert tuned.chosen[0] == 1
    held = ccc_of(sums(tracks, 0, WIDTHS))
    assert held[2, 3] > held[0, 3]
    # Two faces of one recording stay together: nothing is left to choose by.
    assert np.isnan(tune(tracks[2:], 0, WIDTHS, ["c", "c"]).cross_validated)


def test_cross_validation_is_what_leaving_out_by_hand_gives():
    tracks = [*noisy_tracks(3, 0.3), *noisy_tracks(2, 0.05, seed=3)]
    kept = []
    for i in range(5):
        others = [t for j, t in enumerate(tracks) if j != i]
        scores = [
            score(
                [
                    dataclasses.replace(t, predictions=box_filter(t.predictions, (w, w)))
                    for t in others
                ]
            )[0]["ccc_arousal"]
            for w in WIDTHS
        ]
        best = WIDTHS[int(np.argmax(scores))]
        kept.append(
            dataclasses.replace(
                tracks[i], predictions=box_filter(tracks[i].predictions, (best, best))
            )
        )
    wanted = score(kept)[0]["ccc_arousal"]
    found = tune(tracks, 1, WIDTHS, names_of(5)).cross_validated
    assert found == pytest.approx(wanted, abs=1e-5)


def names_of(count: int) -> list[str]:
    return [f"r{i}" for i in range(count)]


def test_of_equal_widths_the_smallest_is_taken_and_a_constant_scores_nothing():
    (track,) = noisy_tracks(1, 0.0)
    flat = dataclasses.replace(track, predictions=np.full_like(track.predictions, 0.3))
    tuned = tune([flat, flat], 0, WIDTHS, ["a", "b"])
    assert tuned.width == 0
    assert abs(tuned.cross_validated) < 1e-9


def test_widths_of_a_workdir_say_what_they_were_chosen_by(tmp_path):
    assert read_smoothing(tmp_path) is None
    for text, reason in (
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        ('{"valence": 3}', "expected two numbers of frames"),
        ('{"valence": 3, "arousal": -1}', "expected two numbers of frames"),
        ('{"valence": true, "arousal": 1}', "expected two numbers of frames"),
        ('{"valence": 3, "arousal": 0, "step": 1}', "does not say by which step, split and store"),
    ):
        (tmp_path / "smoothing.json").write_text(text)
        with pytest.raises(UserError, match=reason):
            read_smoothing(tmp_path)
    tuned = Smoothing((3, 0), 12, "validation", "abc")
    write_json(tmp_path / "smoothing.json", tuned.to_json() | {"scores": {}})
    assert read_smoothing(tmp_path) == tuned
    assert as_widths([20, 50], "here") == (20, 50)
