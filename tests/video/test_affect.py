"""Published networks without a checkpoint: their maps, their sum, and a whole prediction."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
import torch
import transformers

from data_prep.synth.words import LEXICON
from maven_jax import recipes
from maven_jax.__main__ import main
from maven_jax.convert.named_weights import named, take
from maven_jax.encoders.mini_xception import MiniXceptionConfig
from maven_jax.errors import UserError
from maven_jax.features.lexicon_tokenizer import lexicon_tokenizer
from maven_jax.features.reader import open_encoders
from maven_jax.media.frame_times import probe
from maven_jax.media.pictures import pictures
from maven_jax.video.affect import LABEL, load_affect
from maven_jax.video.affect_maps import ClassMap, DimensionMap, combined
from maven_jax.video.face_embedding import same_face
from tests.features.test_heads import WAVE, Regression
from tests.features.test_parity import save
from tests.support import corpora
from tests.support.reference_efficientnet import EfficientNet
from tests.support.reference_mini_xception import write_keras
from tests.support.released import with_random_weights

PLACES = {"happy": (0.8, 0.5), "sad": (-0.6, -0.3), "neutral": (0.0, 0.0)}


def test_classes_lie_between_their_places_by_their_probabilities():
    to_va = ClassMap(("sad", "neutral", "happy"), PLACES, "net")
    logits = np.log(np.array([[1.0, 1e-9, 1e-9], [0.25, 0.25, 0.5]], np.float32)) + 7
    expected = [[-0.6, -0.3], [-0.25 * 0.6 + 0.4, -0.25 * 0.3 + 0.25]]
    np.testing.assert_allclose(to_va(logits), expected, atol=1e-6)
    with pytest.raises(UserError, match="'angry' has no place"):
        ClassMap(("angry",), PLACES, "net")
    with pytest.raises(UserError, match=r"places\.sad"):
        ClassMap(("sad",), {"sad": (-2.0, 0.0)}, "net")


def test_dimensions_are_scaled_and_stay_in_the_square():
    ours = {"output": 2, "scale": 2.0, "offset": -1.0}
    to_va = DimensionMap(3, ours, ours | {"output": 0})
    outputs = np.array([[0.5, 9.0, 0.75], [1.2, 9.0, 0.0]], np.float32)
    np.testing.assert_allclose(to_va(outputs), [[0.5, 0.0], [-1.0, 1.0]], atol=1e-6)


def test_what_is_observed_counts_by_its_reliability_for_each_dimension():
    values = np.array([[[0.8, 0.0]] * 3, [[0.0, 0.6]] * 3], np.float32)
    masks = np.array([[True, True, False], [True, False, False]])
    reliability = np.array([[0.6, 0.2], [0.2, 0.6]], np.float32)
    expected = [[0.6, 0.45], [0.8, 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(combined(values, masks, reliability), expected, atol=1e-6)


@pytest.mark.parametrize("name", recipes.names("affect"))
def test_every_recipe_names_places_or_outputs_that_there_are(name):
    recipe = recipes.load(name, "affect")
    if "map" in recipe and recipe.map.kind == "classes":
        assert set(recipe.map.labels) <= set(recipes.load("default", "affect").places)
    for models in recipe.get("models", {}).values():
        assert all("weights" in recipes.load(model, "affect") for model in models)


@pytest.fixture
def taken(own_recipes, tmp_path, monkeypatch):
    monkeypatch.setenv("MAVEN_JAX_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    take(named(str(own_recipes / "net.py")), own_recipes / "net.hdf5")
    return own_recipes / "set.py"


def test_a_clip_is_predicted_without_checkpoint_and_every_output_says_how(
    taken, clip, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(clip), "--affect", str(taken), "--html", "--json"]) == 0
    said = capsys.readouterr().out
    assert LABEL in said
    assert "FER-2013" in said
    assert "`maven-jax weights audeering`" in said
    with open("predicted/clip.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert [row["label"] for row in rows if row["label"]] == [LABEL]
    assert all(-1 <= float(row[d]) <= 1 for row in rows for d in ("valence", "arousal"))
    record = json.loads((tmp_path / "predicted" / "clip.json").read_text())
    (published,) = record["published"]
    assert (published["modality"], published["licence"]) == ("visual", "MIT")
    assert record["label"] == LABEL
    page = (tmp_path / "predicted" / "clip.html").read_text()
    assert LABEL.capitalize() in page
    assert "FER-2013" in page
    assert "mean nothing" not in page


def test_the_table_of_places_is_the_users_to_change(taken, clip):
    rows = {}
    for arousal in (-0.5, 0.5):
        places = [
            f"--affect.places.{name}=0.1,{arousal}" for name in recipes.load(str(taken)).places
        ]
        found = load_affect(str(taken), overrides=places, workers=1).predict(clip)
        seen = found.observed["visual"]
        rows[arousal] = found.va[seen]
        np.testing.assert_allclose(found.va[seen, 0], 0.1, atol=1e-3)
    np.testing.assert_allclose(rows[0.5][:, 1], -rows[-0.5][:, 1], atol=1e-3)
    with pytest.raises(UserError, match="expected two numbers above 0"):
        load_affect(str(taken), overrides=["--affect.reliability.visual=0,1"])


def test_without_any_weights_the_smallest_are_asked_for_unless_that_is_forbidden(
    own_recipes, tmp_path, monkeypatch, capsys
):
    from huggingface_hub import constants

    monkeypatch.setenv("MAVEN_JAX_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        load_affect(str(own_recipes / "set.py"))
    assert "licence: MIT" in capsys.readouterr().out


@pytest.mark.slow
def test_face_voice_and_words_together_by_the_recipes_of_published_networks(
    clip, tmp_path, monkeypatch
):
    """Small networks with random weights in the files that the published ones come in."""
    monkeypatch.setenv("MAVEN_JAX_WEIGHTS", str(tmp_path / "cache"))
    torch.manual_seed(0)
    face = EfficientNet((8, 12, 16, 20, 24, 28, 32), (1,) * 7, 10, True)
    torch.save(with_random_weights(face).eval(), tmp_path / "face.pt")
    take(named("emotieffnet"), tmp_path / "face.pt")
    save(Regression(transformers.Wav2Vec2Config(**WAVE)), tmp_path / "voice")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "voice")
    take(named("audeering"), tmp_path / "voice")
    tokenizer = lexicon_tokenizer(LEXICON)
    config = transformers.RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=7,
    )
    save(transformers.RobertaForSequenceClassification(config), tmp_path / "words")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(tmp_path / "words")
    take(named("distilroberta"), tmp_path / "words")
    images = [image for _, image in pictures(clip, probe(clip))]
    corpora.write_video(tmp_path / "c.mp4", frames=12, fps=25, sound_s=0.48, images=images)
    (tmp_path / "words.txt").write_text("[0.10s - 0.40s] good day\n")
    predictor = load_affect(workers=1)
    assert predictor.modalities == ("visual", "audio", "text")
    found = predictor.predict(
        tmp_path / "c.mp4", transcript=tmp_path / "words.txt", contributions=True
    )
    assert [p["licence"] for p in found.published][1] == "CC BY-NC-SA 4.0"
    assert all(mask.any() for mask in found.observed.values())
    shown = np.any(list(found.observed.values()), axis=0)
    assert shown.sum() > 8
    assert (np.abs(found.va[shown]) <= 1).all()
    assert set(found.contributions) == {"visual", "audio", "text"}


def test_the_same_networks_are_a_recipe_of_encoders(tmp_path, monkeypatch):
    monkeypatch.setenv("MAVEN_JAX_WEIGHTS", str(tmp_path))
    config = recipes.load("affect:mini_xception", group="encoders")
    assert {s.output for s in config.values()} == {"embedding"}
    assert config.visual.source == str(tmp_path / "mini_xception" / "emotion_model.hdf5")
    write_keras(tmp_path / "net.hdf5", MiniXceptionConfig())
    config.visual.source = str(tmp_path / "net.hdf5")
    assert open_encoders(config, ("visual",), 1).visual.dim == 128


def test_faces_are_compared_by_the_encoder_of_the_model(taken, clip, portraits, tmp_path):
    predictor = load_affect(str(taken), workers=1)
    with pytest.raises(UserError, match="--same-face 2: expected a cosine"):
        predictor.predict(clip, same_face=2)
    same = same_face(0.5, predictor.encoders)
    for name, pictures_of in (("a", portraits[:3]), ("b", [255 - p for p in portraits])):
        for i, picture in enumerate(pictures_of, 1):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{i:05d}.jpg"), cv2.resize(picture, (112, 112)))
    a, b = same.embedding(tmp_path / "a"), same.embedding(tmp_path / "b")
    assert a @ a == pytest.approx(1)
    assert b @ b == pytest.approx(1)
    assert a @ b < 1 - 1e-4
