"""Hugging Face folders as sources: our features equal those of transformers' own pipeline."""

import json

import numpy as np
import pytest

from data_prep.synth.words import LEXICON
from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.lexicon_tokenizer import lexicon_tokenizer
from maven_jax.features.text import BertEncoder, TextEncoder
from maven_jax.features.visual import VisualEncoder
from maven_jax.features.waveform import AudioEncoder
from maven_jax.media.align import spread_words
from maven_jax.media.transcripts import Segment, Word

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class Frames:
    """Pictures in memory, as a folder of crops."""

    def __init__(self, pictures):
        self.pictures, self.existing = pictures, list(range(len(pictures)))

    def load(self, frame):
        return self.pictures[frame]


class Samples:
    """A sound in memory."""

    start_s = 0.0

    def __init__(self, samples):
        self.samples = samples

    def blocks(self, sample_rate_hz, block_s=10.0):
        for at in range(0, len(self.samples), 9973):
            yield self.samples[at : at + 9973]


def save(model, folder):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.eval().save_pretrained(folder)
    return model


def test_parity_of_pictures(tmp_path):
    config = transformers.SwinConfig(
        image_size=56, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=7
    )
    model = save(transformers.SwinModel(config), tmp_path)
    processor = transformers.ViTImageProcessorPil(
        size={"height": 56, "width": 56}, resample=3, image_mean=[0.4, 0.5, 0.6]
    )
    processor.save_pretrained(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
    pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixels).pooler_output.numpy()
    encoder = VisualEncoder(
        source=str(tmp_path), dtype="float32", batch_size=4, batch_buckets=1, workers=1
    )
    assert not encoder.spec["untrained"]
    found = np.concatenate([f for f, _ in encoder.encode(Frames(pictures), 5, Clock())])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_parity_of_sound(tmp_path, norm):
    config = transformers.HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16,) * 4,
        conv_kernel=(10, 8, 4, 4),
        conv_stride=(5, 4, 4, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm=norm,
    )
    model = save(transformers.HubertModel(config), tmp_path)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    extractor.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    samples = (0.3 + 0.1 * rng.normal(size=40_000)).astype(np.float32)
    inputs = extractor(samples, sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        expected = model(inputs).last_hidden_state[0].numpy()
    encoder = AudioEncoder(
        source=str(tmp_path),
        dtype="float32",
        batch_size=1,
        batch_buckets=1,
        chunk_s=3.0,
        overlap_s=1.0,
    )
    found = np.concatenate([f for _, f in encoder.encode(Samples(samples), Clock())])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_parity_of_words(tmp_path):
    tokenizer = lexicon_tokenizer(LEXICON)
    config = transformers.RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=66,
        pad_token_id=1,
        type_vocab_size=1,
    )
    model = save(transformers.RobertaModel(config, add_pooling_layer=False), tmp_path)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.save_pretrained(tmp_path)
    text = "good day, Grandma said; obviously"
    batch = fast(text, return_tensors="pt", return_offsets_mapping=True)
    with torch.no_grad():
        hidden = model(batch["input_ids"], batch["attention_mask"]).last_hidden_state[0].numpy()
    words, at, expected = text.split(), 0, []
    for word in words:
        first = text.index(word, at)
        at = first + len(word)
        inside = [
            i
            for i, (a, b) in enumerate(batch["offset_mapping"][0].tolist())
            if 0 < i < len(hidden) - 1 and first <= max(a, b - 1) < at
        ]
        expected.append(hidden[inside].mean(0))
    encoder = TextEncoder(
        source=str(tmp_path), dtype="float32", batch_size=2, length_buckets=1, overlap_tokens=8
    )
    track = encoder.encode([Segment(0.0, 5.0, text)], Clock())
    found, mask, _ = track.at(spread_words(words, 0.0, 5.0).mean(1))
    assert mask.all()
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)


def test_parity_of_held_words(tmp_path):
    """RJCMA's words: the last four layers added up, word pieces averaged, held while spoken."""
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "good",
        "day",
        "grand",
        "##ma",
        "##s",
        "said",
        ",",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    fast = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    fast.save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=5,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
    )
    model = save(transformers.BertModel(config, add_pooling_layer=False), tmp_path)
    batch = fast("Good day, grandmas said", return_tensors="pt")
    tokens = fast.convert_ids_to_tokens(batch["input_ids"][0])
    assert tokens[1:-1] == ["good", "day", ",", "grand", "##ma", "##s", "said"]
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
    summed = sum(states[-4:])[0].numpy()
    expected = [summed[1], summed[2:4].mean(0), summed[4:7].mean(0), summed[7]]
    words = [Word(1.0, 1.5, "Good"), Word(1.5, 2.0, "day,"), Word(2.5, 3.0, "grandmas")]
    segment = Segment(1.0, 4.0, "", (*words, Word(2.9, 3.5, "said")))
    encoder = BertEncoder(
        source=str(tmp_path),
        dtype="float32",
        batch_size=2,
        length_buckets=1,
        overlap_tokens=4,
        summed_layers=4,
    )
    track = encoder.encode([Segment(0.0, 0.5, " "), segment], Clock())
    times = np.array([0.2, 0.9, 1.0, 1.49, 1.5, 1.99, 2.0, 2.5, 2.89, 2.9, 3.4, 3.5, 4.0])
    found, mask, ids = track.at(times)
    word = [-1, -1, 0, 0, 1, 1, -1, 2, 2, 3, 3, -1, -1]
    assert mask.tolist() == [w >= 0 for w in word]
    assert ids.tolist() == [0, -1, *[1] * 10, -1]
    np.testing.assert_allclose(found[mask], [expected[w] for w in word if w >= 0], atol=1e-4)
    assert (found[~mask] == 0).all()
    # Read in portions, as the store's blocks ask for it.
    apart = np.concatenate([track.at(times[i : i + 2])[0] for i in range(0, len(times), 2)])
    np.testing.assert_array_equal(apart, found)
    assert encoder.encode((), Clock()).at(times)[0].shape == (len(times), 32)


def test_what_is_missing_beside_the_weights_is_named(tmp_path):
    model = transformers.SwinModel(
        transformers.SwinConfig(image_size=28, embed_dim=8, depths=[1], num_heads=[2])
    )
    save(model, tmp_path)
    settings = {"dtype": "float32", "batch_size": 1, "batch_buckets": 1, "workers": 1}
    with pytest.raises(UserError, match=r"preprocessor_config\.json: no such file"):
        VisualEncoder(source=str(tmp_path), **settings)
    (tmp_path / "preprocessor_config.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="holds no JSON object"):
        VisualEncoder(source=str(tmp_path), **settings)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 28}))
    with pytest.raises(UserError, match="float16"):
        VisualEncoder(source=str(tmp_path), **(settings | {"dtype": "float16"}))
