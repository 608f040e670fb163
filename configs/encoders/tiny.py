"""Small encoders with random weights, for the quickstart and for tests: nothing to download.

Command: maven-jax prepare --root ROOT --out STORE --encoders tiny
The published architectures, narrow and shallow. Their features are 64 wide, so that a model trained
on a few dozen people does not learn them by heart. Random networks keep enough of what they see
only on the synthetic corpus; for real faces, voices and words use `base`. The store says
`untrained`.
"""

from ml_collections import ConfigDict

from data_prep.synth.words import LEXICON
from maven_jax.features.lexicon_tokenizer import lexicon_tokenizer
from maven_jax.recipes import check_arg


def get_config(arg: str = "") -> ConfigDict:
    """The encoders; there are no variants."""
    check_arg(arg, ("",))
    config = ConfigDict()
    config.visual = ConfigDict(
        {
            "kind": "swin",
            "source": "random",
            "dtype": "float32",
            "batch_size": 64,
            "batch_buckets": 2,
            "seed": 0,
            "model": {
                # 4×4 patches merge into one, so no average over patches loses where things are.
                "image_size": 64,
                "patch_size": 16,
                "embed_dim": 16,
                "depths": (2, 2, 2),
                "num_heads": (2, 4, 8),
                "window_size": 4,
            },
            "preprocessor": {
                "do_resize": True,
                "size": {"height": 64, "width": 64},
                "resample": 2,
                "do_rescale": True,
                "do_normalize": True,
                "image_mean": (0.5, 0.5, 0.5),
                "image_std": (0.25, 0.25, 0.25),
            },
        }
    )
    config.audio = ConfigDict(
        {
            "kind": "hubert",
            "source": "random",
            "dtype": "float32",
            "batch_size": 2,
            "batch_buckets": 2,
            "chunk_s": 10.0,
            "overlap_s": 2.0,
            "seed": 0,
            "model": {
                "hidden_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                # 320 samples a frame, which is 50 Hz, as in HuBERT.
                "conv_dim": (64, 64, 64),
                "conv_kernel": (200, 8, 8),
                "conv_stride": (20, 4, 4),
                "num_conv_pos_embeddings": 4,
                "num_conv_pos_embedding_groups": 16,
            },
            "preprocessor": {"sampling_rate": 16000, "do_normalize": True},
        }
    )
    config.text = ConfigDict(
        {
            "kind": "roberta",
            "source": "random",
            "dtype": "float32",
            "batch_size": 16,
            "length_buckets": 4,
            "overlap_tokens": 32,
            "seed": 0,
            "model": {
                "vocab_size": lexicon_tokenizer(LEXICON).get_vocab_size(),
                "hidden_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "max_position_embeddings": 258,
                "pad_token_id": 1,
                "type_vocab_size": 1,
            },
            # Each of these words is one token.
            "tokenizer_words": LEXICON,
        }
    )
    return config
