"""`maven-jax convert` with files that are hostile, damaged or of another model; where it writes."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from maven_jax.convert.huggingface import load_encoder
from maven_jax.convert.tensor_files import read_file
from maven_jax.runs.convert_file import models, recognise
from tests.support import reference_maven
from tests.support.reference_backbones import ExpressionNetwork, Tsav, Vggish
from tests.support.reference_rjca import ReleasedRjca
from tests.support.reference_rjcma import ReleasedRjcma
from tests.support.released import convert, predict

NETWORKS = {
    "maven-mlp": reference_maven.ReleasedMlp,
    "maven-beit": reference_maven.ReleasedBeit,
    "rjca": ReleasedRjca,
    "rjcma": lambda: ReleasedRjcma(ExpressionNetwork(), Vggish()),
    "tsav": Tsav,
    "iresnet50": ExpressionNetwork,
    "vggish": Vggish,
}


def state_of(model):
    """A state dict without large tensors; weights do not matter here."""
    with torch.device("meta"):
        state = NETWORKS[model]().state_dict()
    return {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for name, value in state.items()
    }


@pytest.fixture
def mlp_file(tmp_path):
    path = tmp_path / "mlp.pth"
    torch.save(state_of("maven-mlp"), path)
    return path


def refused(capsys, model, file, out, *more):
    """The one line that the command prints before it exits with 2 and leaves nothing behind."""
    beside = set(out.parent.iterdir())
    assert convert(model, file, out, *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("maven-jax convert: ")
    assert error.count("\n") == 1
    assert set(out.parent.iterdir()) == beside
    return error


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path, capsys, new_format):
    target = tmp_path / "code_ran"
    state = {**state_of("maven-mlp"), "extra": Hostile(target)}
    file = tmp_path / "hostile.pth"
    torch.save(state, file, _use_new_zipfile_serialization=new_format)
    error = refused(capsys, "maven-mlp", file, tmp_path / "out")
    assert "loading it could run code" in error
    assert not target.exists()
    # The same pickle, read without that care, does what it was made for.
    torch.load(file, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.99])
@pytest.mark.parametrize("safe", [True, False])
def test_a_truncated_file_is_refused(mlp_file, tmp_path, capsys, keep, safe):
    if safe:
        mlp_file = tmp_path / "mlp.safetensors"
        save_file({"a": torch.ones(5, 5)}, mlp_file)
    whole = mlp_file.read_bytes()
    mlp_file.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    error = refused(capsys, "maven-mlp", mlp_file, tmp_path / "out")
    assert str(mlp_file) in error
    assert "truncated" in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"valence,arousal\n0.1,0.2\n", "refused, it is damaged or holds more than tensors"),
        (None, "no such file"),
        ([1, 2], "holds a list, not named tensors"),
        ({"epoch": 3}, "holds no tensors"),
    ],
)
def test_files_without_named_tensors_are_refused(tmp_path, capsys, content, message):
    file = tmp_path / "file.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    assert message in refused(capsys, "rjca", file, tmp_path / "out")


def test_an_unknown_model_is_answered_by_a_near_one(mlp_file, tmp_path, capsys):
    error = refused(capsys, "maven_mlp", mlp_file, tmp_path / "out")
    assert "did you mean 'maven-mlp'?" in error


@pytest.mark.parametrize("model", NETWORKS)
def test_each_model_is_told_by_its_names(model, tmp_path):
    torch.save(state_of(model), tmp_path / "file.pth")
    assert recognise(read_file(tmp_path / "file.pth").shapes) == model
    assert set(NETWORKS) < set(models())


@pytest.mark.parametrize(
    ("holds", "asked"), [("rjca", "rjcma"), ("maven-beit", "maven-mlp"), ("iresnet50", "vggish")]
)
def test_a_file_of_another_model_is_refused(tmp_path, capsys, holds, asked):
    torch.save(state_of(holds), tmp_path / "file.pth")
    error = refused(capsys, asked, tmp_path / "file.pth", tmp_path / "out")
    assert f"the weights of {holds}, not of {asked}; did you mean --model {holds}?" in error


def test_every_wrong_tensor_is_named(tmp_path, capsys):
    state = state_of("maven-beit")
    missing = ["projection_layer.bias", "beit3_encoders.1.layer.7.lambda_2"]
    unknown = ["regressor.fc.9.weight", "beit3_encoders.2.layer.0.lambda_1"]
    misshaped = ["multihead_attention.attn_t2a.in_proj_weight", "regressor.fc.6.weight"]
    for name in missing:
        del state[name]
    state |= dict.fromkeys(unknown, torch.zeros(3))
    state |= dict.fromkeys(misshaped, torch.zeros(4, 9))
    torch.save(state, tmp_path / "file.pth")
    error = refused(capsys, "maven-beit", tmp_path / "file.pth", tmp_path / "out")
    for name in missing + unknown + misshaped:
        assert name in error
    assert "regressor.fc.6.weight has shape (4, 9), not (2, 256)" in error
    for count in ("2 missing", "2 unknown", "2 of another shape"):
        assert count in error


def test_other_sizes_need_to_be_named(mlp_file, tmp_path, capsys):
    error = refused(capsys, "maven-mlp", mlp_file, tmp_path / "out", "--config.model.embed_dim=256")
    assert "multihead_attention.video_proj.weight has shape (512, 1024), not (256, 1024)" in error
    error = refused(capsys, "maven-mlp", mlp_file, tmp_path / "out", "--config.model.width=256")
    assert "model has no 'width'" in error
    error = refused(capsys, "maven-mlp", mlp_file, tmp_path / "out", "--dimension", "valence")
    assert "maven-mlp does not predict one dimension alone" in error


def test_a_finished_conversion_is_kept_and_nothing_is_overwritten(mlp_file, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder may be given
    assert convert("maven-mlp", mlp_file, out) == 0
    record = (out / "config.json").read_bytes()
    made = json.loads(record)["converted"]
    assert (made["model"], made["file"]) == ("maven-mlp", "mlp.pth")
    assert len(made["sha256"]) == 64
    assert "jax" in made["versions"]

    (out / "eval").mkdir()  # as `evaluate` leaves behind
    capsys.readouterr()
    assert convert("maven-mlp", mlp_file, out) == 0
    assert "holds this conversion already" in capsys.readouterr().out
    assert (out / "config.json").read_bytes() == record

    error = refused(capsys, "maven-mlp", mlp_file, out, "--config.model.dropout_rate=0.5")
    assert "holds other things already; take another --out" in error
    state = state_of("maven-mlp")
    torch.save({**state, "regressor.fc.6.bias": torch.ones(2)}, mlp_file)
    assert "holds other things" in refused(capsys, "maven-mlp", mlp_file, out)
    assert "is a file" in refused(capsys, "maven-mlp", mlp_file, mlp_file)
    assert (out / "config.json").read_bytes() == record


def test_what_an_interrupted_conversion_left_is_no_hindrance(mlp_file, tmp_path):
    left = tmp_path / ".maven_jax-0123abcd.tmp" / "checkpoints" / "0"
    left.mkdir(parents=True)
    assert convert("maven-mlp", mlp_file, tmp_path / "out") == 0
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {"mlp.pth", "out"}
    features = {"visual": torch.zeros(1, 3, 1024), "audio": torch.zeros(1, 1, 768)}
    assert predict(tmp_path / "out", features | {"text": features["audio"]}).va.shape == (1, 3, 2)


@pytest.mark.parametrize("model", ["iresnet50", "tsav", "vggish"])
def test_encoders_become_folders_that_load(model, tmp_path, capsys):
    file = tmp_path / "file.pth"
    state = {f"module.{name}": tensor for name, tensor in state_of(model).items()}
    torch.save({"state_dict": state}, file)
    out = tmp_path / "out"
    assert convert(model, file, out) == 0
    said = capsys.readouterr().out
    folders = {"tsav": {"visual": "r2plus1d", "audio": "audio_resnet18"}}.get(model, {".": model})
    for folder, kind in folders.items():
        encoder = load_encoder(out / folder, kind=kind)
        assert encoder.sha256 == read_file(file).sha256
        assert f"{kind} from" in said
    assert ".tmp" not in said
    assert convert(model, file, out) == 0
    assert "holds this conversion already" in capsys.readouterr().out
    assert "has no recipe" in refused(capsys, model, file, tmp_path / "other", "--config.a=1")


def test_help_names_every_model(capsys):
    with pytest.raises(SystemExit) as end:
        convert("rjca", "x", "y", "--help")
    assert end.value.code == 0
    said = capsys.readouterr().out
    for model in models():
        assert f"\n  {model} " in said
