"""Whisper's encoder against transformers' pipeline: windows, and where their frames lie in time."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder as Reference

from maven_jax.convert.huggingface import load_encoder
from maven_jax.features.device import Clock
from maven_jax.features.whisper import WhisperEncoder
from tests.encoders.conftest import randomise
from tests.features.test_parity import Samples

SIZES = dict(
    d_model=16,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=16,
    decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=8,
    num_mel_bins=80,
    max_source_positions=100,
    vocab_size=20,
    pad_token_id=0,
    bos_token_id=0,
    eos_token_id=0,
    decoder_start_token_id=0,
)


@pytest.fixture
def opened(tmp_path):
    config = transformers.WhisperConfig(**SIZES)
    model = randomise(transformers.WhisperForConditionalGeneration(config), 0.1)
    model.save_pretrained(tmp_path)
    extractor = transformers.WhisperFeatureExtractor(chunk_length=2)
    extractor.save_pretrained(tmp_path)
    options = dict(source=str(tmp_path), dtype="float32", batch_size=1, batch_buckets=1)
    return model.model.encoder, extractor, WhisperEncoder(**options, overlap_s=0.4)


def test_parity_of_windows(opened):
    model, extractor, encoder = opened
    rng = np.random.default_rng(0)
    samples = rng.normal(size=16000 * 3 + 100).astype(np.float32)

    def expected(wave):
        inputs = extractor(wave, sampling_rate=16000, return_tensors="pt")["input_features"]
        with torch.no_grad():
            return model(inputs).last_hidden_state[0].numpy()

    parts = list(encoder.encode(Samples(samples), Clock()))
    times, found = (np.concatenate(x) for x in zip(*parts))
    np.testing.assert_allclose(times, np.arange(151) * 0.02, atol=1e-9)
    # Two windows of 2 s; what only one of them sees is that one's alone.
    first, second = expected(samples[:32000]), expected(samples[80 * 320 :])
    np.testing.assert_allclose(found[:80], first[:80], atol=1e-4)
    np.testing.assert_allclose(found[100:], second[20:71], atol=1e-4)


def test_frames_lie_where_the_sound_is(opened):
    """What changes when one sample does lies around that sample's time."""
    _, _, encoder = opened
    samples = np.random.default_rng(0).normal(size=32000).astype(np.float32)
    mel = encoder._mel(samples)
    for at in (8000, 16000, 24160):
        other = samples.copy()
        other[at] += 3
        change = np.abs(encoder._mel(other) - mel).sum(1)
        columns = np.flatnonzero(change > change.max() * 0.3)
        assert abs(columns.mean() * 0.01 - at / 16000) <= 0.005


@pytest.mark.slow
def test_parity_large(tmp_path):
    sizes = SIZES | dict(
        d_model=1024,
        encoder_layers=24,
        encoder_attention_heads=16,
        encoder_ffn_dim=4096,
        max_source_positions=1500,
    )
    config = transformers.WhisperConfig(**sizes)
    model = randomise(Reference(config), 0.01)
    model.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    mel = np.random.default_rng(0).normal(size=(1, 80, 3000)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(mel)).last_hidden_state.numpy()
    found = encoder.module.apply(encoder.variables, jnp.asarray(mel.transpose(0, 2, 1)))
    difference = np.abs(np.asarray(found) - expected).max()
    print(f"Whisper medium: {difference:.1e}")
    assert difference < 1e-4
