"""Features made elsewhere, from NumPy files to a score, by the commands a user types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maven_jax.__main__ import main

RATES_HZ = {"eeg": 10.0, "gaze": 25.0}


def curve(time_s: np.ndarray, phase: np.ndarray) -> np.ndarray:
    return 0.5 * np.sin(0.9 * time_s + phase[0]) + 0.3 * np.sin(0.37 * time_s + phase[1])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Annotations at 10 Hz in CSV, and two modalities that show one dimension each."""
    root = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    mixing = {"eeg": rng.normal(size=12), "gaze": rng.normal(size=5)}
    for split, count in (("train", 8), ("validation", 3)):
        for i in range(count):
            time_s = np.arange(300) / 10
            phases = rng.uniform(0, 6, (2, 2))
            targets = np.stack([curve(time_s, phase) for phase in phases], 1)
            folder = root / "annotations" / split
            folder.mkdir(parents=True, exist_ok=True)
            rows = "\n".join(f"{t:.2f},{v:.5f},{a:.5f}" for t, (v, a) in zip(time_s, targets))
            (folder / f"{split}{i}.csv").write_text("time_s,valence,arousal\n" + rows + "\n")
            for dimension, (name, hz) in enumerate(RATES_HZ.items()):
                t = np.arange(int(30 * hz)) / hz
                shown = curve(t, phases[dimension])[:, None] * mixing[name]
                values = shown + 0.2 * rng.normal(size=shown.shape)
                (root / "features" / name).mkdir(parents=True, exist_ok=True)
                np.save(root / "features" / name / f"{split}{i}.npy", values.astype(np.float32))
    return root


def train(corpus: Path, name: str, *more: str) -> dict:
    workdir = corpus / name.replace(":", "_")
    arguments = ["--config", name, "--workdir", str(workdir), *more]
    arguments += [f"--config.data.store={corpus / 'store'}", "--config.data.window.length=50"]
    assert main(["train", *arguments, "--config.data.window.hop=50"]) == 0
    return json.loads((workdir / "eval/validation.json").read_text())


@pytest.mark.slow
def test_imported_features_train_and_score(corpus, capsys):
    rates = [f"--rate={name}={hz:g}" for name, hz in RATES_HZ.items()]
    where = ["--features", str(corpus / "features"), "--root", str(corpus)]
    assert main(["prepare", *where, "--out", str(corpus / "store"), *rates]) == 0
    narrow = ["--config.model.embed_dim=16", "--config.optimizer.learning_rate=0.01"]
    scores = train(corpus, "features:concat", *narrow, "--config.train.num_epochs=30")
    assert scores["modalities"] == ["eeg", "gaze"]
    assert scores["num_frames"] == 3 * 300
    assert scores["ccc_valence"] > 0.6
    assert scores["ccc_arousal"] > 0.6

    constant = train(corpus, "features:mean", "--config.train.num_epochs=1")
    assert [constant[k] for k in ("ccc", "ccc_valence", "ccc_arousal", "ccc_video_mean")] == [0] * 4

    runs = [str(corpus / "features_concat"), str(corpus / "features_mean")]
    capsys.readouterr()
    assert main(["compare", *runs]) == 0
    table = capsys.readouterr().out
    assert f"{scores['ccc']:.3f}" in table
    assert "0.000" in table
