"""ConvNeXt against transformers' torch model, and its image processor."""

import jax
import numpy as np
import pytest
import torch
import transformers

from maven_jax.encoders.convnext import ConvNextConfig
from maven_jax.errors import UserError
from maven_jax.features.image_preprocessor import ImagePreprocessor

TINY = {"image_size": 32, "hidden_sizes": [8, 12], "depths": [1, 2], "num_stages": 2}


@pytest.mark.parametrize(
    ("changes", "side"),
    [({}, 32), ({"layer_scale_init_value": 0.0, "hidden_act": "gelu_new"}, 44)],
)
def test_parity_tiny(saved, difference, rng, changes, side):
    model = transformers.ConvNextModel(transformers.ConvNextConfig(**TINY | changes))
    encoder = saved(model, 0.3)
    pixels = rng.normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(pixels.transpose(0, 3, 1, 2)))
    ours = jax.jit(encoder.module.apply)({"params": encoder.params}, pixels)
    assert difference(ours.pooled, expected.pooler_output) < 1e-4
    last = expected.last_hidden_state.flatten(2).transpose(1, 2)
    assert difference(ours.last_hidden_state, last) < 1e-4
    assert encoder.unused == []
    assert encoder.missing == []


@pytest.mark.slow
def test_parity_base(saved, difference, rng):
    sizes = {"hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3]}
    model = transformers.ConvNextModel(transformers.ConvNextConfig(**sizes))
    encoder = saved(model, 0.01)
    pixels = rng.normal(size=(1, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(pixels.transpose(0, 3, 1, 2)))
    ours = jax.jit(encoder.module.apply)({"params": encoder.params}, pixels)
    assert difference(ours.pooled, expected.pooler_output) < 1e-4


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"depths .* and hidden_sizes .* differ in length"):
        ConvNextConfig.from_hf({"depths": [1], "hidden_sizes": [8, 16]})


def test_its_processor_crops_small_pictures_and_no_large_ones():
    small = ImagePreprocessor({"size": {"shortest_edge": 224}, "crop_pct": 0.875})
    assert (small.settings["shortest_edge"], small.height) == (256, 224)
    large = ImagePreprocessor({"size": {"shortest_edge": 384}, "crop_pct": 0.875})
    assert (large.settings.get("shortest_edge"), large.width) == (None, 384)
