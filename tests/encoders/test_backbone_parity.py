"""IResNet, VGGish, R(2+1)D and the audio ResNet against torch.nn; full sizes by way of files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

from maven_jax.convert.backbones import convert_encoder, take_encoder
from maven_jax.convert.huggingface import load_encoder, random_encoder
from maven_jax.convert.tensor_files import Tensors
from maven_jax.encoders.registry import KINDS, make_encoder
from maven_jax.errors import UserError
from maven_jax.runtime.sharding import logical_rules, make_mesh, tree_shardings
from tests.support import reference_backbones as reference

# Compiling takes longer than running here.
FAST_COMPILE = {"xla_backend_optimization_level": 0}
IRESNET = {
    "image_size": 12,
    "stem_dim": 8,
    "widths": [8, 12, 16],
    "depths": [2, 2, 1],
    "strides": [1, 2, 2],
    "embed_dim": 6,
}
VGGISH = {"num_frames": 12, "num_bands": 8, "widths": [3, 4], "pooled": [1, 1], "hidden_dims": [6]}
R2PLUS1D = {
    "image_size": 12,
    "num_channels": 4,
    "num_frames": 5,
    "stem_dims": [3, 8],
    "widths": [8, 12],
    "depths": [2, 1],
    "strides": [1, 2],
}
AUDIO = {"num_bands": 16, "stem_dim": 8, "widths": [8, 12], "depths": [2, 1], "strides": [1, 2]}
TINY = {"iresnet50": IRESNET, "vggish": VGGISH, "r2plus1d": R2PLUS1D, "audio_resnet18": AUDIO}


def tensors_of(model: torch.nn.Module) -> Tensors:
    state = model.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    return Tensors(shapes, lambda name: state[name].numpy(), "0" * 64)


def adapt_statistics(norm, inputs):
    """Gives a norm about the scale of what it is shown, and some mean.

    Not the true mean: in untrained networks the deviations from it are so small beside it that
    their differences would say more about rounding than about the network.
    """
    x = inputs[0].transpose(0, 1).flatten(1)
    scale = x.square().mean(1).sqrt()
    norm.running_mean.copy_(0.2 * scale * torch.randn(scale.shape))
    norm.running_var.copy_((x - norm.running_mean[:, None]).square().mean(1))


def trained(model: torch.nn.Module, *runs) -> torch.nn.Module:
    """As if trained: no start values, and norms that have seen the inputs of `runs`."""
    generator = torch.Generator().manual_seed(0)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    prelus = [m for m in model.modules() if isinstance(m, torch.nn.PReLU)]
    hooks = [norm.register_forward_pre_hook(adapt_statistics) for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.weight.fill_(0.5)  # branches that, as in trained networks, add less than there is
        biases = [norm.bias for norm in norms]
        for parameter in [m.weight for m in norms + prelus] + biases:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        model.eval()
        for run in runs:
            run()
    for hook in hooks:
        hook.remove()
    return model


def run(encoder, x):
    return jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)(encoder.variables, x)


def inputs(kind: str, rng, n: int = 2) -> jax.Array:
    (example,) = KINDS[kind].example(KINDS[kind].read(TINY[kind]))
    return jnp.asarray(rng.standard_normal((n, *example.shape[1:]), np.float32))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_parity_iresnet50(tmp_path, difference, rng):
    model = reference.ExpressionNetwork()
    trained(model, lambda: model.backbone(torch.randn(8, 3, 40, 40)))
    lines = convert_encoder("iresnet50", tensors_of(model), tmp_path, source="ir.pth")
    assert lines == [
        f"{tmp_path}: iresnet50 from 295 tensors",
        "left out: 54 num_batches_tracked, which only training uses",
        "left out: logits.weight, logits.bias, a head for another task",
    ]
    images = rng.standard_normal((2, 40, 40, 3), np.float32)
    with torch.no_grad():
        expected = model.backbone(torch.tensor(images).permute(0, 3, 1, 2).contiguous())
    ours = run(load_encoder(tmp_path, kind="iresnet50"), images)
    assert difference(ours, expected) < 1e-5  # of unit vectors


def test_parity_vggish(tmp_path, difference, rng):
    model = reference.Vggish().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    lines = convert_encoder("vggish", tensors_of(model), tmp_path, source="vggish.pth")
    assert lines == [f"{tmp_path}: vggish from 18 tensors"]
    examples = rng.standard_normal((2, 96, 64), np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(examples)[:, None])
    assert expected.std() > 0.5
    assert difference(run(load_encoder(tmp_path), examples), expected) < 1e-4


def test_parity_tsav(tmp_path, difference, rng):
    model = reference.Tsav()
    video, audio = model.video_model.r2plus1d, model.audio_model.resnet
    clips = rng.standard_normal((1, 8, 112, 112, 3), np.float32)
    mel = rng.standard_normal((2, 64, 104), np.float32)
    # RJCA shows colours only; a mask of zeros is what the fourth channel's weights cannot change.
    masked = (
        torch.nn.functional.pad(torch.tensor(clips), (0, 1)).permute(0, 4, 1, 2, 3).contiguous()
    )
    trained(model, lambda: video(masked), lambda: audio(torch.tensor(mel)[:, None]))
    lines = convert_encoder("tsav", tensors_of(model), tmp_path, source="tsav.pth")
    assert lines == [
        f"{tmp_path}/visual: r2plus1d from 185 tensors",
        f"{tmp_path}/audio: audio_resnet18 from 100 tensors",
        "left out: the mask's channel of video_model.r2plus1d.stem.0.weight, which RJCA drops too",
        "left out: 57 num_batches_tracked, which only training uses",
        "left out: fc.1.weight, fc.1.bias, a head for another task",
    ]
    with torch.no_grad():
        places = video(masked)[:, :, 0].flatten(2).transpose(1, 2)
        expected = audio(torch.tensor(mel)[:, None])
    assert places.shape == (1, 49, 512)
    assert places.std() > 0.3
    assert expected.std() > 0.3
    visual = load_encoder(tmp_path / "visual", kind="r2plus1d")
    assert difference(run(visual, clips), places) < 1e-4
    heard = load_encoder(tmp_path / "audio", kind="audio_resnet18")
    assert difference(run(heard, mel), expected) < 1e-4


def test_parity_of_four_channels_and_of_time_that_is_left(difference, rng):
    c = {"widths": R2PLUS1D["widths"], "depths": R2PLUS1D["depths"]}
    model = reference.R2Plus1D(stem=tuple(R2PLUS1D["stem_dims"]), **c)
    clips = inputs("r2plus1d", rng)
    x = torch.tensor(np.array(clips)).permute(0, 4, 1, 2, 3).contiguous()
    trained(model, lambda: model(x))
    taken = take_encoder("r2plus1d", R2PLUS1D, tensors_of(model))
    ours = make_encoder("r2plus1d", R2PLUS1D).apply({"params": taken.params, **taken.state}, clips)
    with torch.no_grad():
        expected = model(x)
    assert expected.shape[2] == 3  # of five frames
    assert difference(ours, expected.mean(2).flatten(2).transpose(1, 2)) < 1e-5


def test_gradients_of_iresnet(difference, rng):
    c = {"side": 12, "stem": 8, "widths": (8, 12, 16), "depths": (2, 2, 1), "out": 6}
    model = reference.IResNet(**c)
    images = inputs("iresnet50", rng, 3)
    # Contiguous, and without oneDNN, whose backward pass corrupts memory with such sizes when
    # channels come last.
    x = torch.tensor(np.array(images)).permute(0, 3, 1, 2).contiguous()
    trained(model, lambda: model(x))
    taken = take_encoder("iresnet50", IRESNET, tensors_of(model))
    weights = rng.standard_normal((3, 6)).astype(np.float32)

    x.requires_grad_()
    with torch.backends.mkldnn.flags(enabled=False):
        (model(x) * torch.tensor(weights)).sum().backward()

    module = make_encoder("iresnet50", IRESNET)

    def loss(params, images):
        return (module.apply({"params": params, **taken.state}, images) * weights).sum()

    gradients = jax.jit(jax.grad(loss, (0, 1)), compiler_options=FAST_COMPILE)
    of_params, of_images = gradients(taken.params, images)
    assert difference(of_images, x.grad.permute(0, 2, 3, 1)) < 1e-5
    # The same table carries gradients over as carries weights.
    grads = {name: p.grad.numpy() for name, p in model.named_parameters()}
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    shapes = {name: value.shape for name, value in state.items()}
    read = (state | grads).__getitem__
    expected = flatten_dict(take_encoder("iresnet50", IRESNET, Tensors(shapes, read, "")).params)
    ours = flatten_dict(of_params)
    assert ours.keys() == expected.keys()
    for path, value in expected.items():
        assert np.abs(value).max() > 1e-4, path
        assert difference(ours[path], torch.tensor(value)) < 1e-4, path


@pytest.mark.parametrize("kind", TINY)
def test_remat_changes_nothing_and_bfloat16_little(kind, rng):
    encoder = random_encoder(kind, TINY[kind], 0)
    x = inputs(kind, rng)

    def value_and_gradient(**options):
        module = make_encoder(kind, TINY[kind], **options)

        def loss(params):
            y = module.apply({"params": params, **encoder.state}, x)
            assert y.dtype == jnp.float32
            return jnp.square(y).mean(), y

        both = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=FAST_COMPILE)
        (_, y), gradient = both(encoder.params)
        return y, gradient

    y, gradient = value_and_gradient()
    assert np.asarray(y).std(0).max() > 1e-3  # it tells inputs apart
    again, other = value_and_gradient(remat=True)
    np.testing.assert_allclose(again, y, atol=1e-6)
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    half, _ = value_and_gradient(dtype=jnp.bfloat16)
    assert 0 < np.abs(np.asarray(half - y)).max() < 0.05 * np.abs(np.asarray(y)).max() + 0.05


@pytest.mark.parametrize("kind", TINY)
def test_every_axis_of_a_parameter_has_a_rule(kind):
    module = make_encoder(kind, TINY[kind])
    (example,) = KINDS[kind].example(KINDS[kind].read(TINY[kind]))
    boxed = jax.eval_shape(module.init, jax.random.key(0), example)
    shardings = tree_shardings(make_mesh(-1, 1), boxed, logical_rules(fsdp=True))
    specs = [leaf.spec for leaf in jax.tree.leaves(shardings["params"])]
    # Without names a parameter would silently be copied to every device.
    assert all(len(spec) for spec in specs)
    assert any("data" in spec for spec in specs)


def test_statistics_never_change(rng):
    encoder = random_encoder("iresnet50", IRESNET, 0)
    _, after = encoder.module.apply(
        encoder.variables, inputs("iresnet50", rng), mutable=["batch_stats"]
    )
    before, after = flatten_dict(encoder.state["batch_stats"]), flatten_dict(after["batch_stats"])
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value)


def test_rows_are_independent(rng):
    for kind in TINY:
        encoder = random_encoder(kind, TINY[kind], 0)
        x = inputs(kind, rng, 3)
        np.testing.assert_allclose(run(encoder, x)[:1], run(encoder, x[:1]), atol=1e-5)


def test_no_direction_out_of_zeros():
    encoder = random_encoder("iresnet50", IRESNET, 0)
    black = jnp.zeros((1, 12, 12, 3))
    y, gradient = jax.value_and_grad(lambda x: encoder.module.apply(encoder.variables, x).sum())(
        black
    )
    assert y == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("iresnet50", (1, 10, 12, 3), r"images of \(10, 12, 3\), but .* made for \(12, 12, 3\)"),
        ("vggish", (1, 12, 9), r"examples of \(12, 9\), but the encoder is made for \(12, 8\)"),
        ("r2plus1d", (1, 5, 12, 12, 3), r"clips of .* but the encoder is made for \(5, 12, 12, 4"),
        ("audio_resnet18", (1, 8, 30), "8 bands, but the encoder is made for 16"),
    ],
)
def test_inputs_of_other_sizes_are_refused(kind, shape, message):
    encoder = random_encoder(kind, TINY[kind], 0)
    with pytest.raises(ValueError, match=message):
        encoder.module.apply(encoder.variables, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("iresnet50", {"width": 3}, "unknown key 'width'; did you mean 'widths'"),
        ("iresnet50", {"depths": [1, 2]}, r"widths .* and depths .* differ in length"),
        ("iresnet50", {"depths": [1, 0, 1]}, r"depths is \(1, 0, 1\), expected at least 1"),
        ("iresnet50", {"normalize": 1}, "normalize is 1, expected true or false"),
        ("vggish", {"num_bands": 3}, "2 poolings leave nothing of 12×3"),
        ("r2plus1d", {"stem_dims": [3]}, r"stem_dims is \(3,\), expected 2 values"),
        ("audio_resnet18", {"num_bands": "64"}, "num_bands is '64', expected a whole number"),
    ],
)
def test_impossible_configs_are_refused(kind, changes, message):
    with pytest.raises(UserError, match=message):
        make_encoder(kind, TINY[kind] | changes)
    with pytest.raises(UserError, match=r"'swin' has no remat; iresnet50, vggish"):
        make_encoder("swin", {}, remat=True)
