"""The forms in which people hand weights on: each is read, or refused in one line."""

import argparse
import gzip
import io
import os
import pathlib
import pickle
import warnings
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maven_jax.convert.tensor_files import read_file
from maven_jax.errors import UserError
from maven_jax.runs.convert_file import recognise, without_wrapper
from maven_jax.runs.released import NETWORKS, network_shapes
from tests.support.released import convert

SMALL = ("--config.model.embed_dim=8", "--config.model.head_dims=6,4")


def small_state():
    """A whole MAVEN of the release, narrow."""
    network = NETWORKS["maven-mlp"]
    config = network.config(None, SMALL)
    shapes = network_shapes(config, network.widths)
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(piece.source_shape(shapes[piece.target]), generator=generator)
        for piece in network.table(config).pieces
        for name in piece.sources
    }


STATE = {
    "multihead_attention.video_proj.weight": torch.arange(6.0).reshape(2, 3),
    "multihead_attention.layer_norm.bias": torch.tensor([0.5, -1.0]),
    "regressor.fc.0.weight": torch.ones(2, 2),
}


class Custom:
    """A class of somebody's code."""


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def arrays(state):
    return {name: value.numpy() for name, value in state.items()}


def lightning(state):
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": {
            **prefixed(state, "model._orig_mod."),
            "loss.pos_weight": torch.ones(1),
        },
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
        "hyper_parameters": {"root": pathlib.PosixPath("/data"), "opt": argparse.Namespace(lr=1)},
    }


def beside(**more):
    return lambda state: {"state_dict": state, **more}


# What a PyTorch file holds -> arguments of the command.
PICKLED = {
    "plain": (lambda s: s, ()),
    "ordered": (OrderedDict, ()),
    "data_parallel": (lambda s: prefixed(s, "module."), ()),
    "compiled": (lambda s: prefixed(s, "_orig_mod."), ()),
    "model.": (lambda s: prefixed(s, "model."), ()),
    "net.": (lambda s: prefixed(s, "net."), ()),
    "encoder.": (lambda s: prefixed(s, "encoder."), ()),
    "three_around": (lambda s: prefixed(s, "module._orig_mod.model."), ()),
    "lightning": (lightning, ()),
    "weights": (lambda s: {"weights": s, "epoch": 1}, ()),
    "params": (lambda s: {"params": s}, ()),
    "ema": (lambda s: {"ema": s}, ()),
    "model_state": (lambda s: {"model_state": s}, ()),
    "network": (lambda s: {"network": s}, ()),
    "student": (lambda s: {"student": prefixed(s, "module."), "teacher": s}, ()),
    "nested": (lambda s: {"checkpoint": {"model": s}}, ()),
    "key": (lambda s: {"best": s, "last": {}}, ("--key", "best")),
    "deep_key": (lambda s: {"a": {"b": s}, "state_dict": {"x": torch.ones(1)}}, ("--key", "a.b")),
    "namespace": (beside(args=argparse.Namespace(lr=1e-4, layers=[1, 2])), ()),
    "path": (beside(out=pathlib.PurePosixPath("/tmp/x")), ()),
    "numpy_beside": (beside(curve=np.arange(5.0), names=np.array(["a", "b"], object)), ()),
    "numpy_number": (beside(best=np.float64(0.6)), ()),
    "defaultdict": (beside(log=defaultdict(list, loss=[1.0, 2.0])), ()),
    "numpy_weights": (arrays, ()),
    "half": (lambda s: {k: v.to(torch.bfloat16) for k, v in s.items()}, ()),
    "old_format": (lambda s: s, ()),
}


def write_pickled(name, state, folder):
    path = folder / f"{name.strip('.')}.pth"
    new = name != "old_format"
    torch.save(PICKLED[name][0](state), path, _use_new_zipfile_serialization=new)
    return path


def write_npz(state, folder):
    np.savez(folder / "w.npz", **arrays(state))
    return folder / "w.npz"


def write_gz(state, folder):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    (folder / "w.pth.gz").write_bytes(gzip.compress(buffer.getvalue()))
    return folder / "w.pth.gz"


