"""Sections for the sound, by the kind of encoder or by the published name of its weights.

    maven-jax prepare --root ROOT --out STORE --encoders base --encoders.audio=NAME
    maven-jax prepare --root ROOT --out STORE --encoders base --encoders.audio.kind=KIND

takes one of these in place of the recipe's own section; its values can be set behind it, as
`--encoders.audio.source=FOLDER`. `KIND:tiny` is small and has random weights.
"""

from typing import Any

from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.features.sections import published

WAVEFORMS = ("hubert", "wav2vec2", "wavlm")
# Of recipes: kind -> the recipe, and its small one.
ELSEWHERE = {
    "vggish": ("rjcma", "rjcma:tiny"),
    "tsav_resnet18": ("rjca", "rjca:tiny"),
    "log_mel": ("raw", "raw:tiny"),
}
SOURCES = {
    "hubert": "facebook/hubert-base-ls960",
    "wav2vec2": "facebook/wav2vec2-base-960h",
    "wavlm": "microsoft/wavlm-base-plus",
}
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "facebook/hubert-base-ls960": ("hubert", {}),
    "facebook/hubert-large-ll60k": ("hubert", {}),
    "facebook/wav2vec2-base-960h": ("wav2vec2", {}),
    "facebook/wav2vec2-large-960h": ("wav2vec2", {}),
    "facebook/wav2vec2-large-robust": ("wav2vec2", {}),
    "facebook/wav2vec2-large-xlsr-53": ("wav2vec2", {}),
    # 1024 per frame; its arousal, dominance and valence with output=logits.
    "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim": ("wav2vec2", {"pool_s": 4.0}),
    "microsoft/wavlm-base": ("wavlm", {}),
    "microsoft/wavlm-base-plus": ("wavlm", {}),
    "microsoft/wavlm-large": ("wavlm", {}),
    "openai/whisper-base": ("whisper", {}),
    "openai/whisper-small": ("whisper", {}),
    "openai/whisper-medium": ("whisper", {}),
    "openai/whisper-large-v3": ("whisper", {}),
}


def get_config(arg: str = "") -> ConfigDict:
    """The section of a kind, of a kind's small variant (`KIND:tiny`), or of published weights."""
    name, _, size = arg.partition(":")
    recipes.check_arg(size, ("", "tiny"))
    kind, changes = published(name, (*WAVEFORMS, "whisper", *ELSEWHERE, "opensmile"), NAMED)
    if kind in ELSEWHERE:
        return recipes.load(ELSEWHERE[kind][size == "tiny"], group="encoders").audio
    if kind == "opensmile":
        # 25 channels at 100 Hz; an extra with a licence of its own (docs/encoders.md).
        return ConfigDict({"kind": "opensmile", "feature_set": "eGeMAPSv02"})
    if kind == "whisper":
        return whisper(size == "tiny", changes)
    section = recipes.load("tiny" if size else "base", group="encoders").audio
    section.kind = kind
    if not size:
        section.source = SOURCES[kind]
        section.update(changes)
    elif kind == "wavlm":
        section.model.update({"num_buckets": 32, "max_bucket_distance": 80})
    return section


def whisper(tiny: bool, changes: dict[str, Any]) -> ConfigDict:
    """The encoder of Whisper, in its windows of 30 s."""
    section = ConfigDict(
        {
            "kind": "whisper",
            "source": "openai/whisper-base",
            "dtype": "float32",
            # Windows per call over all local devices.
            "batch_size": 2,
            "batch_buckets": 2,
            "overlap_s": 5.0,
        }
    )
    if tiny:
        sizes = {
            "d_model": 64,
            "encoder_layers": 1,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "max_source_positions": 500,
        }
        section.update({"source": "random", "seed": 0, "model": sizes, "overlap_s": 2.0})
        section.preprocessor = ConfigDict({"sampling_rate": 16000, "feature_size": 80})
    section.update(changes)
    return section
