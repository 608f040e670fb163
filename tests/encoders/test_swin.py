"""Swin against transformers' torch model, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from maven_jax.convert.huggingface import random_encoder
from maven_jax.encoders.swin import SwinConfig
from maven_jax.errors import UserError
from maven_jax.kernels import by_window

TINY = {"image_size": 32, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}


# Compiling takes longer than running here.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def run(encoder, pixels):
    apply = jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)
    return apply({"params": encoder.params}, pixels)


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({}, 32),
        # Grids of 9 and 5 patches: windows are padded, shifted, and patch merging pads too.
        ({"image_size": 36, "use_absolute_embeddings": True}, 36),
        ({"qkv_bias": False, "mlp_ratio": 2.5, "hidden_act": "gelu_new"}, 32),
        ({"depths": [1, 3, 2], "num_heads": [1, 2, 4], "window_size": 3}, 50),
    ],
)
def test_parity_tiny(saved, difference, rng, changes, side):
    model = transformers.SwinModel(transformers.SwinConfig(**TINY | changes))
    encoder = saved(model, 0.3)
    pixels = rng.normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(pixels.transpose(0, 3, 1, 2)))
    ours = run(encoder, pixels)
    assert difference(ours.last_hidden_state, expected.last_hidden_state) < 1e-4
    assert difference(ours.pooled, expected.pooler_output) < 1e-4
    assert encoder.unused == []
    assert encoder.missing == []


@pytest.mark.slow
def test_parity_base(saved, difference, rng):
    config = transformers.SwinConfig(
        embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=7
    )
    model = transformers.SwinModel(config)
    encoder = saved(model, 0.01)
    pixels = rng.normal(size=(1, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(pixels.transpose(0, 3, 1, 2)))
    ours = run(encoder, pixels)
    assert ours.pooled.shape == (1, 1024)
    assert difference(ours.last_hidden_state, expected.last_hidden_state) < 1e-4
    assert difference(ours.pooled, expected.pooler_output) < 1e-4


def test_bfloat16_is_close(rng):
    pixels = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    exact = run(random_encoder("swin", TINY, 0), pixels).pooled
    half = run(random_encoder("swin", TINY, 0, jnp.bfloat16), pixels).pooled
    assert half.dtype == jnp.float32
    gap = np.abs(np.asarray(half) - np.asarray(exact)).max()
    assert 0 < gap < 0.1
    assert np.corrcoef(half.ravel(), exact.ravel())[0, 1] > 0.99


def test_grid_smaller_than_the_window_is_one_window(rng):
    encoder = random_encoder("swin", TINY | {"window_size": 7}, 0)
    pixels = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    pooled = run(encoder, pixels).pooled
    assert pooled.shape == (2, 16)
    assert np.isfinite(pooled).all()


def test_images_of_a_batch_do_not_mix(rng):
    encoder = random_encoder("swin", TINY, 0)
    pixels = rng.normal(size=(3, 32, 32, 3)).astype(np.float32)
    together = run(encoder, pixels).pooled
    np.testing.assert_allclose(together[1:2], run(encoder, pixels[1:2]).pooled, atol=1e-5)


def test_many_images_in_parts_are_what_they_are_alone(rng, monkeypatch):
    monkeypatch.setattr(by_window, "CACHE_BYTES", 0)
    encoder = random_encoder("swin", TINY, 0)
    pixels = rng.normal(size=(12, 32, 32, 3)).astype(np.float32)
    together = run(encoder, pixels)
    pairs = [run(encoder, pixels[i : i + 2]) for i in range(0, 12, 2)]
    for name in ("last_hidden_state", "pooled"):
        alone = np.concatenate([getattr(pair, name) for pair in pairs])
        np.testing.assert_allclose(getattr(together, name), alone, atol=1e-5)


def test_absolute_embeddings_refuse_other_image_sizes():
    encoder = random_encoder("swin", TINY | {"use_absolute_embeddings": True}, 0)
    with pytest.raises(ValueError, match="32×32"):
        encoder.module.apply({"params": encoder.params}, jnp.zeros((1, 40, 32, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": [2]}, "differ in length"),
        ({"num_heads": [3, 4]}, r"num_heads\[0\] 3 does not divide the width 8"),
        ({"depths": "2,2"}, "depths is '2,2', expected a list of whole numbers"),
        ({"hidden_act": "snake"}, "unknown activation 'snake'"),
        ({"embed_dim": 8.5}, "embed_dim is 8.5, expected a whole number"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        SwinConfig.from_hf(TINY | changes)
