"""RJCMA's released checkpoint: same outputs as in PyTorch, its encoders beside it."""

import json

import jax
import numpy as np
import pytest
import torch

from maven_jax.__main__ import main
from maven_jax.convert.huggingface import load_encoder
from tests.support.reference_backbones import ExpressionNetwork, Vggish
from tests.support.reference_rjcma import ReleasedRjcma
from tests.support.released import FAST_COMPILE, convert, light, predict, save, with_random_weights
from tests.support.stores import write_small_store

NAMES = {"visual": "video", "audio": "logmel", "text": "bert"}


@pytest.fixture(scope="module")
def released():
    return with_random_weights(ReleasedRjcma(ExpressionNetwork(), Vggish()))


@pytest.fixture(scope="module")
def file(released, tmp_path_factory):
    return save(released, tmp_path_factory.mktemp("rjcma") / "model_state_dict0.6.pth")


@pytest.fixture(scope="module")
def converted(file):
    out = file.parent / "converted"
    # A small batch makes a test of `evaluate` short.
    more = ("--dimension", "arousal", "--config.eval.batch_size=2")
    assert convert("rjcma", file, out, *more) == 0
    return out


def test_the_network_gives_what_it_gives_in_torch(released, converted):
    generator = torch.Generator().manual_seed(1)
    widths = {"visual": 512, "audio": 128, "text": 768}
    features = {m: torch.randn(2, 300, c, generator=generator) for m, c in widths.items()}
    with torch.no_grad():
        expected = released({NAMES[m]: x for m, x in features.items()}).numpy()
    va = predict(converted, features).va
    assert np.std(expected) > 0.02
    np.testing.assert_allclose(va[..., 1], expected, atol=1e-5)
    assert not np.any(va[..., 0])


def test_its_encoders_are_written_beside_it(released, converted):
    images = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    mel = torch.randn(1, 1, 96, 64, generator=torch.Generator().manual_seed(3))
    visual = load_encoder(converted / "encoders" / "visual", kind="iresnet50")
    audio = load_encoder(converted / "encoders" / "audio", kind="vggish")
    with torch.no_grad():
        faces = released.spatial["visual"].backbone(images).numpy()
        sounds = released.spatial["audio"]["backbone"](mel).numpy()
    for encoder, inputs, expected in (
        (visual, images.numpy().transpose(0, 2, 3, 1), faces),
        (audio, mel.numpy()[:, 0], sounds),
    ):
        apply = jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)
        np.testing.assert_allclose(apply(encoder.variables, inputs), expected, atol=1e-4)
    record = json.loads((converted / "config.json").read_text())
    assert visual.sha256 == audio.sha256 == record["converted"]["sha256"]


def test_what_it_left_out_is_said_and_what_it_predicts_is_asked(released, tmp_path, capsys):
    torch.save({"net": light(released.state_dict()), "best": np.float64(0.6)}, tmp_path / "cam.pt")
    assert convert("rjcma", tmp_path / "cam.pt", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "left out: 4 tensors, which only training uses (num_batches_tracked)" in said
    assert "left out: 4 tensors, a joint layer that" in said
    assert "left out: 2 tensors, a head for another task (logits)" in said
    assert "taken to be valence (--dimension)" in said
    record = json.loads((tmp_path / "out" / "config.json").read_text())
    assert record["config"]["model"]["dimensions"] == ["valence"]


def test_duplicates_that_differ_are_refused(released, tmp_path, capsys):
    state = light(released.state_dict())
    name = "temporal.logmel.network.2.net.4.weight_g"
    state[name] = state[name] + 1
    torch.save(state, tmp_path / "odd.pth")
    assert convert("rjcma", tmp_path / "odd.pth", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert name in error
    assert "temporal.logmel.network.2.conv2.weight_g" in error
    assert not (tmp_path / "out").exists()


def test_newer_names_of_weight_norm_are_the_same(released, tmp_path):
    renamed = {}
    for name, tensor in light(released.state_dict()).items():
        stem, _, end = name.rpartition(".")
        if end in ("weight_g", "weight_v"):
            end = f"parametrizations.weight.original{int(end == 'weight_v')}"
        renamed[f"{stem}.{end}"] = tensor
    torch.save(renamed, tmp_path / "new.pth")
    assert convert("rjcma", tmp_path / "new.pth", tmp_path / "out") == 0


def test_every_wrong_tensor_is_named_those_of_the_encoders_too(released, tmp_path, capsys):
    state = light(released.state_dict())
    missing = ["bn1.running_var", "spatial.visual.backbone.body.3.res_layer.2.weight"]
    unknown = ["regressor3.weight", "spatial.audio.backbone.features.99.bias"]
    misshaped = [
        "coattn.dcn_layers.1.dense_coattn.key3_linear.weight",
        "spatial.audio.backbone.embeddings.4.bias",
    ]
    for name in missing:
        del state[name]
    state |= dict.fromkeys(unknown, torch.zeros(2))
    state |= dict.fromkeys(misshaped, torch.zeros(7))
    torch.save(state, tmp_path / "wrong.pth")
    assert convert("rjcma", tmp_path / "wrong.pth", tmp_path / "out") == 2
    error = capsys.readouterr().err
    for name in missing + unknown + misshaped:
        assert name in error
    for count in ("2 missing", "2 unknown", "2 of another shape"):
        assert count in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_evaluate_opens_the_workdir(converted, tmp_path, capsys):
    store = write_small_store(
        tmp_path / "store",
        videos=1,
        frames=310,
        modalities={"visual": 512, "audio": 128, "text": 768},
    )
    arguments = ["--workdir", str(converted), "--store", str(store.path)]
    assert main(["evaluate", *arguments, "--split", "validation"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("text is standardised by the training statistics of")
    scores = json.loads((converted / "eval" / "validation.json").read_text())
    assert scores["num_frames"] > 290
    assert scores["ccc_valence"] is None
    assert -1 < scores["ccc_arousal"] < 1
