"""RAS's ideas: whom the fusion trusts, what the experts see, sound that counts where one speaks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.models.fusion.directed_experts import DirectedExperts
from maven_jax.models.fusion.reliability import ReliabilityFusion
from tests.support.rounding import assert_close
from tests.support.small_models import random_batch, random_params, small_model

X = {m: jax.random.normal(jax.random.key(i), (2, 5, 4)) for i, m in enumerate(("visual", "audio"))}
EVERYWHERE = dict.fromkeys(X, jnp.ones((2, 5), bool))


def plain(params):
    return jax.tree.map(np.asarray, params["params"])


def linear(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_the_fusion_weighs_modalities_by_what_they_and_their_mean_say():
    fusion: Any = ReliabilityFusion()
    params = random_params(fusion, X, EVERYWHERE)
    p = plain(params)
    context = linear(np.mean(list(X.values()), axis=0), p["context"])
    trust = softmax(
        np.concatenate(
            [linear(np.tanh(linear(x, p[f"judge_{m}"]) + context), p[f"trust_{m}"])
             for m, x in X.items()], -1,
        )
    )  # fmt: skip
    expected = sum(
        trust[..., [i]] * linear(x, p[f"value_{m}"]) for i, (m, x) in enumerate(X.items())
    )
    assert_close(fusion.apply(params, X, EVERYWHERE), expected)
    silent = EVERYWHERE | {"audio": EVERYWHERE["audio"] & False}
    alone = fusion.apply(params, X, silent)
    assert_close(alone, linear(X["visual"], p["value_visual"]))


def test_an_expert_has_a_direction_and_is_asked_only_of_what_was_observed():
    experts: Any = DirectedExperts(3, 0.0)
    params = random_params(experts, X, EVERYWHERE, deterministic=True)
    outputs = experts.apply(params, X, EVERYWHERE, deterministic=True)
    kernel = params["params"]["visual_from_audio_down"]["kernel"]
    params["params"]["visual_from_audio_down"]["kernel"] = -kernel
    moved = experts.apply(params, X, EVERYWHERE, deterministic=True)
    assert np.abs(moved["visual"] - outputs["visual"]).max() > 1e-2
    np.testing.assert_array_equal(moved["audio"], outputs["audio"])
    silent = EVERYWHERE | {"audio": EVERYWHERE["audio"] & False}
    first, second = (
        experts.apply(params, {"visual": X["visual"], "audio": audio}, silent, deterministic=True)
        for audio in (X["audio"], X["audio"] + 1)
    )
    np.testing.assert_array_equal(first["visual"], second["visual"])


def test_sound_counts_only_where_its_gate_is_open():
    model = small_model("ras", gated_by={"audio": "text"})
    features, masks, frame_mask = random_batch()
    params = random_params(model, features, masks, frame_mask, train=False)
    apply = jax.jit(lambda f: model.apply(params, f, masks, frame_mask, train=False).va)
    before = apply(features)
    shut = (masks["audio"] & ~masks["text"])[..., None]
    assert shut.any()
    np.testing.assert_array_equal(
        apply(features | {"audio": jnp.where(shut, 7.0, features["audio"])}), before
    )
    louder = features | {"audio": jnp.where(shut, features["audio"], 7.0)}
    assert np.abs(apply(louder) - before).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gated_by": {"audio": "mouth"}}, "gated_by: 'mouth' is not among the modalities"),
        ({"temporal": {"*": "lstm"}}, "temporal.visual='lstm' is none of transformer, mamba, none"),
        ({"num_layers": {"text": 1}}, "num_layers: nothing for modality 'visual'"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes, said):
    with pytest.raises(UserError, match=said.replace("*", r"\*")):
        jax.eval_shape(
            lambda: small_model("ras", **changes).init(
                jax.random.key(0), *random_batch(), train=False
            )
        )
