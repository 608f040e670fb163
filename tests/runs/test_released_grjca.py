"""GRJCA's and HGRJCA's checkpoints: same outputs as in PyTorch."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.reference_grjca import NAMES, ReleasedGrjca
from tests.support.released import convert, predict, with_random_weights

FRAMES = 12
SIZES = (
    "--config.model.channels.visual=16,12",
    "--config.model.channels.audio=16,8",
    "--config.model.head_dim=10",
    f"--config.data.window.length={FRAMES}",
)


def released(model):
    channels = {"video": (16, 12), "logmel": (16, 8)}
    return with_random_weights(ReleasedGrjca(channels, FRAMES, 10, model == "hgrjca"), gain=2)


@pytest.mark.parametrize("model", ["grjca", "hgrjca"])
def test_the_network_gives_what_it_gives_in_torch(model, tmp_path, capsys):
    network = released(model)
    # Safetensors keep one of two names of a tensor, in the order of the alphabet.
    state = {n: v.contiguous() for n, v in network.state_dict().items() if ".net." not in n}
    save_file(state, tmp_path / "model.safetensors")
    file = tmp_path / "model.safetensors"
    assert convert(model, file, tmp_path / "out", "--dimension", "arousal", *SIZES) == 0
    said = capsys.readouterr().out
    assert "last.0.weight is gate_visual.weight" in said
    assert "lacks encoders" in said
    generator = torch.Generator().manual_seed(1)
    features = {"visual": 512, "audio": 128}
    features = {m: torch.randn(2, FRAMES, c, generator=generator) for m, c in features.items()}
    with torch.no_grad():
        expected = network(dict(zip(NAMES, features.values()))).numpy()
    va = predict(tmp_path / "out", features).va
    assert np.std(expected) > 0.02
    np.testing.assert_allclose(va[..., 1], expected, atol=1e-5)


def test_a_gate_that_is_missing_is_named(tmp_path, capsys):
    state = released("hgrjca").state_dict()
    del state["second.1.weight"]
    torch.save(state, tmp_path / "w.pth")
    assert convert("hgrjca", tmp_path / "w.pth", tmp_path / "out", *SIZES) == 2
    error = capsys.readouterr().err
    assert "stage_2_audio.weight (3, 8)" in error
    assert len(error) < 600
