"""Creating models by name."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax import own_files, recipes
from maven_jax.errors import UserError
from maven_jax.models.registry import check_keys, create, model_class
from maven_jax.runtime.sharding import logical_rules, make_mesh, tree_shardings
from tests.support.small_models import CONCAT, RJCMA, SMALL, random_batch, small_model


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'maven_released'"):
        create("maven_relased", modalities=("visual",))


def test_stray_and_lacking_attributes_are_type_errors():
    with pytest.raises(TypeError, match="num_recursions"):
        create("concat_mlp", modalities=("visual",), num_recursions=2, **CONCAT)
    with pytest.raises(TypeError, match="embed_dim"):
        create("maven", modalities=("visual",))


def test_fields_of_a_dataclass_are_keys_like_the_models_own():
    keys = SMALL["grjca"][1]
    assert small_model("grjca", num_steps=1).recursion_config.num_steps == 1

    def check(keys):
        recipes.check_keys(model_class("grjca"), keys, "model", ("modalities",))

    check(keys)
    with pytest.raises(UserError, match="a key 'num_step'; did you mean 'num_steps'"):
        check(keys | {"num_step": 1})
    with pytest.raises(UserError, match="a key 'recursion_config'"):
        check(keys | {"recursion_config": None})
    with pytest.raises(UserError, match="lacks remat, temporal"):
        check({k: v for k, v in keys.items() if k not in ("remat", "temporal")})


OWN = """
from __future__ import annotations
import flax.linen as nn
import jax.numpy as jnp
from maven_jax.types import Prediction

class Zero(nn.Module):
    modalities: tuple[str, ...]
    scale: float

    def __call__(self, features, modality_masks, frame_mask, *, train):
        return Prediction(va=self.scale * jnp.zeros((*frame_mask.shape, 2)))

class Lonely(nn.Module):
    scale: float
"""


def own_model(name):
    """The class that a recipe of one's own names."""
    own_files.allow_named({"model": {"name": name}})
    return model_class(name)


def test_a_model_may_be_in_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zero.py").write_text(OWN)
    own_files.allow("zero.py")
    model = create("zero.py:Zero", modalities=["audio"], scale=2.0)
    assert (model.modalities, model.scale) == (("audio",), 2.0)
    # Compiled programs are found again by the module: its class must not be made anew.
    assert model == create(f"{tmp_path}{os.sep}zero.py:Zero", modalities=["audio"], scale=2.0)
    assert model.apply({}, *random_batch(), train=False).va.shape == (3, 8, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.py:Zero", "nowhere.py; the path of a model is that from where you are"),
        ("zero.py:Zeroo", "no Linen module 'Zeroo'"),
        ("zero.py:jnp", "no Linen module 'jnp'"),
        ("zero.py:Lonely", "no attribute `modalities`"),
        ("broken.py:Zero", "broken.py:1: ModuleNotFoundError: No module named"),
    ],
)
def test_what_is_wrong_with_ones_own_file_is_one_line(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zero.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("import maven_jax.nothing")
    with pytest.raises(UserError, match=said) as caught:
        own_model(name)
    assert "\n" not in str(caught.value)


def test_a_file_that_nobody_named_is_not_run(tmp_path):
    (tmp_path / "unnamed.py").write_text("raise SystemExit('run')")
    with pytest.raises(UserError, match="only run if you name it"):
        model_class(f"{tmp_path}/unnamed.py:Zero")


@pytest.mark.parametrize("modalities", [(), ("audio", "audio")])
def test_modalities_must_be_different_names(modalities):
    with pytest.raises(UserError, match="modalities"):
        create("concat_mlp", modalities=modalities, **CONCAT)


def test_the_mean_goes_only_where_it_is_wanted():
    model = create("concat_mlp", modalities=["audio"], target_mean=(0.2, 0.1), **CONCAT)
    assert not hasattr(model, "target_mean")
    with pytest.raises(UserError, match="target_mean"):
        create("constant_mean", modalities=("audio",))


def test_the_constant_mean_predicts_it_without_parameters():
    batch = random_batch()
    mean = np.array([0.2, -0.1])
    model = create("constant_mean", modalities=tuple(batch[0]), target_mean=mean.tolist())
    variables = model.init(jax.random.key(0), *batch, train=True)
    assert jax.tree.leaves(variables) == []
    for empty in ({}, {"params": {}}):
        va = model.apply(empty, *batch, train=False).va
        np.testing.assert_allclose(va, np.broadcast_to(mean, (3, 8, 2)), rtol=1e-6)


def test_lists_from_a_config_become_hashable():
    lists = CONCAT | {"hidden_dims": [16, 8]}
    assert hash(create("concat_mlp", modalities=["a", "b"], **lists))  # type: ignore
    widths = {"channels": {"visual": [8, 6], "*": [6, 4]}}
    model = create("rjcma", modalities=["visual", "audio"], **RJCMA | widths)  # type: ignore
    assert hash(model) == hash(create("rjcma", modalities=["visual", "audio"], **RJCMA))


@pytest.mark.parametrize("name", SMALL)
def test_every_axis_has_a_rule_and_predictions_are_float32(name):
    batch = random_batch()
    model = small_model(name, dtype="bfloat16")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *batch, train=False))
    mesh = make_mesh(data=-1, model=1)
    assert jax.tree.leaves(tree_shardings(mesh, shapes, logical_rules(fsdp=True)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    out = jax.eval_shape(
        lambda v: model.apply(
            v, *batch, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"]
        )[0],
        shapes,
    )
    assert out.va.dtype == jnp.float32


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("weight", None, "a number"),
        ("weight", 1.0, "a number from 0 to below 1"),
        ("widths", "x", "a list, each a whole number"),
        ("penalties", 0, "a list"),
        ("penalties", (0.1, -1.0), "numbers above 0"),
        ("most_groups", 0, "a whole number from 1"),
        ("most_groups", 1, "2 or more"),
    ],
)
def test_a_ridge_beside_that_cannot_be_is_refused(key, value, expected):
    section = recipes.plain(recipes.load("features").model)
    section["ridge"][key] = value
    with pytest.raises(UserError, match=rf"config\.model\.ridge\.{key}=.*: expected {expected}"):
        check_keys(section)
