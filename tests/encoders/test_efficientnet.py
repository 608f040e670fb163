"""EfficientNets in all forms in which they are handed out, against a counterpart in torch."""

import json
import pickle
import zipfile

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maven_jax.__main__ import main
from maven_jax.convert.huggingface import load_encoder
from maven_jax.errors import UserError
from tests.encoders.conftest import randomise
from tests.support.reference_efficientnet import EfficientNet, onnx_bytes

FAST_COMPILE = {"xla_backend_optimization_level": 0}


def folder(model, tmp_path):
    name = "tf_efficientnet_b0" if model.bn1.eps == 1e-3 else "efficientnet_b0"
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    return tmp_path


def file(name, content):
    def write(model, tmp_path):
        path = tmp_path / name
        made = content(model)
        path.write_bytes(made) if isinstance(made, bytes) else torch.save(made, path)
        return path

    return write


FORMS = {
    "timm": folder,
    "module": file("whole.pt", lambda model: model),
    "state": file("state.pth", lambda model: {"state_dict": model.state_dict()}),
    "onnx": file("net.onnx", onnx_bytes),
}


@pytest.fixture(scope="module")
def models():
    """Padded as by TensorFlow, or not -> a network."""
    torch.manual_seed(0)
    sizes = (8, 12, 16, 20, 24, 28, 32), (2, 1, 1, 1, 1, 1, 1), 8
    return {same: randomise(EfficientNet(*sizes, same), 0.05) for same in (True, False)}


@pytest.mark.parametrize(
    ("form", "tensorflow"),
    [("timm", True), ("module", True), ("onnx", True), ("state", False), ("onnx", False)],
)
def test_parity_tiny(models, form, tensorflow, difference, rng, tmp_path):
    model = models[tensorflow]
    pixels = rng.normal(size=(2, 3, 61, 61)).astype(np.float32)
    # Only of a state dict this is believed; all other forms tell themselves.
    sizes = {"same_padding": form != "state", "norm_eps": 1e-5}
    source = FORMS[form](model, tmp_path)
    encoder = load_encoder(source, kind="efficientnet", head=True, sizes=sizes)
    apply = jax.jit(encoder.module.apply, compiler_options=FAST_COMPILE)
    found = apply(encoder.variables, pixels.transpose(0, 2, 3, 1))
    with torch.no_grad():
        assert difference(found, model.embed(torch.tensor(pixels))) < 1e-4
        head, params = encoder.head
        assert difference(head(params, found), model(torch.tensor(pixels))) < 1e-4
    assert encoder.unused == encoder.missing == []


def test_convert_writes_a_folder(models, tmp_path):
    (tmp_path / "a").mkdir()
    path = FORMS["onnx"](models[True], tmp_path / "a")
    command = ["convert", "--model", "emotieffnet", "--input", str(path), "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    whole, kept = load_encoder(path, kind="efficientnet"), load_encoder(tmp_path / "out")
    assert kept.sha256 == whole.sha256
    jax.tree.map(np.testing.assert_array_equal, kept.variables, whole.variables)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_runs_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"a": Evil(tmp_path / "ran")}, protocol=2))
    with pytest.raises(UserError, match="holds no tensors"):
        load_encoder(tmp_path / "evil.pt", kind="efficientnet")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["net.onnx", "net.pt", "net.safetensors"])
def test_damaged_files_are_refused_in_one_line(name, models, tmp_path):
    content = onnx_bytes(models[True]) if name.endswith("onnx") else b"PK\x03\x04 and no more"
    for part in (content[: len(content) // 2], b"", b"<html>", content[:5] + b"\xff" * 40):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(UserError) as caught:
            load_encoder(tmp_path / name, kind="efficientnet")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
