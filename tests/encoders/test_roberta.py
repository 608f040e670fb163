"""RoBERTa against transformers' torch model; padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from maven_jax.convert.huggingface import random_encoder
from maven_jax.encoders.roberta import RobertaConfig
from maven_jax.errors import UserError

TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}


def tokens(rng, lengths, vocabulary=50):
    """Random tokens (2 and more), padded with 1."""
    ids = rng.integers(2, vocabulary, (len(lengths), max(lengths))).astype(np.int32)
    for row, length in zip(ids, lengths, strict=True):
        row[length:] = 1
    return ids


# Compiling takes longer than running here.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def run(encoder, ids):
    apply = jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)
    return np.asarray(apply({"params": encoder.params}, ids, ids != 1))


def reference(model, ids):
    with torch.no_grad():
        mask = torch.tensor(ids != 1).long()
        return model(torch.tensor(ids).long(), attention_mask=mask).last_hidden_state


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu_new", "type_vocab_size": 1}])
def test_parity_tiny(saved, difference, rng, changes):
    config = transformers.RobertaConfig(**TINY | changes)
    model = transformers.RobertaModel(config, add_pooling_layer=False)
    encoder = saved(model, 0.3)
    ids = tokens(rng, [12, 5, 1])
    real = ids != 1
    assert difference(run(encoder, ids)[real], reference(model, ids)[torch.tensor(real)]) < 1e-4
    assert encoder.unused == []


@pytest.mark.slow
def test_parity_base(saved, difference, rng):
    config = transformers.RobertaConfig(max_position_embeddings=514, layer_norm_eps=1e-5)
    model = transformers.RobertaModel(config)
    encoder = saved(model, 0.02)
    ids = tokens(rng, [40, 17], 50265)
    real = ids != 1
    assert difference(run(encoder, ids)[real], reference(model, ids)[torch.tensor(real)]) < 1e-4
    assert encoder.unused == ["pooler.dense.bias", "pooler.dense.weight"]


def test_padding_changes_nothing_and_comes_out_as_zeros(rng):
    encoder = random_encoder("roberta", TINY, 0)
    ids = tokens(rng, [12, 5])
    padded = run(encoder, ids)
    np.testing.assert_allclose(padded[1:, :5], run(encoder, ids[1:, :5]), atol=1e-5)
    assert (padded[1, 5:] == 0).all()


def test_order_matters(rng):
    encoder = random_encoder("roberta", TINY, 0)
    ids = tokens(rng, [6])
    assert np.abs(run(encoder, ids[:, ::-1])[:, ::-1] - run(encoder, ids)).max() > 0.01


def test_bfloat16_is_close(rng):
    ids = tokens(rng, [12, 5])
    exact = run(random_encoder("roberta", TINY, 0), ids)
    half = run(random_encoder("roberta", TINY, 0, jnp.bfloat16), ids)
    assert half.dtype == jnp.bfloat16
    assert 0 < np.abs(half.astype(np.float32) - exact).max() < 0.1


def test_sequences_longer_than_the_position_table_are_refused(rng):
    encoder = random_encoder("roberta", TINY, 0)
    assert run(encoder, tokens(rng, [18])).shape == (1, 18, 16)
    with pytest.raises(ValueError, match="19 tokens, but the encoder has positions for 18"):
        run(encoder, tokens(rng, [19]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads 3 does not divide hidden_size 16"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps is 'small', expected a number"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        RobertaConfig.from_hf(TINY | changes)
