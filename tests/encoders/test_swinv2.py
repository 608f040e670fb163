"""Swin V2 against transformers' torch model."""

import jax
import numpy as np
import pytest
import torch
import transformers

from maven_jax.encoders.swinv2 import Swinv2Config
from maven_jax.errors import UserError

TINY = {"image_size": 32, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
BASE = {
    "image_size": 256,
    "embed_dim": 128,
    "depths": [2, 2, 18, 2],
    "num_heads": [4, 8, 16, 32],
    "window_size": 8,
}
# Compiling takes longer than running here.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [
        # Grids of 10 and 5 patches: windows are padded and shifted, also as trained before.
        pytest.param(
            TINY | {"image_size": 40, "depths": [2, 1], "pretrained_window_sizes": [0, 3]},
            0.3,
            id="padded",
        ),
        # Grids of 6 and 3 patches: both are one window.
        pytest.param(
            TINY | {"image_size": 24, "window_size": 6, "depths": [1, 1]}, 0.3, id="one window"
        ),
        pytest.param(BASE, 0.01, id="large", marks=pytest.mark.slow),
    ],
)
def test_parity(saved, difference, rng, sizes, scale):
    model = transformers.Swinv2Model(transformers.Swinv2Config(**sizes))
    encoder = saved(model, scale)
    assert (encoder.kind, encoder.unused, encoder.missing) == ("swinv2", [], [])
    side = sizes["image_size"]
    pixels = rng.normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(pixels.transpose(0, 3, 1, 2)))
    apply = jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)
    ours = apply(encoder.variables, pixels)
    found = difference(ours.last_hidden_state, expected.last_hidden_state)
    print(f"Swin V2 {sizes['embed_dim']}: {found:.1e}")
    assert found < 1e-4
    assert difference(ours.mean, expected.pooler_output) < 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_absolute_embeddings": True}, "use_absolute_embeddings is true"),
        ({"pretrained_window_sizes": [8]}, "expected one for each of 2 stages"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Swinv2Config.from_hf(TINY | changes)