def write_zip(state, folder):
    torch.save({"state_dict": state}, folder / "inner.pth")
    with zipfile.ZipFile(folder / "w.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.write(folder / "inner.pth", "TSAV/TSAV_Sub4_544k.pth.tar")
        file.writestr("TSAV/README.txt", "weights")
        file.writestr("__MACOSX/._x.pth", "rubbish")
    return folder / "w.zip"


def write_safetensors(state, folder):
    save_file(state, folder / "w.safetensors")
    return folder / "w.safetensors"


OTHER_FILES = {f.__name__[6:]: f for f in (write_npz, write_gz, write_zip, write_safetensors)}
READ = [*PICKLED, *OTHER_FILES]


def write(name, state, folder):
    if name in PICKLED:
        return write_pickled(name, state, folder), PICKLED[name][1]
    return OTHER_FILES[name](state, folder), ()


@pytest.mark.parametrize("name", READ)
def test_a_form_is_read(name, tmp_path):
    path, more = write(name, STATE, tmp_path)
    tensors = without_wrapper(read_file(path, more[1] if more else None))
    assert recognise(tensors.shapes) == "maven-mlp"
    assert set(tensors.shapes) == set(STATE)
    for key, value in STATE.items():
        np.testing.assert_array_equal(tensors.read(key), value)


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_a_form_is_converted(name, tmp_path):
    path, more = write(name, small_state(), tmp_path)
    assert convert("maven-mlp", path, tmp_path / "out", *SMALL, *more) == 0


def broken_zip(folder):
    with zipfile.ZipFile(folder / "two.zip", "w") as file:
        file.writestr("a.pth", "x")
        file.writestr("b.pth", "x")
    return folder / "two.zip"


def saved(value, name="w.pth"):
    def write_it(folder):
        torch.save(value, folder / name)
        return folder / name

    return write_it


def file_of(content, name="w.pth"):
    def write_it(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write_it


def script(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / "w.pt"))
    return folder / "w.pt"


def object_npz(folder):
    np.savez(folder / "w.npz", weights=np.array([{"a": 1}], object))
    return folder / "w.npz"


def text_in_npz(folder):
    with zipfile.ZipFile(folder / "w.npz", "w") as file:
        file.writestr("weights.npy", "no array")
    return folder / "w.npz"


def zip_with_a_name_of_no_encoding(folder):
    with zipfile.ZipFile(folder / "w.pth", "w") as file:
        file.writestr("näme.npy", "x")
    data = (folder / "w.pth").read_bytes()
    (folder / "w.pth").write_bytes(data.replace("ä".encode(), b"\xe4\x6d"))
    return folder / "w.pth"


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


REFUSED = {
    "html": (file_of(b"\n<!DOCTYPE html><html>Sign in</html>"), "an HTML page"),
    "lfs": (file_of(b"version https://git-lfs.github.com/spec/v1\noid"), "Git LFS"),
    "hdf5": (file_of(b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5"),
    "tar": (file_of(bytes(257) + b"ustar\x0000" + bytes(250)), "a tar archive: unpack it"),
    "empty": (file_of(b""), "truncated"),
    "text": (file_of(b"valence,arousal\n"), "more than tensors"),
    "gz_cut": (file_of(gzip.compress(bytes(999))[:-9], "w.gz"), "truncated or damaged"),
    "zip_cut": (file_of(b"PK\x03\x04" + bytes(99)), "truncated, damaged or locked zip"),
    "two_in_zip": (broken_zip, "an archive of 2 files of weights (a.pth, b.pth)"),
    "whole_model": (saved({"model": torch.nn.ReLU()}), "torch.nn.modules.activation.ReLU"),
    "own_class": (saved({"state_dict": STATE, "x": Custom()}), "test_forms.Custom"),
    "code": (saved({"state_dict": STATE, "x": Runs()}), "posix.system"),
    "torchscript": (script, "TorchScript program; save its state_dict()"),
    "object_npz": (object_npz, "holds more than arrays"),
    "text_in_npz": (text_in_npz, "'weights' is no array"),
    "zip_names": (zip_with_a_name_of_no_encoding, "truncated, damaged or locked zip"),
    "unknown_key": (
        saved({"best": STATE, "optimizer": {"m": torch.ones(2)}}),
        "--key takes best (3 tensors)",
    ),
    "list": (saved([torch.ones(2)]), "holds a list, not named tensors"),
    "plain_pickle": (file_of(pickle.dumps({"a": np.ones(2)}, protocol=4)), "refused"),
    "no_tensors": (saved({"epoch": 3}), "holds no tensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_form_is_refused_in_one_line(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, said = REFUSED[name]
    assert convert("maven-mlp", make(tmp_path), tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert len(error) < 600
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "said"), [("none", "--key none: "), ("state_dict.model", "state_dict (3 tensors)")]
)
def test_a_key_that_is_not_there_lists_what_is(key, said, tmp_path):
    torch.save({"state_dict": STATE, "epoch": 1}, tmp_path / "w.pth")
    with pytest.raises(UserError) as error:
        read_file(tmp_path / "w.pth", key)
    assert said in str(error.value)


def test_one_number_that_is_not_finite_is_refused(tmp_path, capsys):
    state = small_state()
    next(iter(state.values()))[0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    assert convert("maven-mlp", tmp_path / "w.pth", tmp_path / "out", *SMALL) == 2
    assert "has values that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
