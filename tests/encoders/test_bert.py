"""BERT against transformers' torch model; sums of layers; padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from maven_jax.convert.huggingface import random_encoder

TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
# Compiling takes longer than running here.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def batch(rng, lengths, vocabulary=50):
    """Random tokens, 0 included where they are real, and their mask."""
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return rng.integers(0, vocabulary, mask.shape).astype(np.int32) * mask, mask


def run(encoder, ids, mask, summed_layers=1):
    apply = jax.jit(
        encoder.module.apply, static_argnames="summed_layers", compiler_options=FAST_COMPILE
    )
    return np.asarray(apply(encoder.variables, ids, mask, summed_layers=summed_layers))


def reference(model, ids, mask, summed_layers=1):
    with torch.no_grad():
        out = model(
            torch.tensor(ids).long(),
            attention_mask=torch.tensor(mask).long(),
            output_hidden_states=True,
        )
    return sum(out.hidden_states[-summed_layers:]).numpy()


@pytest.mark.parametrize("summed_layers", [1, 2, 5])
def test_parity_tiny(saved, difference, rng, summed_layers):
    model = transformers.BertModel(transformers.BertConfig(**TINY), add_pooling_layer=False)
    encoder = saved(model, 0.3)
    ids, mask = batch(rng, [12, 5, 1])
    ours = run(encoder, ids, mask, summed_layers)
    assert difference(ours[mask], reference(model, ids, mask, summed_layers)[mask]) < 1e-4
    assert (ours[~mask] == 0).all()
    assert encoder.unused == []


@pytest.mark.slow
def test_parity_base(saved, difference, rng):
    model = transformers.BertForMaskedLM(transformers.BertConfig())
    encoder = saved(model, 0.02)
    assert encoder.kind == "bert"
    assert all(name.startswith("cls.") for name in encoder.unused)
    ids, mask = batch(rng, [30, 17], 30522)
    for summed_layers in (1, 4):
        expected = reference(model.bert, ids, mask, summed_layers)[mask]
        assert difference(run(encoder, ids, mask, summed_layers)[mask], expected) < 1e-4


def test_padding_changes_nothing(rng):
    encoder = random_encoder("bert", TINY, 0)
    ids, mask = batch(rng, [12, 5])
    other = np.where(mask, ids, 7)
    for layers in (1, 4):
        padded = run(encoder, ids, mask, layers)
        np.testing.assert_array_equal(padded, run(encoder, other, mask, layers))
        alone = run(encoder, ids[1:, :5], mask[1:, :5], layers)
        np.testing.assert_allclose(padded[1:, :5], alone, atol=1e-5)


def test_bfloat16_is_close(rng):
    ids, mask = batch(rng, [12, 5])
    exact = run(random_encoder("bert", TINY, 0), ids, mask, 4)
    half = run(random_encoder("bert", TINY, 0, jnp.bfloat16), ids, mask, 4)
    assert half.dtype == jnp.bfloat16
    assert 0 < np.abs(half.astype(np.float32) - exact).max() < 0.2


def test_what_the_encoder_has_not_is_refused(rng):
    encoder = random_encoder("bert", TINY, 0)
    assert run(encoder, *batch(rng, [20])).shape == (1, 20, 16)
    with pytest.raises(ValueError, match="21 tokens, but the encoder has positions for 20"):
        run(encoder, *batch(rng, [21]))
    for layers in (0, 6):
        with pytest.raises(ValueError, match=f"summed_layers={layers}, but the encoder has 5"):
            run(encoder, *batch(rng, [3]), layers)
