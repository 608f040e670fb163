"""ViT, MAE, CLIP and DINOv2 against transformers' torch models, positions interpolated too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "image_size": 28,
    "patch_size": 7,
}
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def run(encoder, pixels):
    apply = jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)
    return apply(encoder.variables, pixels.transpose(0, 2, 3, 1))


def plain(model, pixels, first=1, **options):
    states = model(pixels, **options).last_hidden_state
    return states[:, 0], states[:, first:].mean(1), None


def interpolated(model, pixels):
    return plain(model, pixels, interpolate_pos_encoding=True)


def unmasked(model, pixels):
    """MAE's patches come in random order, which their mean does not tell."""
    model.embeddings.config.mask_ratio = 0.0
    return plain(model, pixels)


def clip(model, pixels):
    tower = model.vision_model
    states = tower.post_layernorm(tower(pixels).last_hidden_state)
    return states[:, 0], states[:, 1:].mean(1), model(pixels).image_embeds


def classifier(model, pixels):
    return *plain(model.base_model, pixels)[:2], model(pixels).logits


CASES = {
    "vit": (hf.ViTForImageClassification, hf.ViTConfig, {}, 28, classifier),
    "vit_mae": (hf.ViTMAEModel, hf.ViTMAEConfig, {}, 28, unmasked),
    "clip_vision_model": (
        hf.CLIPVisionModelWithProjection,
        hf.CLIPVisionConfig,
        {"projection_dim": 6},
        28,
        clip,
    ),
    "dinov2": (hf.Dinov2ForImageClassification, hf.Dinov2Config, {}, 21, classifier),
    "dinov2_with_registers": (
        hf.Dinov2WithRegistersModel,
        hf.Dinov2WithRegistersConfig,
        {},
        49,
        lambda model, pixels: plain(model, pixels, first=5),
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_parity_tiny(saved, difference, rng, kind):
    of, config, changes, size, expect = CASES[kind]
    model = of(config(**TINY | changes))
    pixels = rng.normal(size=(2, 3, size, size)).astype(np.float32)
    encoder = saved(model, 0.3, head=expect in (classifier, clip))
    with torch.no_grad():
        cls, mean, told = expect(model, torch.tensor(pixels))
    out = run(encoder, pixels)
    assert encoder.kind == kind
    assert difference(out.cls, cls) < 1e-4
    assert difference(out.mean, mean) < 1e-4
    if told is not None:
        head, params = encoder.head
        inputs = out.cls if head.inputs == 16 else jnp.concatenate([out.cls, out.mean], -1)
        assert difference(head(params, inputs), told) < 1e-4


def test_parity_interpolated(saved, difference, rng):
    model = hf.ViTModel(hf.ViTConfig(**TINY), add_pooling_layer=False)
    pixels = rng.normal(size=(2, 3, 42, 42)).astype(np.float32)
    encoder = saved(model, 0.3)
    with torch.no_grad():
        cls, mean, _ = interpolated(model, torch.tensor(pixels))
    out = run(encoder, pixels)
    assert max(difference(out.cls, cls), difference(out.mean, mean)) < 1e-4


@pytest.mark.parametrize("pooled", [True, False])
def test_parity_of_videomae(saved, difference, rng, pooled):
    config = hf.VideoMAEConfig(**TINY, num_frames=4, use_mean_pooling=pooled)
    model = hf.VideoMAEModel(config)
    clips = rng.normal(size=(2, 4, 3, 28, 28)).astype(np.float32)
    encoder = saved(model, 0.3)
    with torch.no_grad():
        expected = model(torch.tensor(clips)).last_hidden_state.mean(1)
    apply = jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)
    assert difference(apply(encoder.variables, clips.transpose(0, 1, 3, 4, 2)), expected) < 1e-4
    assert encoder.unused == encoder.missing == []


LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of", "config", "changes", "expect"),
    [
        (hf.ViTForImageClassification, hf.ViTConfig, LARGE, classifier),
        (
            hf.CLIPVisionModelWithProjection,
            hf.CLIPVisionConfig,
            LARGE | {"patch_size": 14, "projection_dim": 768},
            clip,
        ),
        (
            hf.Dinov2Model,
            hf.Dinov2Config,
            LARGE | {"patch_size": 14, "image_size": 518},
            plain,
        ),
    ],
    ids=["vit", "clip", "dinov2"],
)
def test_parity_large(saved, difference, rng, of, config, changes, expect):
    model = of(config(**changes))
    pixels = rng.normal(size=(1, 3, 224, 224)).astype(np.float32)
    encoder = saved(model, 0.01)
    with torch.no_grad():
        cls, mean, _ = expect(model, torch.tensor(pixels))
    out = run(encoder, pixels)
    found = max(difference(out.cls, cls), difference(out.mean, mean))
    print(f"{encoder.kind} large: {found:.1e}")
    assert found < 1e-4
