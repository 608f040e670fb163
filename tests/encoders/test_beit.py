"""BEiT layers against transformers' torch model; masks, dropout, sharding names."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from maven_jax.encoders.beit import BeitStack

TINY = {"num_layers": 3, "num_heads": 2, "mlp_dim": 24}


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.normal(size=(2, 7, 16)), jnp.float32)


@partial(jax.jit, static_argnums=0, static_argnames="deterministic")
def run(module, variables, x, mask=None, key=None, *, deterministic=True):
    rngs = None if key is None else {"dropout": key}
    return module.apply(variables, x, mask, deterministic=deterministic, rngs=rngs)


def stack(x, **options):
    """A stack and parameters that are nowhere at their start values."""
    module = BeitStack(**TINY | options)
    params = nn.meta.unbox(jax.jit(module.init)(jax.random.key(0), x))["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [v + 0.3 * jax.random.normal(k, v.shape) for v, k in zip(leaves, keys, strict=True)]
    return module, {"params": jax.tree.unflatten(tree, moved)}


def reference(model, frames):
    """The model's layers alone, without their position bias over patches."""
    hidden = torch.tensor(np.array(frames))
    with torch.no_grad():
        for layer in model.layers:
            layer.relative_position_bias = None
            hidden = layer(hidden)
    return hidden


@pytest.mark.parametrize("changes", [{}, {"layer_scale_init_value": 0.0, "hidden_act": "relu"}])
def test_parity_tiny(saved, difference, x, changes):
    config = transformers.BeitConfig(
        image_size=32,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        use_relative_position_bias=True,
        **changes,
    )
    model = transformers.BeitForMaskedImageModeling(config)
    encoder = saved(model, 0.3)
    ours = run(encoder.module, {"params": encoder.params}, x)
    assert difference(ours, reference(model.beit, x)) < 1e-4
    # What means nothing over frames stays behind, and is named.
    tables = [name for name in encoder.unused if "relative_position_bias_table" in name]
    assert len(tables) == 3
    assert not any("attention.query" in name or "lambda" in name for name in encoder.unused)


@pytest.mark.slow
def test_parity_base(saved, difference, rng):
    config = transformers.BeitConfig(use_relative_position_bias=True)
    model = transformers.BeitModel(config, add_pooling_layer=False)
    encoder = saved(model, 0.01)
    frames = jnp.asarray(rng.normal(size=(1, 30, 768)), jnp.float32)
    ours = run(encoder.module, {"params": encoder.params}, frames)
    assert difference(ours, reference(model, frames)) < 1e-4


def test_masked_frames_influence_nothing_and_come_out_as_zeros(x):
    module, variables = stack(x)
    mask = jnp.array([[True, True, False, True, False, True, True], [False] * 7])
    ours = run(module, variables, x, mask)
    observed = x[:1][:, mask[0]]
    np.testing.assert_allclose(ours[:1][:, mask[0]], run(module, variables, observed), atol=1e-5)
    assert (ours[~mask] == 0).all()
    wild = jnp.where(mask[..., None], x, jnp.nan)
    np.testing.assert_array_equal(run(module, variables, wild, mask), ours)

    def total(x):
        return run(module, variables, x, mask).sum()

    gradient = jax.jit(jax.grad(total))(wild)
    assert np.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()


def test_1d_position_bias_depends_on_the_distance_only(x):
    module, variables = stack(x, relative_position="1d", max_distance=2)
    table = variables["params"]["layers"]["relative_position_bias"]["table"]
    assert table.shape == (3, 5, 2)
    off = jax.tree.map(lambda v: v, variables)
    off["params"]["layers"].pop("relative_position_bias")
    without = run(BeitStack(**TINY), off, x)
    assert np.abs(without - run(module, variables, x)).max() > 1e-3
    # Starts as no bias, and an equal bias for all distances is none.
    variables["params"]["layers"]["relative_position_bias"]["table"] = jnp.ones_like(table)
    np.testing.assert_allclose(run(module, variables, x), without, atol=1e-5)
    # A window that starts k frames later sees the same distances.
    variables["params"]["layers"]["relative_position_bias"]["table"] = table
    mask = jnp.ones((2, 7), bool).at[:, :3].set(False)
    shifted = run(module, variables, x, mask)[:, 3:]
    np.testing.assert_allclose(shifted, run(module, variables, x[:, 3:]), atol=1e-5)


