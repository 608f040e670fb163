"""Transcripts to words to frames: whose vector, at which time, through which windows."""

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import processors
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

from data_prep.synth.words import LEXICON
from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.lexicon_tokenizer import lexicon_tokenizer
from maven_jax.features.text import BertEncoder, TextEncoder, timed_words
from maven_jax.media.transcripts import Segment, Word


def tiny():
    """The section of the recipe, without the kind that chose this class."""
    config = recipes.load("tiny", group="encoders").text.to_dict()
    return {key: value for key, value in config.items() if key != "kind"}


def make(**changes):
    return TextEncoder(**(tiny() | changes))


@pytest.fixture(scope="module")
def encoder():
    return make()


def segment(start_s, end_s, text, words=()):
    return Segment(start_s, end_s, text, tuple(words))


def test_lexicon_is_one_token_a_word_and_nothing_is_unknown():
    tokenizer = lexicon_tokenizer(LEXICON)
    for word in LEXICON:
        assert len(tokenizer.encode(f"{word} {word}", add_special_tokens=False).ids) == 2
    text = " supposedly Ünïcode, 東京 &%"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.token_to_id("<unk>") not in ids
    assert tokenizer.decode(ids).strip() == text.strip()
    assert lexicon_tokenizer(LEXICON).to_str() == tokenizer.to_str()


def centred_words(words: Segment) -> tuple[list[str], np.ndarray]:
    """The words of a segment and the middle of each in seconds."""
    texts, spans_s = timed_words(words)
    return texts, spans_s.mean(axis=1)


def test_words_without_times_are_spread_and_timed_ones_are_ordered():
    texts, centres = centred_words(segment(10.0, 16.0, "  ab c  def "))
    assert texts == ["ab", "c", "def"]
    np.testing.assert_allclose(centres, [11.0, 12.5, 14.5])
    timed = [Word(2.0, 3.0, " late "), Word(1.0, 1.5, "early"), Word(1.5, 2.0, " ")]
    texts, centres = centred_words(segment(0.0, 4.0, "early late", timed))
    assert texts == ["early", "late"]
    np.testing.assert_allclose(centres, [1.25, 2.5])


def test_sub_words_are_averaged_per_word(encoder):
    texts = ["good", "xyzzy", "bad", "ümlaut"]
    ids, owner = encoder._tokens(texts)
    assert len(ids) > 4
    assert owner.tolist() == sorted(owner.tolist())
    pieces = [[t for t, o in zip(ids, owner) if o == w] for w in range(4)]
    assert [encoder._tokenizer.decode(p).strip() for p in pieces] == texts
    track = encoder.encode([segment(0.0, 4.0, " ".join(texts))], Clock())
    (hidden,) = encoder._hidden([ids], Clock())
    expected = np.stack([hidden[owner == w].mean(0) for w in range(4)])
    found, _, _ = track.at(centred_words(segment(0.0, 4.0, " ".join(texts)))[1])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("trim_offsets", [True, False])
def test_a_token_that_is_but_a_space_belongs_to_the_word_behind_it(trim_offsets):
    encoder = make()
    encoder._tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets
    )
    ids, owner = encoder._tokens(["good", "zz", "day"])
    assert encoder._tokenizer.id_to_token(ids[1]) == "Ġ"
    assert owner.tolist() == [0, 1, 1, 1, 2]


