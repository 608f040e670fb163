"""RJCA's released checkpoint: same outputs as in PyTorch, from maps in the order of our stores."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maven_jax.__main__ import main
from tests.support.reference_rjca import ReleasedRjca
from tests.support.released import convert, predict, with_random_weights
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def released():
    return with_random_weights(ReleasedRjca(), gain=3)


@pytest.fixture(scope="module")
def converted(released, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rjca")
    # As the release's training script saves it, after training on several devices.
    state = {f"module.{name}": tensor for name, tensor in released.state_dict().items()}
    torch.save({"net": state, "best_Val_accV": np.float64(0.7)}, folder / "cam_model.pt")
    out = folder / "converted"
    assert convert("rjca", folder / "cam_model.pt", out, "--config.eval.batch_size=8") == 0
    return out


def random_features(seed=1):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 16, 512, 7, 7, generator=generator)
    # Channels that differ everywhere alike, without which pooling would leave little.
    maps += torch.randn(2, 16, 512, 1, 1, generator=generator)
    return maps, torch.randn(2, 16, 512, generator=generator)


def test_the_network_gives_what_it_gives_in_torch(released, converted):
    maps, audio = random_features()
    with torch.no_grad():
        expected = released(maps, audio).numpy()
    # Our encoder gives position after position, all channels of one beside each other.
    stored = maps.permute(0, 1, 3, 4, 2).flatten(2)
    va = predict(converted, {"visual": stored, "audio": audio}).va
    assert np.all(np.std(expected, axis=(0, 1)) > 0.02)
    np.testing.assert_allclose(va, expected, atol=1e-5)


def test_safetensors_give_the_same(released, converted, tmp_path):
    save_file(released.state_dict(), tmp_path / "rjca.safetensors")
    assert convert("rjca", tmp_path / "rjca.safetensors", tmp_path / "out") == 0
    maps, audio = random_features()
    features = {"visual": maps.flatten(2), "audio": audio}
    np.testing.assert_array_equal(
        predict(tmp_path / "out", features).va, predict(converted, features).va
    )


@pytest.mark.slow
def test_evaluate_opens_the_workdir(converted, tmp_path, capsys):
    store = write_small_store(
        tmp_path / "store", videos=1, frames=90, modalities={"visual": 49 * 512, "audio": 512}
    )
    arguments = ["--workdir", str(converted), "--store", str(store.path)]
    assert main(["evaluate", *arguments, "--split", "validation"]) == 0
    assert "standardised" not in capsys.readouterr().out
    scores = json.loads((converted / "eval" / "validation.json").read_text())
    assert scores["num_frames"] > 80
    assert scores["modalities"] == ["visual", "audio"]
    assert -1 < scores["ccc_valence"] < 1
    assert -1 < scores["ccc_arousal"] < 1
