"""Folders of converted encoders: written, opened, damaged."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from maven_jax.convert.huggingface import load_encoder, random_encoder
from maven_jax.convert.native import save_encoder
from maven_jax.errors import UserError
from maven_jax.runtime.seal import SEAL

IRESNET = {
    "image_size": 8,
    "stem_dim": 4,
    "widths": [4, 6],
    "depths": [1, 1],
    "strides": [1, 2],
    "embed_dim": 5,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with an encoder, and the encoder."""
    encoder = random_encoder("iresnet50", IRESNET, 0)
    folder = tmp_path_factory.mktemp("native") / "encoder"
    save(folder, encoder)
    return folder, encoder


def save(folder, encoder, **changes):
    what = {"config": encoder.config, "params": encoder.params, "state": encoder.state} | changes
    save_encoder(folder, encoder.kind, source="faces.pth", sha256="ab" * 32, **what)


@pytest.fixture
def folder(written, tmp_path):
    """A copy to damage."""
    return shutil.copytree(written[0], tmp_path / "encoder")


def test_what_was_saved_is_loaded(written):
    folder, saved = written
    loaded = load_encoder(folder, kind="iresnet50", dtype=jnp.bfloat16)
    assert (loaded.kind, loaded.source, loaded.sha256) == ("iresnet50", "faces.pth", "ab" * 32)
    assert (loaded.folder, loaded.untrained) == (folder, False)
    assert loaded.module.dtype == jnp.bfloat16
    before, after = flatten_dict(saved.variables), flatten_dict(loaded.variables)
    assert before.keys() == after.keys()
    assert {path[0] for path in after} == {"params", "batch_stats"}
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value)
    # What the config left to its defaults is written down.
    assert loaded.config["normalize"] is True
    assert loaded.module.config == saved.module.config
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    np.testing.assert_array_equal(
        load_encoder(str(folder)).module.apply(loaded.variables, images),
        saved.module.apply(saved.variables, images),
    )


def test_encoders_with_published_configs_can_be_saved_too(tmp_path):
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    saved = random_encoder("bert", config | {"intermediate_size": 12, "vocab_size": 20}, 0)
    save(tmp_path, saved)
    loaded = load_encoder(tmp_path, kind="bert")
    assert loaded.state == {}
    assert loaded.module == saved.module
    ids = jnp.arange(6)[None]
    np.testing.assert_array_equal(
        loaded.module.apply(loaded.variables, ids, ids >= 0),
        saved.module.apply(saved.variables, ids, ids >= 0),
    )


def test_an_encoder_is_not_overwritten(folder, written):
    with pytest.raises(UserError, match="holds an encoder already; take another folder"):
        save(folder, written[1])
    (folder / "encoder.json").unlink()
    with pytest.raises(UserError, match="holds an encoder already; take another folder"):
        save(folder, written[1])


def test_variables_of_another_config_are_not_written(written, tmp_path):
    encoder = written[1]
    with pytest.raises(UserError, match=r"embedding/kernel has shape \(96, 5\), not \(96, 7\)"):
        save(tmp_path / "a", encoder, config=IRESNET | {"embed_dim": 7})
    with pytest.raises(UserError, match=r"not the iresnet50 .*/stem_norm/mean is missing"):
        save(tmp_path / "a", encoder, state={})
    with pytest.raises(UserError, match="extra/kernel is not one of its variables"):
        save(tmp_path / "a", encoder, params=encoder.params | {"extra": {"kernel": np.ones(2)}})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "vggish"}, "kind is 'vggish', not 'iresnet50'"),
        ({"kind": None}, "kind is 'None'"),
        ({"sha256": 3}, "sha256 is '3'"),
        ({"config": []}, r"config is '\[\]'"),
        ({"config": {"sides": 3}}, "unknown key 'sides'"),
        ({"config": IRESNET | {"stem_dim": 3}}, r"stem_norm/mean has shape \(4,\), not \(3,\)"),
        ({"config": IRESNET | {"depths": [1, 2]}}, "unit2/conv1/kernel is missing"),
        ({"config": IRESNET | {"depths": [1, 1], "widths": [4, 4]}}, "is not one of its variables"),
    ],
)
def test_records_that_do_not_fit_are_named(folder, change, message):
    record = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps(record | change))
    with pytest.raises(UserError, match=message) as error:
        load_encoder(folder, kind="iresnet50")
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_unknown_kinds_and_broken_records(folder):
    path = folder / "encoder.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"kind": "vgg"}))
    with pytest.raises(UserError, match=r"encoder\.json: encoder kind 'vgg' is not one of swin"):
        load_encoder(folder)
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match=r"encoder\.json: cannot be read as JSON"):
        load_encoder(folder)


def biggest(folder):
    files = [path for path in (folder / "weights").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def test_one_other_bit_in_the_values_is_found(folder):
    values = biggest(folder)
    data = bytearray(values.read_bytes())
    data[-100] ^= 1
    values.write_bytes(bytes(data))
    with pytest.raises(UserError, match="holds other bytes than were written; convert it again"):
        load_encoder(folder)


def make_pipe(path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: shutil.rmtree(folder / "weights"),
        lambda folder: biggest(folder).unlink(),
        lambda folder: biggest(folder).write_bytes(biggest(folder).read_bytes()[:100]),
        lambda folder: flip(biggest(folder)),
        lambda folder: (folder / "weights" / "_METADATA").unlink(),
        lambda folder: (folder / "weights" / "_METADATA").write_text("{"),
        lambda folder: make_pipe(folder / "weights" / "_sharding"),
    ],
    ids=[
        "no weights",
        "no data",
        "cut data",
        "flipped byte",
        "no metadata",
        "cut metadata",
        "pipe",
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_damaged_weights_are_one_line(folder, damage, sealed):
    if not sealed:
        (folder / SEAL).unlink()
    damage(folder)
    with pytest.raises(UserError, match=r"damaged|not a regular file") as error:
        load_encoder(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
