"""A headless Chromium for the pages that the library writes; a clip and a network to predict it."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.synth.plan import plan_corpus
from data_prep.synth.scene import direct, draw_frame
from maven_jax.encoders.mini_xception import MiniXceptionConfig
from tests.support import corpora
from tests.support.browsed import driven
from tests.support.reference_mini_xception import write_keras


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A driver of a Chromium with a new profile, which keeps console and network in its logs."""
    with driven(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def portraits():
    """Twelve pictures of a drawn face, 25 a second."""
    media = next(m for m in plan_corpus(8, 0) if len(m.cast) == 1)
    scene = direct(media, 1.0, 0)
    shots = scene.shots(np.arange(12) / 25)
    images = [draw_frame(scene, shots, i, np.zeros(1, bool))[:, :, ::-1] for i in range(12)]
    return [np.ascontiguousarray(image) for image in images]


@pytest.fixture(scope="module")
def clip(portraits, tmp_path_factory):
    """A video of them."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    corpora.write_video(path, frames=12, fps=25, images=portraits)
    return path


@pytest.fixture(scope="module")
def own_recipes(tmp_path_factory):
    """A set whose first network is a small one with random weights, in a Keras file."""
    folder = tmp_path_factory.mktemp("recipes")
    sizes = {"image_size": 20, "stem_dims": (4, 4), "widths": (8,)}
    write_keras(folder / "net.hdf5", MiniXceptionConfig(**sizes), seed=3)
    (folder / "net.py").write_text(
        "from maven_jax import recipes\n"
        "def get_config(arg=''):\n"
        "    c = recipes.load('mini_xception', 'affect')\n"
        f"    c.encoder.update({{'resize': 20, 'crop': 20, 'batch_buckets': 1, 'batch_size': 8}})\n"
        f"    with c.unlocked(): c.encoder.model = {sizes!r}\n"
        "    c.weights.files.hdf5.sha256 = ''\n"
        "    c.weights.files.hdf5.bytes = 0\n"
        "    c.weights.package = ''\n"
        "    return c\n"
    )
    (folder / "set.py").write_text(
        "from maven_jax import recipes\n"
        "def get_config(arg=''):\n"
        "    c = recipes.load('default', 'affect')\n"
        f"    c.models.visual = ({str(folder / 'net.py')!r}, 'mini_xception')\n"
        "    return c\n"
    )
    return folder