def test_unknown_position_bias_is_refused(x):
    with pytest.raises(ValueError, match="relative_position '2d'"):
        BeitStack(**TINY, relative_position="2d").init(jax.random.key(0), x)


def test_recomputing_activations_changes_no_gradient(x):
    module, variables = stack(x)
    again = BeitStack(**TINY, remat=True)
    plain, recomputed = (
        jax.grad(lambda v, m=m: jnp.square(run(m, v, x)).sum())(variables) for m in (module, again)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), plain, recomputed
    )


@pytest.mark.parametrize("rate", [{"dropout_rate": 0.5}, {"attention_dropout_rate": 0.5}])
def test_layers_drop_different_elements(x, rate):
    """Of two equal layers, one is switched off: which one must matter."""
    module, variables = stack(x, num_layers=2, **rate)
    variables = jax.tree.map(lambda v: jnp.stack([v[0], v[0]]), variables)
    draws = []
    for only in range(2):  # the other layer adds nothing
        scale = jnp.zeros((2, 1)).at[only].set(1.0)
        layers = variables["params"]["layers"] | {
            name: variables["params"]["layers"][name] * scale
            for name in ("attention_scale", "mlp_scale")
        }
        draws.append(
            run(
                module,
                {"params": {"layers": layers}},
                x,
                None,
                jax.random.key(0),
                deterministic=False,
            )
        )
    assert np.abs(draws[0] - draws[1]).max() > 1e-2


def test_stochastic_depth_leaves_out_whole_branches_of_late_layers(x):
    options = {"num_layers": 2, "stochastic_depth_rate": 0.5}
    module, variables = stack(x, **options)
    windows = jnp.tile(x[:1], (64, 1, 1))
    outputs = np.asarray(
        run(module, variables, windows, None, jax.random.key(0), deterministic=False)
    )
    first = jax.tree.map(lambda v: v[:1], variables)
    only_first = run(BeitStack(**TINY | {"num_layers": 1}), first, x[:1])
    gaps = np.abs(outputs - np.asarray(only_first)).max((1, 2))
    # Both branches of the last layer are left out a quarter of the time; the first layer never.
    assert 4 <= (gaps < 1e-5).sum() <= 32
    # Each of the four outcomes is one output.
    assert len(np.unique(outputs.round(4), axis=0)) == 4
    deterministic = run(module, variables, windows)
    np.testing.assert_allclose(
        deterministic, run(BeitStack(**TINY | {"num_layers": 2}), variables, windows)
    )


def test_dropout_follows_its_key_and_is_off_when_deterministic(x):
    module, variables = stack(x, dropout_rate=0.3, attention_dropout_rate=0.3)

    def dropped(seed):
        return run(module, variables, x, None, jax.random.key(seed), deterministic=False)

    np.testing.assert_array_equal(dropped(0), dropped(0))
    assert np.abs(dropped(0) - dropped(1)).max() > 1e-3
    np.testing.assert_allclose(run(module, variables, x), run(BeitStack(**TINY), variables, x))


def test_kernels_name_the_axes_that_a_mesh_may_split(x):
    variables = jax.eval_shape(BeitStack(**TINY).init, jax.random.key(0), x)
    layers = nn.get_partition_spec(variables)["params"]["layers"]
    assert tuple(layers["attention"]["query"]["kernel"]) == ("layers", "embed", "heads", "head_dim")
    assert tuple(layers["attention"]["out"]["kernel"]) == ("layers", "heads", "head_dim", "embed")
    assert tuple(layers["mlp"]["up"]["kernel"]) == ("layers", "embed", "mlp")
    assert tuple(layers["mlp"]["down"]["kernel"]) == ("layers", "mlp", "embed")
    assert "bias" not in layers["attention"]["key"]


def test_bfloat16_is_close(x):
    module, variables = stack(x)
    half = run(BeitStack(**TINY, dtype=jnp.bfloat16), variables, x)
    assert half.dtype == jnp.bfloat16
    assert 0 < np.abs(half.astype(jnp.float32) - run(module, variables, x)).max() < 0.2
