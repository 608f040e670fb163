"""audEERING's dimensional wav2vec 2.0 (Wagner et al., TPAMI 2023): arousal, dominance, valence.

Command: maven-jax weights audeering [--from FOLDER]
Its outputs lie around 0 to 1; they become -1 to 1. It was trained on whole utterances; here its
head takes the mean of four seconds around each frame.
"""

from ml_collections import ConfigDict

from maven_jax import recipes

HUB = "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim"


def get_config(arg: str = "") -> ConfigDict:
    """The network; there are no variants."""
    recipes.check_arg(arg, ("",))
    encoder = recipes.load(f"sections/audio:{HUB}", "encoders")
    encoder.output = "logits"
    return ConfigDict(
        {
            "encoder": encoder,
            "map": {
                "kind": "dimensions",
                "num_outputs": 3,
                "valence": {"output": 2, "scale": 2.0, "offset": -1.0},
                "arousal": {"output": 0, "scale": 2.0, "offset": -1.0},
            },
            "weights": {
                "title": "audEERING's wav2vec 2.0 for arousal, dominance and valence",
                "licence": "CC BY-NC-SA 4.0",
                "trained_on": "MSP-Podcast 1.7 (English speech; ratings of whole utterances)",
                "page": f"https://huggingface.co/{HUB}",
                "files": {},
                "url": "",
                "url_sha256": "",
                "bytes": 0,
                "package": "",
                "hub": HUB,
            },
        }
    )
