"""What trained heads say, as features: against transformers' own classifiers."""

import numpy as np
import pytest
import torch
import transformers

from data_prep.synth.words import LEXICON
from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.lexicon_tokenizer import lexicon_tokenizer
from maven_jax.features.text import BertEncoder, TextEncoder
from maven_jax.features.visual import FaceEncoder, VisualEncoder
from maven_jax.features.waveform import AudioEncoder
from maven_jax.media.transcripts import Segment
from tests.features.test_parity import Frames, Samples, save

WAVE = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    conv_dim=(8,) * 3,
    conv_kernel=(10, 8, 4),
    conv_stride=(5, 8, 8),
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    id2label={0: "arousal", 1: "dominance", 2: "valence"},
)


class Regression(transformers.Wav2Vec2PreTrainedModel):
    """audEERING's class, as its model card has it: means over time, dense, tanh, three numbers."""

    def __init__(self, config):
        super().__init__(config)
        self.wav2vec2 = transformers.Wav2Vec2Model(config)
        self.classifier = torch.nn.Module()
        self.classifier.dense = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier.out_proj = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, waveform):
        x = torch.tanh(self.classifier.dense(self.wav2vec2(waveform)[0].mean(1)))
        return self.classifier.out_proj(x)


@pytest.mark.parametrize(
    ("kind", "of", "config"),
    [
        ("wav2vec2", Regression, transformers.Wav2Vec2Config),
        ("wavlm", transformers.WavLMForSequenceClassification, transformers.WavLMConfig),
    ],
)
def test_parity_of_an_utterance(kind, of, config, tmp_path):
    model = save(of(config(**WAVE)), tmp_path)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    extractor.save_pretrained(tmp_path)
    samples = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    inputs = extractor(samples, sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        out = model(inputs)
    expected = getattr(out, "logits", out)[0].numpy()
    options = dict(source=str(tmp_path), dtype="float32", batch_size=1, batch_buckets=1, kind=kind)
    options |= dict(chunk_s=2.0, overlap_s=0.5, output="logits")
    encoder = AudioEncoder(**options, pool_s=2.0)
    assert encoder.dim == 3
    assert encoder.spec["feature"] == "logits: arousal, dominance, valence"
    ((times, found),) = encoder.encode(Samples(samples), Clock())
    # Every frame's two seconds hold the whole utterance.
    np.testing.assert_allclose(found, np.tile(expected, (len(times), 1)), atol=1e-4)
    with pytest.raises(UserError, match=r"output=logits needs pool_s, above 0 to chunk_s 2\.0"):
        AudioEncoder(**options)


@pytest.mark.parametrize(
    ("kind", "of", "config", "encoder_class", "options"),
    [
        (
            "xlm-roberta",
            transformers.XLMRobertaForSequenceClassification,
            transformers.XLMRobertaConfig,
            TextEncoder,
            {},
        ),
        (
            "bert",
            transformers.BertForSequenceClassification,
            transformers.BertConfig,
            BertEncoder,
            {"summed_layers": 2},
        ),
    ],
)
def test_parity_of_a_sentence(kind, of, config, encoder_class, options, tmp_path):
    tokenizer = lexicon_tokenizer(LEXICON)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    model = save(
        of(
            config(
                vocab_size=tokenizer.get_vocab_size(),
                max_position_embeddings=34,
                pad_token_id=1,
                type_vocab_size=1,
                num_labels=4,
                **sizes,
            )
        ),
        tmp_path,
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.save_pretrained(tmp_path)
    with torch.no_grad():
        batch = fast("good day", return_tensors="pt")
        expected = model(batch["input_ids"], batch["attention_mask"]).logits[0].numpy()
    options = options | dict(source=str(tmp_path), dtype="float32", batch_size=1, length_buckets=1)
    # The words of the small random sections are not those of real weights.
    options["tokenizer_words"] = ["other"]
    encoder = encoder_class(**options, overlap_tokens=4, kind=kind, output="logits")
    assert encoder.dim == 4
    found, mask, _ = encoder.encode([Segment(0.0, 1.0, "good day")], Clock()).at(np.array([0.4]))
    assert mask.all()
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_parity_of_a_picture_that_is_cropped(tmp_path):
    """A classifier of faces with CLIP's and DINOv2's processor: shorter side, then the middle."""
    config = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=42,
        patch_size=7,
        id2label={0: "calm", 1: "angry"},
    )
    model = save(transformers.Dinov2ForImageClassification(config), tmp_path)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 28, "width": 28}, resample=3
    )
    processor.save_pretrained(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (50, 61, 3), np.uint8)
    pixels = processor(images=[picture], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixels).logits[0].numpy()
    options = dict(source=str(tmp_path), dtype="float32", batch_size=1, batch_buckets=1, workers=1)
    encoder = VisualEncoder(**options, kind="dinov2", pool="cls", output="logits")
    assert encoder.spec["feature"] == "logits: calm, angry"
    ((found, _),) = encoder.encode(Frames(picture[None]), 1, Clock())
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_without_a_head_there_are_no_logits(tmp_path):
    save(transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**WAVE)), tmp_path)
    options = dict(dtype="float32", batch_size=1, batch_buckets=1, output="logits")
    with pytest.raises(UserError, match="has no trained head: output=logits needs classifier"):
        AudioEncoder(
            source=str(tmp_path), kind="wav2vec2", chunk_s=1.0, overlap_s=0.1, pool_s=1.0, **options
        )
    face = dict(resize=8, crop=8, mean=(0.5,) * 3, std=(0.5,) * 3, workers=1)
    with pytest.raises(UserError, match="a random iresnet50 encoder has no trained head"):
        FaceEncoder(source="random", seed=0, model={}, **face, **options)
