"""Encoders of RJCA and RJCMA from the folders that `maven-jax convert` makes."""

import json

import jax
import numpy as np
import pytest
import transformers

from maven_jax import recipes
from maven_jax.convert.huggingface import load_encoder, random_encoder
from maven_jax.convert.native import save_encoder
from maven_jax.errors import UserError
from maven_jax.features.model_files import read_tokenizer
from maven_jax.features.reader import open_encoders

SHA256 = "12" * 32
CASES = [
    ("rjcma", "visual", "iresnet50"),
    ("rjcma", "audio", "vggish"),
    ("rjca", "visual", "r2plus1d"),
    ("rjca", "audio", "audio_resnet18"),
]


@pytest.mark.parametrize(("recipe", "modality", "kind"), CASES)
def test_a_converted_folder_is_a_source(recipe, modality, kind, tmp_path):
    """The published recipe, its source set: only the network is smaller here."""
    model = recipes.load(f"{recipe}:tiny", group="encoders")[modality].model.to_dict()
    made = random_encoder(kind, model, 3)
    folder = tmp_path / "encoder"
    save_encoder(folder, kind, model, made.params, made.state, source="released.pt", sha256=SHA256)
    config = recipes.load(recipe, group="encoders")
    config[modality].source = str(folder)
    encoders = open_encoders(config, (modality,), 1)
    (encoder,) = encoders.present().values()
    specs = encoders.specs()[modality]
    assert specs.spec["encoder"] == kind
    assert specs.spec["sha256"] == SHA256
    assert not specs.untrained
    found, wanted = jax.tree.leaves(encoder._run._params), jax.tree.leaves(made.variables)
    assert len(found) == len(wanted) > 3
    for ours, theirs in zip(found, wanted):
        np.testing.assert_array_equal(ours, theirs)


def test_an_encoder_of_another_kind_is_refused(tmp_path):
    model = recipes.load("rjcma:tiny", group="encoders").audio.model.to_dict()
    made = random_encoder("vggish", model, 0)
    save_encoder(
        tmp_path / "a", "vggish", model, made.params, made.state, source="x", sha256=SHA256
    )
    config = recipes.load("rjca", group="encoders")
    config.audio.source = str(tmp_path / "a")
    with pytest.raises(UserError, match="kind is 'vggish', not 'audio_resnet18'"):
        open_encoders(config, ("audio",), 1)


def test_raw_material_has_the_size_that_the_networks_take():
    config = recipes.load("raw", group="encoders")
    specs = open_encoders(config, ("visual", "audio"), 1).specs()
    assert (specs["visual"].dim, specs["visual"].dtype) == (48 * 48 * 3, "uint8")
    assert (specs["audio"].dim, specs["audio"].dtype) == (96 * 64, "float16")


SIZES = dict(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=30
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", *"abcdefghijklmnopqrst"]


def text_folder(kind: str, folder):
    """A published encoder of text without a tokenizer."""
    names = {"bert": "Bert", "roberta": "Roberta"}
    config = getattr(transformers, f"{names[kind]}Config")(**SIZES, max_position_embeddings=64)
    getattr(transformers, f"{names[kind]}Model")(config).save_pretrained(folder)
    return folder


TOKENIZERS = {
    "none": (lambda f: None, "no tokenizer; expected tokenizer.json or vocab.txt or vocab.json"),
    "damaged": (lambda f: (f / "tokenizer.json").write_text("{"), "no tokenizer: "),
    "empty": (lambda f: (f / "vocab.txt").write_text(""), "has no vocabulary"),
    "signs": (lambda f: (f / "vocab.txt").write_text("\n".join(WORDS[:5])), "has no vocabulary"),
    "another's": (
        lambda f: (f / "vocab.txt").write_text("\n".join([*WORDS, *map(str, range(10))])),
        "numbered up to 35, the encoder knows 30",
    ),
}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [*(("bert", f) for f in TOKENIZERS), *(("roberta", f) for f in ("none", "damaged"))],
)
def test_words_are_not_read_without_the_encoders_own_tokenizer(kind, fault, tmp_path):
    break_it, message = TOKENIZERS[fault]
    break_it(text_folder(kind, tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        read_tokenizer(load_encoder(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("of_class", ["BertTokenizer", None])
def test_the_encoders_own_tokenizer_is_read_and_no_code_beside_it_is_run(of_class, tmp_path):
    (text_folder("bert", tmp_path) / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass")
    auto = {"auto_map": {"AutoTokenizer": ["theirs.T", "theirs.T"]}, "tokenizer_class": of_class}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(auto))
    assert read_tokenizer(load_encoder(tmp_path)).encode("good").ids == [2, 5, 3]
    assert not (tmp_path / "ran").exists()
