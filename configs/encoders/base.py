"""The published encoders of MAVEN (CVPRW 2025): Swin-B, HuBERT base, RoBERTa base, frozen.

Command: maven-jax prepare --root ROOT --out STORE --encoders base
Weights: from the Hugging Face hub at the first run (about 0.35, 0.38 and 0.5 GB), or from local
folders, e.g. --encoders.visual.source=/models/swin-base-patch4-window7-224; OWNER/NAME@REVISION
pins a revision.
Features: visual 1024 per frame (mean of the last stage's patches), audio 768 at 50 Hz, text 768
per word; stored per video frame.
`base:bfloat16` computes in bfloat16.

Sound is encoded in chunks of 20 s, cross-faded over 5 s. benchmarks/audio_chunks.py measured this
on minutes of synthetic speech with untrained weights of base size: the features differ from those
of one long pass by 0.05 to 0.10 of their own spread (root mean square), and no step between frames
is more than 2 % larger. The published weights were not measured.
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg


def get_config(arg: str = "") -> ConfigDict:
    """The encoders; `arg` is the precision, float32 by default."""
    dtype = check_arg(arg, ("", "float32", "bfloat16")) or "float32"
    config = ConfigDict()
    config.visual = ConfigDict(
        {
            "kind": "swin",
            "source": "microsoft/swin-base-patch4-window7-224",
            "dtype": dtype,
            # Crops per call over all local devices, and the number of smaller sizes compiled for.
            "batch_size": 64,
            "batch_buckets": 3,
            # "logits": what a trained head says of a crop.
            "output": "embedding",
        }
    )
    config.audio = ConfigDict(
        {
            "kind": "hubert",
            "source": "facebook/hubert-base-ls960",
            "dtype": dtype,
            # Chunks per call over all local devices.
            "batch_size": 8,
            "batch_buckets": 3,
            "chunk_s": 20.0,
            "overlap_s": 5.0,
            # "logits": what a trained head says of the mean of `pool_s` seconds around a frame.
            "output": "embedding",
            "pool_s": None,
        }
    )
    config.text = ConfigDict(
        {
            "kind": "roberta",
            "source": "roberta-base",
            "dtype": dtype,
            # Token windows per call over all local devices.
            "batch_size": 16,
            # Window lengths compiled for: 512, 256, 128, 64.
            "length_buckets": 4,
            "overlap_tokens": 128,
            # "logits": what a trained head says of a segment.
            "output": "embedding",
        }
    )
    return config
