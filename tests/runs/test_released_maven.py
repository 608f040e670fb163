"""MAVEN's released checkpoints: same outputs here as in PyTorch, and `evaluate` opens them."""

import csv
import json

import numpy as np
import pytest
import torch

from maven_jax.__main__ import main
from tests.support import reference_maven as reference
from tests.support.released import convert, predict, save, with_random_weights
from tests.support.stores import write_small_store

WIDTHS = {"visual": 1024, "audio": 768, "text": 768}


@pytest.fixture(scope="module")
def released_mlp():
    return with_random_weights(reference.ReleasedMlp())


@pytest.fixture(scope="module")
def converted_mlp(released_mlp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlp")
    out = folder / "converted"
    # A small batch makes a test of `evaluate` short.
    more = "--config.eval.batch_size=3"
    assert convert("maven-mlp", save(released_mlp, folder / "best_model.pth"), out, more) == 0
    return out


def released_features(batch=2, frames=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        "visual": torch.randn(batch, frames, 1024, generator=generator),
        "audio": torch.randn(batch, 1, 768, generator=generator),
        "text": torch.randn(batch, 1, 768, generator=generator),
    }


@torch.no_grad()
def outputs(network, features):
    there = {"video": features["visual"], "audio": features["audio"], "text": features["text"]}
    return network(there).numpy()


def from_angle_first(polar):
    angle, intensity = polar[..., 0], polar[..., 1]
    return np.stack([intensity * np.cos(angle), intensity * np.sin(angle)], axis=-1)


def test_the_mlp_gives_what_it_gives_in_torch(released_mlp, converted_mlp):
    features = released_features()
    expected = outputs(released_mlp, features)
    prediction = predict(converted_mlp, features)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(prediction.polar, expected[..., ::-1], atol=1e-5)
    np.testing.assert_allclose(prediction.va, from_angle_first(expected), atol=1e-5)


def small_beit():
    """Of full width, with two layers of three instead of twelve of twelve heads."""
    network = reference.ReleasedBeit(layers=2, mlp_dim=96, num_heads=3)
    sizes = {"beit_layers": 2, "beit_heads": 3, "beit_mlp_dim": 96}
    return network, [f"--config.model.{key}={value}" for key, value in sizes.items()]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(small_beit, id="small"),
        pytest.param(lambda: (reference.ReleasedBeit(), []), id="full", marks=pytest.mark.slow),
    ],
)
def test_the_beit_gives_what_it_gives_in_torch(make, tmp_path):
    network, changes = make()
    network = with_random_weights(network)
    out = tmp_path / "converted"
    assert convert("maven-beit", save(network, tmp_path / "model.pth"), out, *changes) == 0
    features = released_features(batch=1, frames=5)
    expected = outputs(network, features)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(predict(out, features).va, expected, atol=1e-5)


def test_evaluate_opens_the_workdir(released_mlp, converted_mlp, tmp_path, capsys):
    store = write_small_store(
        tmp_path / "store", videos=1, frames=130, modalities=WIDTHS, unobserved=0, unannotated=0
    )
    arguments = ["--workdir", str(converted_mlp), "--store", str(store.path)]
    assert main(["evaluate", *arguments, "--split", "validation"]) == 0
    # Each window by itself, in the release.
    assert "standardised by" not in capsys.readouterr().out
    scores = json.loads((converted_mlp / "eval" / "validation.json").read_text())
    assert scores["num_frames"] == 130
    assert scores["step"] == 0

    (entry,) = store.videos("validation")
    frames = store.read(entry, 0, entry.num_frames, tuple(WIDTHS))
    predicted = []
    for start, stop in entry.segments:
        x = {m: torch.from_numpy(frames.features[m][start:stop].astype(np.float32)) for m in WIDTHS}
        # At 25 frames a second: the segment's first second of sound, all of its words. A store's
        # vectors are float16, their mean too.
        x["audio"] = x["audio"][:25].mean(0, keepdim=True).half().float()
        x["text"] = x["text"].mean(0, keepdim=True).half().float()
        x = {m: ((v - v.mean()) / v.std(correction=0))[None] for m, v in x.items()}
        predicted.append(from_angle_first(outputs(released_mlp, x))[0])
    expected = np.concatenate(predicted)
    with (converted_mlp / "eval" / "validation" / f"{entry.video}.csv").open() as file:
        rows = list(csv.DictReader(file))
    written = np.array([[row["valence"], row["arousal"]] for row in rows], float)
    np.testing.assert_allclose(written, expected.clip(-1, 1), atol=2e-5)
