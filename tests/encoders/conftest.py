"""Reference models with random weights, saved as users have them."""

import numpy as np
import pytest
import torch

from maven_jax.convert.huggingface import load_encoder


def randomise(model: torch.nn.Module, scale: float = 0.1) -> torch.nn.Module:
    """Moves every parameter off its start value: no bias stays 0, no norm's scale 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


@pytest.fixture
def saved(tmp_path):
    """(torch model, scale) -> our encoder, by way of a checkpoint on disk."""

    def save(model, scale=0.1, **options):
        randomise(model, scale).save_pretrained(tmp_path / "model")
        return load_encoder(tmp_path / "model", **options)

    return save


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def difference():
    """Largest absolute difference of two arrays of the same shape."""

    def of(ours, reference) -> float:
        if isinstance(reference, torch.Tensor):
            reference = reference.detach().numpy()
        ours = np.asarray(ours, np.float64)
        assert ours.shape == reference.shape
        assert np.isfinite(ours).all()
        return float(np.abs(ours - reference).max())

    return of
