"""MAVEN's two forms: shapes at full size, agreement with torch, and what each option changes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.layers.heads import RegressionHead
from maven_jax.layers.linear import dense
from maven_jax.layers.modalities import DenseOverModalities, over_frames
from maven_jax.models.fusion.six_pathway import SixPathwayFusion
from maven_jax.models.registry import create
from tests.support.rounding import assert_close, float64
from tests.support.small_models import random_batch, random_params, small_model

FULL = {"visual": 1024, "audio": 768, "text": 768}


def shapes(model, batch):
    """Returns {path: shape} of the parameters, without computing any."""
    tree = jax.eval_shape(lambda: model.init(jax.random.key(0), *batch, train=False))
    leaves = jax.tree.leaves_with_path(nn.meta.unbox(tree)["params"])
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}


def full_batch(t=300, single=()):
    structure = jax.eval_shape(lambda: random_batch(2, t, single=single, widths=FULL))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), structure)


def test_the_papers_full_size():
    model = create(
        "maven",
        modalities=tuple(FULL),
        embed_dim=512,
        num_heads=8,
        dropout_rate=0.1,
        shared_norm=True,
        refine_dim=768,
        num_stacks=2,
        beit_layers=12,
        beit_heads=12,
        beit_mlp_dim=3072,
        layer_scale_init=0.1,
        relative_position=None,
        beit_dropout_rate=0.0,
        stochastic_depth_rate=0.1,
        remat=True,
        head_dims=(512, 256),
        head_dropout_rate=0.2,
        head="polar",
        readout="frame",
        dtype=jnp.bfloat16,
    )
    sizes = shapes(model, full_batch())
    assert sizes["refine/kernel"] == (1536, 768)
    assert sizes["beit_1/layers/mlp/up/kernel"] == (12, 768, 3072)
    assert sizes["head/output/kernel"] == (256, 2)
    # Two BEiT-base stacks of 85 million, six pathways and three self-attentions of 1.05 million.
    total = sum(np.prod(shape) for shape in sizes.values())
    assert 1.81e8 < total < 1.86e8

    def step(params, batch):
        def loss(params):
            rngs = {"dropout": jax.random.key(0)}
            return (model.apply(params, *batch, train=True, rngs=rngs).va ** 2).sum()

        return jax.value_and_grad(loss)(params)

    batch = full_batch()
    params = nn.meta.unbox(
        jax.eval_shape(lambda: model.init(jax.random.key(0), *batch, train=False))
    )
    value, gradients = jax.eval_shape(step, params, batch)
    assert value.dtype == jnp.float32
    assert jax.tree.map(lambda g: g.shape, gradients) == jax.tree.map(lambda p: p.shape, params)


def released(variant, **changes):
    attributes = {
        "embed_dim": 512,
        "num_heads": 2,
        "dropout_rate": 0.1,
        "head_dims": (512, 256),
        "head_dropout_rates": (0.5, 0.3),
        "variant": variant,
    }
    return create("maven_released", modalities=tuple(FULL), **(attributes | changes))


def test_the_released_parameters_fit_ours_one_to_one():
    """PyTorch shapes of the release, (out, in), against ours."""
    common = {f"embed/project_{m}/kernel": (width, 512) for m, width in FULL.items()}
    common |= {f"embed/project_{m}/bias": (512,) for m in FULL}
    common |= {f"embed/missing_{m}": (512,) for m in FULL}  # ours alone
    for m in FULL:
        for n in FULL:
            if m != n:
                path = f"fusion/{m}_from_{n}"
                for part in ("query", "key", "value"):  # a third each of in_proj (1536, 512)
                    common |= {f"{path}/{part}_kernel": (512, 2, 256)}
                    common |= {f"{path}/{part}_bias": (2, 256)}
                common |= {f"{path}/out_kernel": (2, 256, 512), f"{path}/out_bias": (512,)}
    common |= {"fusion/norm/scale": (512,), "fusion/norm/bias": (512,)}
    for layer, (width_in, width_out) in enumerate(((1536, 512), (512, 256))):
        common |= {f"head/hidden_{layer}/kernel": (width_in, width_out)}
        common |= {f"head/hidden_{layer}/bias": (width_out,)}
    common |= {"head/output/kernel": (256, 2), "head/output/bias": (2,)}
    batch = full_batch(7, single=("audio", "text"))
    assert shapes(released("mlp"), batch) == common

    with_beit = shapes(released("beit"), batch)
    rest = {path: shape for path, shape in with_beit.items() if path not in common}
    assert {path: with_beit[path] for path in common} == common
    layer = {
        "attention/query": (768 * 768, 768),
        "attention/key": (768 * 768,),
        "attention/value": (768 * 768, 768),
        "attention/out": (768 * 768, 768),
        "mlp/up": (768 * 3072, 3072),
        "mlp/down": (3072 * 768, 768),
        "attention_norm": (768, 768),
        "mlp_norm": (768, 768),
        "attention_scale": (768,),
        "mlp_scale": (768,),
    }
    expected = sorted([12 * size for sizes in layer.values() for size in sizes] * 2)
    expected = sorted([*expected, 1536 * 768, 768])  # and projection_layer
    assert sorted(int(np.prod(shape)) for shape in rest.values()) == expected


def test_parity_of_the_released_mlp_with_torch():
    """The formulas of the release, put together from torch's own layers."""
    torch = pytest.importorskip("torch")
    from tests.support.reference_attention import torch_attention

    model = small_model("maven_released_mlp")
    features, masks, frame_mask = random_batch(single=("audio", "text"))
    everything = jax.tree.map(jnp.ones_like, (masks, frame_mask))
    params = random_params(model, features, *everything, train=False)
    prediction = jax.jit(lambda p: model.apply(p, features, *everything, train=False))(params)
    p = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)), params["params"])

    def linear(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    with torch.no_grad():
        embedded = {
            m: linear(p["embed"][f"project_{m}"], torch.tensor(np.array(x)))
            for m, x in features.items()
        }
        rows = []
        for m in features:
            total = embedded[m].clone()
            for n in features:
                if n != m:
                    pathway = {"params": params["params"]["fusion"][f"{m}_from_{n}"]}
                    attend = torch_attention(pathway, 2)
                    total += attend(embedded[m], embedded[n], embedded[n])[0]
            norm = p["fusion"]["norm"]
            width = (total.shape[-1],)
            total = torch.nn.functional.layer_norm(total / 3, width, norm["scale"], norm["bias"])
            rows.append(total.expand(-1, frame_mask.shape[1], -1))
        x = torch.cat(rows, dim=-1)
        for layer in ("hidden_0", "hidden_1"):
            x = torch.relu(linear(p["head"][layer], x))
        theta, intensity = linear(p["head"]["output"], x).unbind(-1)
    assert_close(prediction.polar, torch.stack([intensity, theta], -1))
    va = torch.stack([intensity * torch.cos(theta), intensity * torch.sin(theta)], -1)
    assert_close(prediction.va, va)


def forward(model, params, batch, **kwargs):
    return jax.jit(lambda p, *b: model.apply(p, *b, train=False, **kwargs))(params, *batch)


def test_single_vectors_equal_the_same_vector_at_every_frame():
    model = small_model("maven")
    features, masks, frame_mask = random_batch(single=("audio",))
    everything = jax.tree.map(jnp.ones_like, (masks, frame_mask))
    params = random_params(model, features, *everything, train=False)
    single = forward(model, params, (features, *everything))
    t = frame_mask.shape[1]
    repeated = features | {"audio": jnp.repeat(features["audio"], t, axis=1)}
    masks = everything[0] | {"audio": jnp.ones((3, t), bool)}
    full = forward(model, params, (repeated, masks, everything[1]))
    assert_close(single.va, full.va)


def test_pooled_readout_is_one_prediction_of_the_valid_frames():
    batch = random_batch()
    model = small_model("maven_pooled")
    params = random_params(model, *batch, train=False)
    pooled = forward(model, params, batch)
    assert pooled.va.shape == (3, 8, 2)
    assert pooled.polar is None
    np.testing.assert_array_equal(pooled.va, jnp.broadcast_to(pooled.va[:, :1], (3, 8, 2)))
    frames = forward(small_model("maven_pooled", readout="frame"), params, batch).va
    assert np.abs(frames[:, 0] - frames[:, 1]).max() > 1e-3


@pytest.mark.parametrize("names", [("a",), ("eeg", "b"), ("w", "x", "y", "z")])
@pytest.mark.parametrize("shared", [False, True])
def test_pathways_join_every_ordered_pair(names, shared):
    fusion = SixPathwayFusion(names, 2, 0.1, shared)
    embeddings = {name: jnp.ones((2, 5, 8)) for name in names}
    masks = {name: jnp.ones((2, 5), bool) for name in names}
    init = functools.partial(fusion.init, jax.random.key(0), deterministic=True)
    names_of_layers = set(jax.eval_shape(init, embeddings, masks)["params"])
    pathways = {f"{m}_from_{n}" for m in names for n in names if m != n}
    norms = {"norm"} if shared else {f"norm_{m}" for m in names}
    assert names_of_layers == pathways | norms


def test_a_single_modality_is_only_normalised():
    fusion = SixPathwayFusion(("audio",), 2, 0.1, True)
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    masks = {"audio": jnp.ones((2, 5), bool)}
    params = fusion.init(jax.random.key(0), {"audio": x}, masks, deterministic=True)
    enhanced = fusion.apply(params, {"audio": x}, masks, deterministic=True)["audio"]
    expected = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    assert_close(enhanced, expected)


def test_bfloat16_changes_little_and_outputs_stay_float32():
    batch = random_batch()
    params = random_params(small_model("maven"), *batch, train=False)
    exact = forward(small_model("maven"), params, batch)
    coarse = forward(small_model("maven", dtype=jnp.bfloat16), params, batch)
    assert coarse.va.dtype == coarse.polar.dtype == jnp.float32
    error = np.abs(coarse.va - exact.va)[np.asarray(batch[2])]
    assert 0 < error.max() < 0.2 * np.abs(exact.va).max()


def test_every_parameter_has_logical_axes_and_kernels_name_what_to_split():
    batch = random_batch()
    model = small_model("maven")
    tree = jax.eval_shape(lambda: model.init(jax.random.key(0), *batch, train=False))
    specs = nn.get_partition_spec(tree)["params"]
    pathway = specs["fusion"]["visual_from_audio"]
    assert tuple(pathway["query_kernel"]) == ("embed", "heads", "head_dim")
    assert tuple(pathway["out_kernel"]) == ("heads", "head_dim", "embed")
    assert tuple(specs["head"]["hidden_0"]["kernel"]) == ("embed", "mlp")
    assert tuple(specs["head"]["hidden_1"]["kernel"]) == ("mlp", "embed")


def test_dropout_only_when_training():
    batch = random_batch()
    model = small_model("concat_mlp")
    params = random_params(model, *batch, train=False)

    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(params, *batch, train=True, rngs=rngs).va

    assert np.abs(train(0) - train(1)).max() > 1e-3
    np.testing.assert_array_equal(train(0), train(0))


def test_batches_that_do_not_fit_are_named():
    features, masks, frame_mask = random_batch()
    model = small_model("concat_mlp")
    without = {m: x for m, x in features.items() if m != "text"}
    short = features | {"audio": features["audio"][:, :3]}
    with pytest.raises(ValueError, match="no modality 'text'; it has audio, visual"):
        model.init(jax.random.key(0), without, masks, frame_mask, train=False)
    with pytest.raises(ValueError, match=r"'audio'.*do not fit 8 frames"):
        model.init(jax.random.key(0), short, masks, frame_mask, train=False)


def test_the_split_head_of_modalities_is_exact():
    """Of the released network: value, gradient and dropout are those of modalities side by side."""
    head = RegressionHead((16, 8), (0.5, 0.3), "polar_angle_first")
    keys = iter(jax.random.split(jax.random.key(0), 3))
    lengths = {"visual": 8, "audio": 1, "text": 1}
    parts = {m: jax.random.normal(next(keys), (3, t, 16)) for m, t in lengths.items()}
    params = random_params(head, parts, deterministic=True)

    def run(whole, params, parts):
        x = over_frames(parts, 8) if whole else parts
        va = head.apply(params, x, deterministic=False, rngs={"dropout": jax.random.key(4)}).va
        return jnp.sin(3 * va).sum(), va

    with float64():
        head = head.clone(dtype=jnp.float64, param_dtype=jnp.float64)
        params, parts = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, parts))
        split, plain = (
            jax.tree.leaves_with_path(
                jax.jit(jax.value_and_grad(run, (1, 2), has_aux=True), static_argnums=0)(
                    whole, params, parts
                )
            )
            for whole in (False, True)
        )
    for (path, a), (_, b) in zip(split, plain, strict=True):
        tolerance = 1e-12 * max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))


def test_the_split_layer_starts_as_the_plain_one_would():
    parts = {m: jnp.ones((2, t, 3)) for m, t in dict(visual=5, audio=1, text=1).items()}
    split = DenseOverModalities(4, ("embed", "mlp"))
    plain = dense(4, ("embed", "mlp"), name="", dtype=jnp.float32, param_dtype=jnp.float32)
    key = jax.random.key(6)
    start, expected = split.init(key, parts, 5), plain.init(key, over_frames(parts, 5))
    for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
