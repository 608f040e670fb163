"""The encoders of RJCMA (ABAW6, 2024): IR-50, VGGish and BERT, one vector of each per frame.

Command: maven-jax prepare --root ROOT --out STORE --encoders rjcma
Weights: visual and audio from the folders that `maven-jax convert` makes from the released files,
    maven-jax convert --model rjcma --input FILE --out weights/rjcma   (fine-tuned IR-50, VGGish)
or separately, `--model iresnet50` and `--model vggish`. If they lie elsewhere, set
--encoders.visual.source=FOLDER and --encoders.audio.source=FOLDER. BERT comes from the Hugging Face
hub.
Features: visual 512, audio 128, text 768 per frame; about 3 kB each.
`rjcma:bfloat16` computes in bfloat16. `rjcma:tiny` has small random networks with the same inputs,
for tests and the synthetic corpus.

As in the release, a frame's second of sound begins at the frame, and a word's vector is held while
it is spoken. What differs: frames without a crop or outside the sound are masked, not filled with
the last one; times are the container's, not frame number / rate; BERT reads a transcript segment at
a time, not sentences of punctuated speech recognition.
"""

from ml_collections import ConfigDict

from data_prep.synth.words import LEXICON
from maven_jax.features.lexicon_tokenizer import lexicon_tokenizer
from maven_jax.recipes import check_arg


def get_config(arg: str = "") -> ConfigDict:
    """The encoders; `arg` is the precision or "tiny"."""
    arg = check_arg(arg, ("", "float32", "bfloat16", "tiny"))
    dtype = arg if arg in ("float32", "bfloat16") else "float32"
    config = ConfigDict()
    config.visual = ConfigDict(
        {
            "kind": "iresnet50",
            "source": "weights/rjcma/encoders/visual",
            "dtype": dtype,
            # Crops per call over all local devices, and the number of smaller sizes compiled for.
            "batch_size": 128,
            "batch_buckets": 3,
            # Pixels: crops are resized to 48 x 48, and the encoder sees the middle 40 x 40.
            "resize": 48,
            "crop": 40,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
        }
    )
    config.audio = ConfigDict(
        {
            "kind": "vggish",
            "source": "weights/rjcma/encoders/audio",
            "dtype": dtype,
            # Examples per call over all local devices.
            "batch_size": 128,
            "batch_buckets": 3,
            # 0.96 s of sound, from the frame's time on.
            "columns": 96,
            "align": "start",
        }
    )
    config.text = ConfigDict(
        {
            "kind": "bert",
            "source": "bert-base-uncased",
            "dtype": dtype,
            # Token windows per call over all local devices.
            "batch_size": 16,
            # Window lengths compiled for: 512, 256, 128, 64.
            "length_buckets": 4,
            "overlap_tokens": 128,
            # The hidden states of this many last layers are added up.
            "summed_layers": 4,
            "output": "embedding",
        }
    )
    return _tiny(config) if arg == "tiny" else config


def _tiny(config: ConfigDict) -> ConfigDict:
    """Narrow networks with random weights: nothing to download."""
    visual = {
        "image_size": 40,
        "stem_dim": 16,
        "widths": (16, 32, 32),
        "depths": (1, 1, 1),
        "strides": (2, 2, 2),
        "embed_dim": 64,
        "normalize": False,
    }
    audio = {
        "widths": (16, 32, 32, 32),
        "pooled": (1, 1, 1, 1),
        "hidden_dims": (128,),
        "embed_dim": 64,
    }
    text = {
        "vocab_size": lexicon_tokenizer(LEXICON).get_vocab_size(),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 256,
        "pad_token_id": 1,
        "type_vocab_size": 1,
    }
    for name, model in (("visual", visual), ("audio", audio), ("text", text)):
        config[name].update({"source": "random", "seed": 0, "model": model})
    config.text.update({"overlap_tokens": 32, "summed_layers": 2, "tokenizer_words": LEXICON})
    return config
