"""ModernBERT against transformers' torch model."""

import jax
import numpy as np
import pytest
import torch
import transformers

from maven_jax.encoders.modernbert import ModernBertConfig
from maven_jax.errors import UserError

TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "local_attention": 8,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "cls_token_id": 0,
    "sep_token_id": 2,
}
BASE = {"pad_token_id": 1}


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        # Three of four layers see four tokens to each side.
        pytest.param(TINY, (30, 9), id="tiny"),
        pytest.param(BASE, (200, 31), id="large", marks=pytest.mark.slow),
    ],
)
def test_parity(saved, difference, rng, sizes, lengths):
    config = transformers.ModernBertConfig(**sizes, attn_implementation="eager")
    model = transformers.ModernBertModel(config)
    encoder = saved(model, 0.02 if sizes is BASE else 0.3)
    assert (encoder.kind, encoder.unused, encoder.missing) == ("modernbert", [], [])
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.where(mask, rng.integers(3, 50, mask.shape), 1).astype(np.int32)
    with torch.no_grad():
        out = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
    ours = np.asarray(jax.jit(encoder.module.apply)(encoder.variables, ids, mask))
    found = difference(ours[mask], out.last_hidden_state[torch.tensor(mask)])
    print(f"ModernBERT {config.hidden_size}: {found:.1e}")
    assert found < 1e-4
    assert (ours[~mask] == 0).all()


def test_configs_as_published_and_as_written_since_are_the_same():
    published = {
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 500.0,
        "num_hidden_layers": 4,
    }
    kinds = ["full_attention", "sliding_attention"]
    since = {
        "layer_types": kinds * 2,
        "rope_parameters": {
            k: {"rope_type": "default", "rope_theta": t} for k, t in zip(kinds, (500, 10_000))
        },
        "num_hidden_layers": 4,
    }
    assert ModernBertConfig.from_hf(published) == ModernBertConfig.from_hf(since)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_bias": True}, "norm_bias is true"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types do not repeat"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "scaled rotary"),
    ],
)
def test_what_the_network_has_not_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        ModernBertConfig.from_hf(TINY | changes)
