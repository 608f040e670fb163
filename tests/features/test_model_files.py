"""Encoders of RJCA and RJCMA from the folders that `maven-jax convert` makes."""

import jax
import numpy as np
import pytest

from maven_jax import recipes
from maven_jax.convert.huggingface import random_encoder
from maven_jax.convert.native import save_encoder
from maven_jax.errors import UserError
from maven_jax.features.reader import open_encoders

SHA256 = "12" * 32
CASES = [
    ("rjcma", "visual", "iresnet50"),
    ("rjcma", "audio", "vggish"),
    ("rjca", "visual", "r2plus1d"),
    ("rjca", "audio", "audio_resnet18"),
]


@pytest.mark.parametrize(("recipe", "modality", "kind"), CASES)
def test_a_converted_folder_is_a_source(recipe, modality, kind, tmp_path):
    """The published recipe, its source set: only the network is smaller here."""
    model = recipes.load(f"{recipe}:tiny", group="encoders")[modality].model.to_dict()
    made = random_encoder(kind, model, 3)
    folder = tmp_path / "encoder"
    save_encoder(folder, kind, model, made.params, made.state, source="released.pt", sha256=SHA256)
    config = recipes.load(recipe, group="encoders")
    config[modality].source = str(folder)
    encoders = open_encoders(config, (modality,), 1)
    (encoder,) = encoders.present().values()
    specs = encoders.specs()[modality]
    assert specs.spec["encoder"] == kind
    assert specs.spec["sha256"] == SHA256
    assert not specs.untrained
    found, wanted = jax.tree.leaves(encoder._run._params), jax.tree.leaves(made.variables)
    assert len(found) == len(wanted) > 3
    for ours, theirs in zip(found, wanted):
        np.testing.assert_array_equal(ours, theirs)


def test_an_encoder_of_another_kind_is_refused(tmp_path):
    model = recipes.load("rjcma:tiny", group="encoders").audio.model.to_dict()
    made = random_encoder("vggish", model, 0)
    save_encoder(
        tmp_path / "a", "vggish", model, made.params, made.state, source="x", sha256=SHA256
    )
    config = recipes.load("rjca", group="encoders")
    config.audio.source = str(tmp_path / "a")
    with pytest.raises(UserError, match="kind is 'vggish', not 'audio_resnet18'"):
        open_encoders(config, ("audio",), 1)


def test_raw_material_has_the_size_that_the_networks_take():
    config = recipes.load("raw", group="encoders")
    specs = open_encoders(config, ("visual", "audio"), 1).specs()
    assert (specs["visual"].dim, specs["visual"].dtype) == (48 * 48 * 3, "uint8")
    assert (specs["audio"].dim, specs["audio"].dtype) == (96 * 64, "float16")
