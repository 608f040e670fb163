"""Emotion DistilRoBERTa (Hartmann, 2022): seven emotions of what is said, in English.

Command: maven-jax weights distilroberta [--from FOLDER]
What it says of a segment of the transcript holds for each of the segment's words.
"""

from ml_collections import ConfigDict

from maven_jax import recipes

HUB = "j-hartmann/emotion-english-distilroberta-base"


def get_config(arg: str = "") -> ConfigDict:
    """The network; there are no variants."""
    recipes.check_arg(arg, ("",))
    encoder = recipes.load(f"sections/text:{HUB}", "encoders")
    encoder.output = "logits"
    return ConfigDict(
        {
            "encoder": encoder,
            "map": {
                "kind": "classes",
                "labels": ("angry", "disgusted", "afraid", "happy", "neutral", "sad", "surprised"),
            },
            "weights": {
                "title": "DistilRoBERTa for emotions in English text",
                "licence": "not stated by its author",
                "trained_on": "six collections of English texts (reviews, tweets, dialogues; one "
                "of seven labels each)",
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
