"""MPNet against transformers' torch model."""

import jax
import numpy as np
import pytest
import torch
import transformers

from maven_jax.encoders.mpnet import MpnetConfig
from maven_jax.errors import UserError

TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 150,
}
LARGE = {"max_position_embeddings": 514, "layer_norm_eps": 1e-5}


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        # Beyond 128 tokens all positions share one bias.
        pytest.param(TINY, (140, 9), id="tiny"),
        pytest.param(LARGE, (200, 31), id="large", marks=pytest.mark.slow),
    ],
)
def test_parity(saved, difference, rng, sizes, lengths):
    model = transformers.MPNetModel(transformers.MPNetConfig(**sizes), add_pooling_layer=False)
    encoder = saved(model, 0.02 if sizes is LARGE else 0.3)
    assert (encoder.kind, encoder.unused, encoder.missing) == ("mpnet", [], [])
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.where(mask, rng.integers(2, 50, mask.shape), 1).astype(np.int32)
    with torch.no_grad():
        out = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
    ours = np.asarray(jax.jit(encoder.module.apply)(encoder.variables, ids, mask))
    found = difference(ours[mask], out.last_hidden_state[torch.tensor(mask)])
    print(f"MPNet {sizes['max_position_embeddings']}: {found:.1e}")
    assert found < 1e-4
    assert (ours[~mask] == 0).all()


def test_positions_that_its_code_has_not_are_refused():
    with pytest.raises(UserError, match="relative_attention_num_buckets is 16, expected 32"):
        MpnetConfig.from_hf(TINY | {"relative_attention_num_buckets": 16})
