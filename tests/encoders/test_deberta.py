"""DeBERTa-v3 against transformers' torch model."""

import jax
import numpy as np
import pytest
import torch
import transformers

from maven_jax.encoders.deberta import DebertaConfig
from maven_jax.errors import UserError

VERSION_3 = {
    "relative_attention": True,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 256,
}
TINY = VERSION_3 | {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 60,
    "position_buckets": 16,
}
BASE = VERSION_3 | {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        # Beyond eight tokens distances share a row of the table.
        pytest.param(TINY, (60, 9), id="tiny"),
        pytest.param(BASE, (300, 31), id="large", marks=pytest.mark.slow),
    ],
)
def test_parity(saved, difference, rng, sizes, lengths):
    model = transformers.DebertaV2Model(transformers.DebertaV2Config(**sizes))
    encoder = saved(model, 0.02 if sizes is BASE else 0.3)
    assert (encoder.kind, encoder.unused, encoder.missing) == ("deberta-v2", [], [])
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.where(mask, rng.integers(2, 50, mask.shape), 0).astype(np.int32)
    with torch.no_grad():
        out = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
    ours = np.asarray(jax.jit(encoder.module.apply)(encoder.variables, ids, mask))
    found = difference(ours[mask], out.last_hidden_state[torch.tensor(mask)])
    print(f"DeBERTa-v3 {sizes['hidden_size']}: {found:.1e}")
    assert found < 1e-4
    assert (ours[~mask] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size is 3; DeBERTa-v3 has 0"),
        ({"share_att_key": False}, "share_att_key is False; DeBERTa-v3 has True"),
        ({"pos_att_type": "c2p"}, "pos_att_type is .*; DeBERTa-v3 has p2c|c2p"),
        ({"position_buckets": 400}, "position_buckets 400 is impossible"),
    ],
)
def test_other_versions_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        DebertaConfig.from_hf(TINY | changes)
