"""Each published system, in small, goes out as a bundle and a program and comes back the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from maven_jax import recipes
from maven_jax.runs.bundle import Bundle, arrays_of, write_bundle
from maven_jax.runs.export import _noise, largest_difference
from maven_jax.runs.model_card import model_card
from maven_jax.runs.program import export_program, open_program
from maven_jax.runs.trained_model import TrainedModel, open_model
from maven_jax.runs.training_data import TrainingData
from maven_jax.state import Weights
from maven_jax.store.schema import ModalitySpec

WINDOW = {"data.window.length": 20, "data.window.hop": 20, "eval.hop": 20}
SYSTEMS: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "maven": (
        {"visual": 16, "audio": 12, "text": 8},
        WINDOW
        | {
            "model.embed_dim": 16,
            "model.num_heads": 2,
            "model.refine_dim": 16,
            "model.beit_layers": 1,
            "model.beit_heads": 2,
            "model.beit_mlp_dim": 32,
            "model.head_dims": "16,8",
            "model.dtype": "float32",
        },
    ),
    "rjca": (
        {"visual": 32, "audio": 12},
        {
            "model.positions": 2,
            "model.lstm_dim": 16,
            "model.joint_lstm_dim": 16,
            "model.attention_dim": 8,
            "model.head_dim": 16,
        },
    ),
    "rjcma": (
        {"visual": 16, "audio": 12, "text": 8},
        WINDOW
        | {
            "model.channels.visual": "16,16",
            "model.channels.audio": "16,16",
            "model.channels.text": "16,16",
            "model.joint_dim": 32,
            "model.attention_dim": 8,
            "model.head_dim": 16,
        },
    ),
}


def untrained(name: str) -> TrainedModel:
    """A small model of a system with weights that nobody trained."""
    widths, values = SYSTEMS[name]
    config = recipes.load(name)
    recipes.override(config, [f"--config.{k}={v}" for k, v in values.items()])
    if name == "rjcma":
        with config.unlocked():
            config.model.extra_targets = {"expr": {"kind": "classes", "labels": ("Calm", "Happy")}}
    rng = np.random.default_rng(0)
    model = TrainedModel(
        source=Path("nowhere"),
        config=config,
        trained_on=TrainingData(
            modalities={m: ModalitySpec(m, dim, {"encoder": "own"}) for m, dim in widths.items()},
            encoders={},
            target_mean=(0.2, 0.1),
            splits={"train": {"videos": 3, "frames": 90, "annotated": 80}},
        ),
        weights=Weights({}, {}, None),  # pyright: ignore[reportArgumentType]
        step=0,
        scores={},
        calibration=None,
        record={},
    )
    shapes = model._abstract_weights()
    weights = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(x.dtype), shapes)
    small = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), shapes.params)
    return TrainedModel(**(vars(model) | {"weights": weights.replace(params=small)})).check()


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_goes_out_and_comes_back_with_its_label(name, tmp_path):
    model = untrained(name)
    program, free = export_program(model, ("cpu",))
    parts = Bundle(
        folder=tmp_path / "bundle",
        config=model.config,
        trained_on=model.trained_on,
        arrays=arrays_of(model.weights),
        step=model.step,
        scores={},
        calibration=None,
        record={},
    )

    def card(found) -> str:
        return model_card(model, found, licence=None, platforms=("cpu",), free_batch=free)

    write_bundle(parts, card, program)
    assert largest_difference(model, parts.folder, program=True) < 1e-5
    assert np.std(np.asarray(jax.jit(model.function())(model.weights, _noise(model)))) > 1e-4
    again = open_model(parts.folder)
    extra = ["expr_Calm", "expr_Happy"] if name == "rjcma" else []
    assert list(open_program(parts.folder).outputs) == ["valence", "arousal", *extra]
    outputs = json.loads((parts.folder / "bundle.json").read_text())["outputs"]
    assert outputs == list(again.outputs) == ["valence", "arousal", *extra]
    assert again.label == "untrained weights"
    written = (parts.folder / "MODEL_CARD.md").read_text()
    assert "**Means nothing for people: untrained weights.**" in written
    assert "| train | 3 | 90 | 80 |" in written
    assert "not stated by who exported them" in written
