"""What published files of encoders may and may not hold."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from maven_jax.convert.backbones import ENCODER_FILES, convert_encoder, take_encoder
from maven_jax.convert.encoder_tables import entries
from maven_jax.convert.huggingface import random_encoder
from maven_jax.convert.loaded import variable_shapes
from maven_jax.convert.tensor_files import Tensors
from maven_jax.encoders.registry import kind_of, make_encoder
from maven_jax.errors import UserError
from tests.support.reference_backbones import IResNet
from tests.support.released import with_random_weights

AUDIO = {"num_bands": 16, "stem_dim": 4, "widths": [4, 6], "depths": [1, 1], "strides": [1, 2]}


def unread(name):
    raise AssertionError(f"{name} was read")


def names_of(kind, prefix, config=None):
    """Name -> shape of the tensors that the tables want, and the counters beside them."""
    shapes = variable_shapes(kind, config or {})
    tensors = {
        prefix + e.source: e.source_shape(shapes[e.target].shape)
        for e in entries(kind, kind_of(kind).read(config or {}))
    }
    counters = [n.replace("running_var", "num_batches_tracked") for n in tensors if "_var" in n]
    return tensors | dict.fromkeys(counters, ())


@pytest.fixture(scope="module")
def vggish():
    return Tensors(names_of("vggish", ""), unread, "0" * 64)


@pytest.fixture(scope="module")
def tsav():
    shapes = names_of("r2plus1d", "video_model.r2plus1d.", {"num_channels": 4})
    shapes |= names_of("audio_resnet18", "audio_model.resnet.")
    shapes |= {"fc.1.weight": (17, 1024), "fc.1.bias": (17,)}
    return Tensors(shapes, unread, "0" * 64)


def changed(tensors, **shapes):
    """Other shapes; None drops a tensor. Dots are written as two underscores."""
    new = dict(tensors.shapes)
    for key, shape in shapes.items():
        name = key.replace("__", ".")
        if shape is None:
            del new[name]
        else:
            new[name] = shape
    return dataclasses.replace(tensors, shapes=new)


def test_odd_tensors_are_counted_and_named_before_any_is_read(vggish, tsav, tmp_path):
    odd = {f"more__{i}": (i,) for i in range(20)}
    with pytest.raises(UserError) as error:
        convert_encoder(
            "vggish",
            changed(vggish, features__0__bias=None, embeddings__4__weight=(3, 4096), **odd),
            tmp_path,
            source="v.pth",
        )
    assert str(error.value) == (
        "v.pth: no vggish: 1 missing: features.0.bias (64,); 1 of another shape: "
        "embeddings.4.weight has shape (3, 4096), not (128, 4096); 20 unknown: "
        + ", ".join(f"more.{i}" for i in range(8))
        + " and 12 more"
    )
    inside = {
        "video_model__r2plus1d__extra": (1,),
        "audio_model__resnet__layer1__0__bn1__running_mean": None,
        "audio_model__other": (2,),
    }
    with pytest.raises(UserError) as error:
        convert_encoder("tsav", changed(tsav, **inside), tmp_path, source="t.pth")
    assert str(error.value) == (
        "t.pth: no tsav: 1 missing: audio_model.resnet.layer1.0.bn1.running_mean (64,); "
        "2 unknown: video_model.r2plus1d.extra, audio_model.other"
    )
    assert not list(tmp_path.iterdir())


def test_another_models_file_is_one_short_line(vggish, tsav, tmp_path):
    with pytest.raises(UserError) as error:
        convert_encoder("iresnet50", vggish, tmp_path, source="v.pth")
    assert str(error.value) == (
        "v.pth: holds none of the tensors of iresnet50; it has "
        "features.0.weight, features.0.bias, features.3.weight and 15 more"
    )
    with pytest.raises(UserError, match="it has nothing"):
        convert_encoder("tsav", Tensors({}, unread, ""), tmp_path, source="t.pth")
    with pytest.raises(UserError, match="no encoder file 'vgg'; expected one of iresnet50, vgg"):
        convert_encoder("vgg", vggish, tmp_path, source="v.pth")
    assert ENCODER_FILES == ("iresnet50", "vggish", "r2plus1d", "tsav")


def test_masks_channel_is_dropped_only_for_three_channels(tsav, tmp_path):
    stem = "video_model.r2plus1d.stem.0.weight"
    three = changed(tsav, **{stem.replace(".", "__"): (45, 3, 1, 7, 7)})
    with pytest.raises(UserError, match=r"has shape \(45, 3, 1, 7, 7\), not \(45, 4, 1, 7, 7\)"):
        convert_encoder("tsav", three, tmp_path, source="t.pth", num_channels=4)
    five = changed(tsav, **{stem.replace(".", "__"): (45, 5, 1, 7, 7)})
    with pytest.raises(UserError, match=r"has shape \(45, 5, 1, 7, 7\), not \(45, 3, 1, 7, 7\)"):
        convert_encoder("tsav", five, tmp_path, source="t.pth")
    for tensors, channels in ((tsav, 3), (tsav, 4), (three, 3)):
        with pytest.raises(AssertionError, match="was read"):  # the shapes are right
            convert_encoder("tsav", tensors, tmp_path, source="t.pth", num_channels=channels)


def test_an_encoder_is_found_under_its_prefix():
    encoder = random_encoder("audio_resnet18", AUDIO, 0)
    shapes = names_of("audio_resnet18", "spatial.audio.", AUDIO) | {"spatial.fc": (3,), "bn1": (2,)}
    values = {name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate(shapes.items())}
    values["spatial.audio.odd"] = np.zeros(1)
    tensors = Tensors({n: v.shape for n, v in values.items()}, values.__getitem__, "")
    taken = take_encoder("audio_resnet18", AUDIO, tensors, prefix="spatial.audio.")
    assert taken.unknown == ["spatial.audio.odd"]
    assert (taken.missing, taken.misshaped) == ([], [])
    assert all(name.endswith("num_batches_tracked") for name in taken.left_out)
    assert not {"spatial.fc", "bn1"} & {*taken.used, *taken.left_out}
    bias = taken.params["block1"]["norm_out"]["bias"]
    np.testing.assert_array_equal(bias, values["spatial.audio.layer2.0.bn2.bias"])
    variance = taken.state["batch_stats"]["stem_norm"]["var"]
    np.testing.assert_array_equal(variance, values["spatial.audio.bn1.running_var"])
    assert encoder.state["batch_stats"]["stem_norm"]["var"].shape == variance.shape
    without = Tensors({n: s for n, s in tensors.shapes.items() if "bn2" not in n}, unread, "")
    taken = take_encoder("audio_resnet18", AUDIO, without, prefix="spatial.audio.")
    assert (taken.params, taken.state) == ({}, {})
    assert "spatial.audio.layer1.0.bn2.weight (4,)" in taken.missing


def evolve_names(side):
    """An IR network as face.evoLVe saves it, without a prefix."""
    with torch.device("meta"):
        return {n: tuple(v.shape) for n, v in IResNet(side=side).state_dict().items()}


def insightface_names(depths):
    names = names_of(
        "iresnet50",
        "",
        {"insightface": True, "image_size": 112, "strides": [2] * 4, "depths": list(depths)},
    )
    assert names["layer1.0.downsample.0.weight"] == (64, 64, 1, 1)
    assert names["fc.weight"] == (512, 512 * 7 * 7)
    return names


@pytest.mark.parametrize(
    "names",
    [
        {f"backbone.{n}": s for n, s in evolve_names(40).items()},
        evolve_names(56),  # as large behind its three halvings as 112 behind four
        insightface_names((3, 13, 30, 3)),
    ],
    ids=["rjcma", "evolve_112", "insightface_100"],
)
def test_face_networks_of_every_published_form_fit(names, tmp_path):
    with pytest.raises(AssertionError, match="was read"):  # the shapes are right
        convert_encoder("iresnet50", Tensors(names, unread, ""), tmp_path, source="f.pth")


def test_torchvisions_video_network_fits(tmp_path):
    names = names_of("r2plus1d", "") | {"fc.weight": (400, 512), "fc.bias": (400,)}
    with pytest.raises(AssertionError, match="was read"):
        convert_encoder("r2plus1d", Tensors(names, unread, ""), tmp_path, source="v.pth")


class InsightfaceUnit(torch.nn.Module):
    def __init__(self, width, features, stride):
        super().__init__()
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv1 = torch.nn.Conv2d(width, features, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(features)
        self.prelu = torch.nn.PReLU(features)
        self.conv2 = torch.nn.Conv2d(features, features, 3, stride, 1, bias=False)
        self.bn3 = torch.nn.BatchNorm2d(features)
        self.downsample = torch.nn.Sequential(
            torch.nn.Conv2d(width, features, 1, stride, bias=False), torch.nn.BatchNorm2d(features)
        )

    def forward(self, x):
        y = self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))
        return self.bn3(y) + self.downsample(x)


class Insightface(torch.nn.Module):
    """Two stages of one unit each, under InsightFace's names."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.prelu = torch.nn.PReLU(4)
        self.layer1 = torch.nn.Sequential(InsightfaceUnit(4, 4, 2))
        self.layer2 = torch.nn.Sequential(InsightfaceUnit(4, 6, 2))
        self.bn2 = torch.nn.BatchNorm2d(6)
        self.fc = torch.nn.Linear(6 * 2 * 2, 5)
        self.features = torch.nn.BatchNorm1d(5)

    def forward(self, images):
        x = self.prelu(self.bn1(self.conv1(images)))
        x = self.bn2(self.layer2(self.layer1(x)))
        return self.features(self.fc(x.flatten(1)))


def test_insightfaces_network_gives_what_it_gives_in_torch():
    network = with_random_weights(Insightface())
    config = dict(
        image_size=8, stem_dim=4, widths=[4, 6], depths=[1, 1], strides=[2, 2], embed_dim=5,
        normalize=False, insightface=True,
    )  # fmt: skip
    state = {n: v.numpy() for n, v in network.state_dict().items()}
    tensors = Tensors({n: v.shape for n, v in state.items()}, state.__getitem__, "")
    taken = take_encoder("iresnet50", config, tensors)
    assert (taken.missing, taken.misshaped, taken.unknown) == ([], [], [])
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(images).numpy()
    module = make_encoder("iresnet50", config)
    variables = {"params": taken.params, **taken.state}
    found = module.apply(variables, jnp.asarray(images.numpy().transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
