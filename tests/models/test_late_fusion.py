"""Late fusion and LFAN: who takes part in a frame's prediction."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from maven_jax.models.fusion.leader_follower import LeaderFollowerAttention
from maven_jax.models.registry import create
from tests.support.reference_temporal import TorchTcn, array, linear
from tests.support.rounding import assert_close
from tests.support.small_models import FAST_COMPILE, LATE_FUSION, LFAN, random_batch, random_params

WIDTHS = {"visual": 6, "audio": 3, "text": 5}
K = 4


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def predict(model, variables, *batch):
    return model.apply(variables, *batch, train=False).va


def test_predictions_are_averaged_over_the_modalities_observed_at_a_frame():
    attributes = LATE_FUSION | {"temporal": "tcn"}
    features, masks, seen = random_batch(t=8)
    seen = jnp.ones_like(seen)
    # Both, one, the other, none.
    masks = {
        "visual": jnp.broadcast_to(jnp.arange(8) % 4 < 2, seen.shape),
        "audio": jnp.broadcast_to(jnp.arange(8) % 2 < 1, seen.shape),
    }
    features = {m: features[m] for m in masks}
    both = create("late_fusion", modalities=("visual", "audio"), **attributes)
    variables = random_params(both, features, masks, seen, train=False)
    alone = {}
    for m in masks:
        parts = {k: v for k, v in variables["params"].items() if k.endswith(m)}
        one = create("late_fusion", modalities=(m,), **attributes)
        alone[m] = predict(one, {"params": parts}, features, masks, seen)
    mean_va = predict(both, variables, features, masks, seen)
    mean = (alone["visual"] + alone["audio"]) / 2
    expected = [mean, alone["visual"], alone["audio"], mean] * 2
    for frame, value in enumerate(expected):
        assert_close(mean_va[:, frame], value[:, frame])
    assert np.abs(alone["visual"] - alone["audio"]).min(axis=(0, 2)).max() > 1e-3


class TorchLeaderFollower(torch.nn.Module):
    def __init__(self, leader):
        super().__init__()
        self.leader = leader
        for role in ("query", "key", "value"):
            layers = {m: torch.nn.Linear(w, K) for m, w in WIDTHS.items()}
            setattr(self, role, torch.nn.ModuleDict(layers))
        self.norm = torch.nn.LayerNorm([len(WIDTHS), K])
        torch.nn.init.normal_(self.norm.weight, 1.0, 0.3)
        torch.nn.init.normal_(self.norm.bias)

    def forward(self, x):
        q, k, v = (
            torch.stack([layers[m](x[m]) for m in x], dim=-2)
            for layers in (self.query, self.key, self.value)
        )
        followers = self.norm(torch.softmax(q @ k.mT / K**0.5, -1) @ v + v)
        return torch.cat([x[self.leader], followers.flatten(-2)], -1)

    def params(self):
        params = {"norm": {"scale": array(self.norm.weight), "bias": array(self.norm.bias)}}
        for role in ("query", "key", "value"):
            params |= {f"{role}_{m}": linear(layer) for m, layer in getattr(self, role).items()}
        return params


def test_leader_follower_attention_is_torchs_with_gradients():
    torch.manual_seed(0)
    peer, module = TorchLeaderFollower("visual"), LeaderFollowerAttention("visual", K)
    x = {m: torch.randn(2, 5, w, requires_grad=True) for m, w in WIDTHS.items()}
    output = peer(x)
    torch.sin(output).sum().backward()
    ours = {m: jnp.asarray(array(value)) for m, value in x.items()}
    masks = dict.fromkeys(ours, jnp.ones((2, 5), bool))

    @jax.jit
    def gradient(x):
        def loss(x):
            # A traced dict comes back sorted by name; the order of the modalities is the model's.
            y = module.apply({"params": peer.params()}, {m: x[m] for m in WIDTHS}, masks)
            return jnp.sum(jnp.sin(y)), y

        return jax.grad(loss, has_aux=True)(x)

    by_modality, y = gradient(ours)
    assert_close(y, array(output))
    for m, value in x.items():
        assert_close(by_modality[m], value.grad)


def test_what_was_not_observed_is_not_attended_to():
    torch.manual_seed(0)
    peer, module = TorchLeaderFollower("visual"), LeaderFollowerAttention("visual", K)
    random = np.random.default_rng(0)
    x = {m: jnp.asarray(random.standard_normal((2, 5, w)), jnp.float32) for m, w in WIDTHS.items()}
    seen = jnp.ones((2, 5), bool)
    masks = {"visual": seen, "audio": seen & False, "text": seen}

    def flat(x):
        return module.apply({"params": peer.params()}, x, masks)

    # The norm spans all modalities, so that only its input shows who was attended to.
    weights = peer.params()
    follower = weights["value_visual"], weights["value_text"]
    key = [
        x[m] @ weights[f"key_{m}"]["kernel"] + weights[f"key_{m}"]["bias"]
        for m in ("visual", "text")
    ]
    query = x["visual"] @ weights["query_visual"]["kernel"] + weights["query_visual"]["bias"]
    score = jax.nn.softmax(jnp.stack([jnp.sum(query * k, -1) for k in key]) / K**0.5, axis=0)
    value = [x[m] @ p["kernel"] + p["bias"] for m, p in zip(("visual", "text"), follower)]
    expected = score[0, ..., None] * value[0] + score[1, ..., None] * value[1] + value[0]
    normed = flat(x)[..., WIDTHS["visual"] :].reshape(2, 5, 3, K)
    normed = (normed - weights["norm"]["bias"]) / weights["norm"]["scale"]
    # Normalising keeps the directions of differences.
    directions = [jnp.diff(y) for y in (normed[:, :, 0], expected)]
    assert_close(*(d / jnp.linalg.norm(d, axis=-1, keepdims=True) for d in directions))


def test_lfan_leads_with_one_of_its_modalities():
    batch = random_batch()
    model = create("lfan", modalities=tuple(batch[0]), **LFAN | {"leader": "voice"})
    with pytest.raises(ValueError, match="leader 'voice' is not among"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), *batch, train=False))


def test_lfan_hands_its_tcns_to_the_attention():
    torch.manual_seed(0)
    channels = {m: (5, w) for m, w in WIDTHS.items()}
    tcns = {m: TorchTcn(4, channels[m], 3) for m in WIDTHS}
    fusion = TorchLeaderFollower("audio")
    output = torch.nn.Linear(WIDTHS["audio"] + 3 * K, 2)
    x = {m: torch.randn(2, 5, 4) for m in WIDTHS}
    expected = output(fusion({m: tcns[m](value) for m, value in x.items()}))
    model = create(
        "lfan",
        modalities=tuple(WIDTHS),
        **LFAN | {"channels": channels, "leader": "audio", "attention_dim": K},
    )
    params = {f"temporal_{m}": {"tcn": tcn.params()} for m, tcn in tcns.items()}
    params |= {"fusion": fusion.params(), "output": linear(output)}
    seen = jnp.ones((2, 5), bool)
    features = {m: jnp.asarray(array(value)) for m, value in x.items()}
    va = predict(model, {"params": params}, features, dict.fromkeys(features, seen), seen)
    assert_close(va, array(expected))