def test_frames_between_words_are_interpolated_and_masked_outside_segments(encoder):
    words = [Word(1.0, 2.0, "good"), Word(2.0, 3.0, "bad"), Word(3.0, 4.0, "day")]
    segments = [segment(1.0, 4.0, "good bad day", words), segment(5.0, 6.0, "love")]
    track = encoder.encode(segments, Clock())
    at = np.array([0.9, 1.0, 1.5, 2.0, 2.5, 2.75, 3.5, 3.99, 4.0, 4.9, 5.0, 5.5, 6.0])
    values, mask, ids = track.at(at)
    assert ids.tolist() == [-1, 0, 0, 0, 0, 0, 0, 0, -1, -1, 1, 1, -1]
    np.testing.assert_array_equal(mask, ids >= 0)
    good, bad, day, love = values[2], values[4], values[6], values[10]
    np.testing.assert_allclose(values[1], good)  # constant before the first word's middle
    np.testing.assert_allclose(values[3], (good + bad) / 2, atol=1e-6)
    np.testing.assert_allclose(values[5], 0.75 * bad + 0.25 * day, atol=1e-6)
    np.testing.assert_allclose(values[7], day)
    np.testing.assert_allclose(values[11], love)
    assert (values[~mask] == 0).all()
    # Segments are encoded by themselves: another neighbour changes nothing.
    alone = encoder.encode(segments[1:], Clock()).at(at)[0]
    np.testing.assert_allclose(alone[10], love, atol=1e-5)


def test_segments_without_words_keep_their_number_and_are_masked(encoder):
    track = encoder.encode([segment(0.0, 1.0, " "), segment(1.0, 2.0, "good")], Clock())
    values, mask, ids = track.at(np.array([0.5, 1.5]))
    assert ids.tolist() == [0, 1]
    assert mask.tolist() == [False, True]
    assert (values[0] == 0).all()


def test_no_transcript_is_all_masked(encoder):
    values, mask, ids = encoder.encode((), Clock()).at(np.arange(5.0))
    assert values.shape == (5, encoder.dim)
    assert not mask.any()
    assert (ids == -1).all()


def test_long_segments_go_through_in_overlapping_windows():
    # A window of 20 tokens is what 22 positions behind the padding's hold with <s> and </s>.
    short = make(overlap_tokens=8, model=tiny()["model"] | {"max_position_embeddings": 24})
    assert short._window == 20
    words = [LEXICON[i % len(LEXICON)] for i in range(95)]
    ids, _ = short._tokens(words)
    assert len(ids) == 95
    (hidden,) = short._hidden([ids], Clock())
    assert hidden.shape == (95, short.dim)
    # The middle of a window's own part is what that window gives alone …
    (first,) = short._hidden([ids[:20]], Clock())
    np.testing.assert_allclose(hidden[:12], first[:12], atol=1e-5)
    (second,) = short._hidden([ids[12:32]], Clock())
    np.testing.assert_allclose(hidden[20:24], second[8:12], atol=1e-5)
    # … and in the overlap the two are mixed, the later one ever more.
    for i in range(12, 20):
        weight = (i - 11) / 9
        mixed = first[i] * (1 - weight) + second[i - 12] * weight
        np.testing.assert_allclose(hidden[i], mixed, atol=1e-5)


def test_padding_buckets_and_batches_do_not_matter():
    words = list(LEXICON)
    segments = [segment(i, i + 1.0, " ".join(words[: 3 + 15 * i])) for i in range(4)]
    at = np.arange(0, 4, 0.1)
    one = make(batch_size=1, length_buckets=1).encode(segments, Clock()).at(at)[0]
    many = make(batch_size=4, length_buckets=4).encode(segments, Clock()).at(at)[0]
    np.testing.assert_allclose(one, many, atol=2e-5)


BERT = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def saved(folder, config, vocabulary=None):
    """A Hugging Face folder with random weights, and a tokenizer if it has a vocabulary."""
    network = {"bert": transformers.BertModel, "roberta": transformers.RobertaModel}
    config = transformers.AutoConfig.for_model(**config)
    network[config.model_type](config).save_pretrained(folder)
    if vocabulary is not None:
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


def bert(folder):
    numbers = dict(dtype="float32", batch_size=2, length_buckets=1, overlap_tokens=8)
    return BertEncoder(source=str(folder), summed_layers=1, **numbers)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    """Transformers makes an empty tokenizer, for which every word is unknown."""
    with pytest.raises(UserError, match="no tokenizer; expected") as error:
        bert(saved(tmp_path / "bert", BERT))
    assert "\n" not in str(error.value)
    folder = saved(tmp_path / "roberta", BERT | {"model_type": "roberta"})
    with pytest.raises(UserError, match="no tokenizer; expected"):
        make(source=str(folder), model=None, tokenizer_words=None, overlap_tokens=8)


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = saved(tmp_path, BERT, [*SPECIAL, *(f"word{i}" for i in range(99))])
    with pytest.raises(UserError, match="numbered up to 103, the encoder knows 40"):
        bert(folder)


