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
}


def get_config(arg: str = "") -> ConfigDict:
    """The section of a kind, of a kind's small variant (`KIND:tiny`), or of published weights."""
    name, _, size = arg.partition(":")
    recipes.check_arg(size, ("", "tiny"))
    kind, changes = published(name, (*WAVEFORMS, *ELSEWHERE), NAMED)
    if kind in ELSEWHERE:
        return recipes.load(ELSEWHERE[kind][size == "tiny"], group="encoders").audio
    section = recipes.load("tiny" if size else "base", group="encoders").audio
    section.kind = kind
    if not size:
        section.source = SOURCES[kind]
        section.update(changes)
    elif kind == "wavlm":
        section.model.update({"num_buckets": 32, "max_bucket_distance": 80})
    return section
