"""HuBERT against transformers' torch model; padding, chunks, frame times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from maven_jax.convert.huggingface import random_encoder
from maven_jax.encoders.hubert import HubertConfig
from maven_jax.errors import UserError

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "conv_dim": [8, 8, 12],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


# Compiling takes longer than running here.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def run(encoder, waveform, *args):
    apply = jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)
    return np.asarray(apply({"params": encoder.params}, waveform, *args))


def waves(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        LAYER,
        {"num_conv_pos_embeddings": 7, "conv_bias": True},
        {"feat_extract_norm": "layer"},
        {"do_stable_layer_norm": True},
        {"conv_pos_batch_norm": True, "feat_proj_layer_norm": False},
    ],
)
def test_parity_tiny(saved, difference, rng, changes):
    model = transformers.HubertModel(transformers.HubertConfig(**TINY | changes))
    encoder = saved(model, 0.3)
    waveform = waves(rng, 2, 1003)
    with torch.no_grad():
        expected = model(torch.tensor(waveform)).last_hidden_state
    assert difference(run(encoder, waveform), expected) < 1e-4
    assert "masked_spec_embed" in encoder.unused
    assert encoder.missing == []


@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, id="group", marks=pytest.mark.slow), pytest.param(LAYER, id="layer")],
)
def test_parity_base(saved, difference, rng, changes):
    model = transformers.HubertModel(transformers.HubertConfig(**changes))
    encoder = saved(model, 0.02)
    waveform = waves(rng, 1, 16000)
    with torch.no_grad():
        expected = model(torch.tensor(waveform)).last_hidden_state
    assert expected.shape == (1, 49, 768)
    assert difference(run(encoder, waveform), expected) < 1e-4


WAVLM = {"num_buckets": 16, "max_bucket_distance": 20}


@pytest.mark.parametrize(
    ("name", "changes"),
    [("Wav2Vec2", LAYER), ("WavLM", WAVLM), ("WavLM", WAVLM | LAYER)],
)
def test_parity_of_relatives(saved, difference, rng, name, changes):
    model = getattr(transformers, f"{name}Model")(
        getattr(transformers, f"{name}Config")(**TINY | changes)
    )
    encoder = saved(model, 0.3)
    assert encoder.kind == name.lower()
    waveform = waves(rng, 2, 2003)
    with torch.no_grad():
        expected = model(torch.tensor(waveform)).last_hidden_state
    assert difference(run(encoder, waveform), expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Wav2Vec2", "WavLM"])
def test_parity_large(saved, difference, rng, name):
    sizes = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    config = getattr(transformers, f"{name}Config")(**sizes | LAYER)
    model = getattr(transformers, f"{name}Model")(config)
    encoder = saved(model, 0.01)
    waveform = waves(rng, 1, 16000)
    with torch.no_grad():
        expected = model(torch.tensor(waveform)).last_hidden_state
    found = difference(run(encoder, waveform), expected)
    print(f"{name} large: {found:.1e}")
    assert found < 1e-4


def test_parity_with_attention_mask(saved, difference, rng):
    model = transformers.HubertModel(transformers.HubertConfig(**TINY | LAYER))
    encoder = saved(model, 0.3)
    waveform, mask = waves(rng, 2, 1003), np.arange(1003) < [[1003], [611]]
    waveform = waveform * mask
    with torch.no_grad():
        expected = model(torch.tensor(waveform), torch.tensor(mask).long()).last_hidden_state
    ours = run(encoder, waveform, mask)
    frames = encoder.module.config.num_frames(611)
    assert difference(ours[0], expected[0]) < 1e-4
    assert difference(ours[1, :frames], expected[1, :frames]) < 1e-4


@pytest.mark.parametrize("changes", [{}, LAYER, {"conv_pos_batch_norm": True}])
def test_padding_changes_nothing_and_comes_out_as_zeros(rng, changes):
    encoder = random_encoder("hubert", TINY | changes, 0)
    waveform, mask = waves(rng, 2, 1003), np.arange(1003) < [[1003], [611]]
    alone = run(encoder, waveform[1:, :611])
    frames = alone.shape[1]
    waveform[1, 611:] = np.nan
    padded = run(encoder, waveform, mask)
    np.testing.assert_allclose(padded[1:, :frames], alone, atol=1e-5)
    assert (padded[1, frames:] == 0).all()


def test_the_first_norm_takes_statistics_of_the_whole_recording(rng):
    encoder = random_encoder("hubert", TINY, 0)
    # Louder towards the end, and off centre: a chunk's own statistics would be others.
    waveform = (waves(rng, 1, 5003) * np.linspace(0.1, 3, 5003) + 1).astype(np.float32)
    kernel = np.asarray(encoder.params["conv_0"]["kernel"])[:, 0]
    patches = np.lib.stride_tricks.sliding_window_view(waveform[0], len(kernel))
    first = patches[:: encoder.module.config.conv_stride[0]] @ kernel
    statistics = first.mean(0, keepdims=True), first.var(0, keepdims=True)
    whole = run(encoder, waveform)
    np.testing.assert_allclose(run(encoder, waveform, None, statistics), whole, atol=1e-4)
    halved = statistics[0], statistics[1] / 2
    assert np.abs(run(encoder, waveform, None, halved) - whole).max() > 0.01


def test_frames_and_their_times():
    published = transformers.HubertConfig()
    with torch.device("meta"):
        lengths = transformers.HubertModel(published)._get_feat_extract_output_lengths
    config = HubertConfig.from_hf(published.to_dict())
    for samples in (400, 719, 720, 16000, 16123, 160000):
        assert config.num_frames(samples) == lengths(samples)
    assert config.num_frames(399) == config.num_frames(0) == 0
    assert (config.hop_samples, config.receptive_field_samples) == (320, 400)
    np.testing.assert_allclose(config.frame_times_s(2), [199.5 / 16000, 519.5 / 16000])


def test_frame_times_are_where_the_signal_is():
    """An impulse moves most the frame whose time is nearest."""
    encoder = random_encoder("hubert", TINY | {"num_hidden_layers": 1} | LAYER, 0)
    config = encoder.module.config
    silence, impulse = np.zeros((1, 1000), np.float32), np.zeros((1, 1000), np.float32)
    n = config.num_frames(1000)
    centre = config.frame_times_s(n, sample_rate_hz=1.0)[20]
    impulse[0, round(centre)] = 1.0

    def features(x):
        capture = {"capture_intermediates": lambda module, _: module.name == "projection"}
        _, state = encoder.module.apply({"params": encoder.params}, jnp.asarray(x), **capture)
        return np.asarray(state["intermediates"]["projection"]["__call__"][0])

    moved = np.flatnonzero(np.abs(features(impulse) - features(silence))[0].max(-1) > 1e-6)
    assert moved.size
    assert moved.mean() == pytest.approx(20, abs=0.5)


def test_bfloat16_is_close(rng):
    waveform = waves(rng, 1, 2000)
    exact = run(random_encoder("hubert", TINY, 0), waveform)
    half = run(random_encoder("hubert", TINY, 0, jnp.bfloat16), waveform)
    assert half.dtype == jnp.bfloat16
    assert 0 < np.abs(half.astype(np.float32) - exact).max() < 0.2


def test_waveforms_without_a_whole_frame_are_refused():
    encoder = random_encoder("hubert", TINY, 0)
    with pytest.raises(ValueError, match="29 samples; one frame needs 30"):
        run(encoder, np.zeros((1, 29), np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter_attn_dim": 16}, "adapter_attn_dim"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm 'batch'"),
        ({"conv_dim": [8]}, "differ in length"),
        ({"conv_stride": [5, 0, 2]}, "must be positive"),
        ({"num_conv_pos_embedding_groups": 3}, "does not divide hidden_size 16"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        HubertConfig.from_hf(TINY | changes)
