"""Sections of encoders by kind and by published name, from the command line."""

import importlib.util

import pytest

from data_prep import prepare
from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.features import sections
from maven_jax.features.reader import KINDS, open_encoders


def overridden(recipe, *arguments):
    encoders = recipes.load(recipe, group="encoders")
    sections.override(encoders, arguments)
    return encoders


def test_a_kind_brings_its_own_keys():
    text = overridden("base:bfloat16", "--encoders.text.kind=bert").text
    assert (text.kind, text.summed_layers, text.dtype) == ("bert", 4, "bfloat16")
    assert text.source == "bert-base-uncased"
    audio = overridden("tiny", "--encoders.audio.kind", "wavlm", "--encoders.audio.seed=3").audio
    assert (audio.source, audio.seed, audio.model.num_buckets) == ("random", 3, 32)
    assert overridden("rjca", "--encoders.text=roberta").text.source == "roberta-base"
    assert "summed_layers" not in overridden("rjcma", "--encoders.text.kind=roberta").text


@pytest.mark.slow
@pytest.mark.parametrize("modality", KINDS)
def test_small_ones_of_every_kind_open(modality):
    for kind in KINDS[modality].keys() - {"opensmile"}:  # an extra
        encoders = overridden("tiny", f"--encoders.{modality}.kind={kind}")
        (encoder,) = open_encoders(encoders, (modality,), 1).present().values()
        assert encoder.dim > 1


def test_published_names_are_sections():
    name = "wav2vec2-large-robust-12-ft-emotion-msp-dim"
    audio = overridden("base", f"--encoders.audio={name}", "--encoders.audio.output=logits").audio
    assert (audio.source, audio.kind) == (f"audeering/{name}", "wav2vec2")
    assert (audio.output, audio.pool_s) == ("logits", 4.0)
    face = overridden("base", "--encoders.visual=enet_b2_8.pt").visual
    assert (face.source, face.resize) == ("weights/enet_b2_8.pt", 260)


def test_an_unknown_kind_or_name_lists_what_there_is():
    with pytest.raises(UserError, match=r"kinds: swin, vit, .*crops; weights by name: ") as caught:
        overridden("base", "--encoders.visual.kind=resnet50")
    assert len(str(caught.value)) < 600
    encoders = recipes.load("tiny", group="encoders")
    encoders.visual.kind = "resnet50"
    with pytest.raises(UserError, match="'resnet50': expected one of swin, vit"):
        open_encoders(encoders, ("visual",), 1)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--encoders.text.source=/no/such/folder", "/no/such/folder: no such folder"),
        ("--encoders.text.source=/no/such.pt", "/no/such.pt: no such file"),
        ("--encoders.text.source=FILE", "config.json: model_type is 'swin', not 'roberta'"),
        ("--encoders.text.summed_layers=2", "text has no 'summed_layers'"),
    ],
)
def test_all_sources_are_looked_at_before_any_is_loaded(argument, message, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    argument = argument.replace("FILE", str(tmp_path / "config.json"))
    with pytest.raises(UserError, match=message):
        open_encoders(overridden("tiny", argument), ("visual", "audio", "text"), 1)
    assert "per frame" not in capsys.readouterr().err


def test_opensmile_is_an_extra():
    if importlib.util.find_spec("opensmile") is not None:
        pytest.skip("opensmile is installed: nothing to refuse")
    with pytest.raises(UserError, match="needs the package of that name: pip install opensmile"):
        open_encoders(overridden("tiny", "--encoders.audio.kind=opensmile"), ("audio",), 1)


def test_prepare_takes_them(tmp_path):
    with pytest.raises(UserError, match="no encoder 'resnet50'"):
        prepare.main(
            ["--root", str(tmp_path), "--out", str(tmp_path / "s"), "--encoders", "tiny"]
            + ["--encoders.visual=resnet50"]
        )