def test_many_unknown_words_are_noted(tmp_path):
    encoder = bert(saved(tmp_path, BERT, [*SPECIAL, "good", "day", "bad"]))
    known = [segment(0.0, 4.0, "good day good day bad")]
    assert encoder.encode(known, Clock()).notes == ()
    (note,) = encoder.encode([*known, segment(4.0, 6.0, "guter tag")], Clock()).notes
    assert note.startswith("2 of 7 words are unknown to the tokenizer (guter, tag)")


def write_pieces(path, words):
    """SentencePiece's file of a vocabulary, as DeBERTa-v3 is published with."""
    model = sentencepiece.ModelProto()
    controls = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    for i, piece in enumerate([*controls, *words]):
        model.pieces.add(piece=piece, score=-float(i), type=3 if piece in controls[:3] else 1)
    model.trainer_spec.unk_id = 3
    path.write_bytes(model.SerializeToString())


def write_merges(path, pieces):
    """A byte-level tokenizer that puts these pieces together, as ModernBERT's."""
    characters = sorted({c for piece in pieces for c in piece})
    parts = [(piece[:i], piece[i]) for piece in pieces for i in range(1, len(piece))]
    words = ["[CLS]", "[SEP]", *characters, *(a + b for a, b in parts)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, parts))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.save(str(path))


# Kind -> config, files of its tokenizer, and the tokens of "good grandma" with its marks.
NEWER = {
    "mpnet": (
        {"pad_token_id": 1},
        lambda f: (f / "vocab.txt").write_text(
            "\n".join(["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", "good", "grand", "##ma"])
        ),
        ["<s>", "good", "grand", "##ma", "</s>"],
    ),
    "deberta-v2": (
        {
            "relative_attention": True,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
        },
        lambda f: write_pieces(f / "spm.model", ["▁good", "▁grand", "ma", "▁", "a"]),
        ["[CLS]", "▁good", "▁grand", "ma", "[SEP]"],
    ),
    "modernbert": (
        dict.fromkeys(("pad_token_id", "bos_token_id", "cls_token_id"), 0)
        | dict.fromkeys(("eos_token_id", "sep_token_id"), 1),
        lambda f: write_merges(f / "tokenizer.json", ["good", "Ġgrand", "ma"]),
        ["[CLS]", "good", "Ġgrand", "ma", "[SEP]"],
    ),
}


@pytest.mark.parametrize("kind", NEWER)
def test_words_map_to_the_sub_words_of_published_tokenizers(kind, tmp_path):
    changes, write, pieces = NEWER[kind]
    sizes = {k: v for k, v in BERT.items() if k != "model_type"} | {"max_position_embeddings": 64}
    config = transformers.AutoConfig.for_model(kind, **sizes | changes)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    write(tmp_path)
    numbers = dict(dtype="float32", batch_size=1, length_buckets=1, overlap_tokens=4)
    encoder = TextEncoder(source=str(tmp_path), kind=kind, **numbers)
    ids, owner = encoder._tokens(["good", "grandma"])
    before, behind = encoder._special
    found = [encoder._tokenizer.id_to_token(i) for i in (*before, *ids, *behind)]
    assert (found, owner.tolist()) == (pieces, [0, 1, 1])
    (hidden,) = encoder._hidden([ids], Clock())
    track = encoder.encode([segment(0.0, 4.0, "good grandma")], Clock())
    vectors = track.at(np.array([0.0, 3.9]))[0]
    np.testing.assert_allclose(vectors, [hidden[0], hidden[1:].mean(0)], atol=1e-5)
