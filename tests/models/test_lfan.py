"""ABAW3's LFAN against torch."""

import jax
import numpy as np
import torch
from torch import nn

from maven_jax.models.fusion.leader_follower import MultiHeadLeaderFollower
from tests.support.rounding import assert_close
from tests.support.small_models import random_params

WIDTHS = {"visual": 5, "audio": 3}
K, HEADS = 4, 2


def test_the_attention_with_heads_is_torchs():
    x = {m: jax.random.normal(jax.random.key(c), (2, 3, c)) for m, c in WIDTHS.items()}
    masks = {m: np.ones((2, 3), bool) for m in x}
    fusion = MultiHeadLeaderFollower("visual", K, HEADS, 0.1)
    masks = jax.tree.map(jax.numpy.asarray, masks)
    params = random_params(fusion, x, masks, deterministic=True)
    layers = jax.tree.map(lambda p: torch.tensor(np.asarray(p)), params["params"])
    rows = {m: torch.tensor(np.asarray(v)).reshape(6, -1) for m, v in x.items()}

    def heads(role, m):
        layer = layers[f"{role}_{m}"]
        return (rows[m] @ layer["kernel"] + layer["bias"]).unflatten(-1, (HEADS, -1))

    # (frames, heads, modalities, k): every frame is a sentence of modalities.
    query, key, value = (
        torch.stack([heads(role, m) for m in x], 2) for role in ("query", "key", "value")
    )
    attended = nn.functional.scaled_dot_product_attention(query, key, value) + value
    flat = attended.flatten(1) @ layers["out"]["kernel"] + layers["out"]["bias"]
    norm = layers["norm"]
    flat = nn.functional.layer_norm(flat, flat.shape[1:], norm["scale"], norm["bias"])
    expected = torch.cat([rows["visual"], flat], -1).reshape(2, 3, -1)
    assert_close(fusion.apply(params, x, masks, deterministic=True), expected.numpy())
