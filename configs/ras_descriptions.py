"""RAS's descriptions of what people do, a modality of its own (10th ABAW, 2026).

    maven-jax train --config ras_descriptions --config.data.store=STORE --workdir runs/ras_words

A vision-language model describes every few seconds of a video; a text encoder makes a vector of
each description. The store has them as `description`, one row per segment, by `prepare --features`
(docs/own_features.md): models see the row that holds at a frame. Twelve layers of Mamba read them;
everything else is that of `ras_reliability`. Any modality whose vectors last for segments fits:
`--config.data.modalities=visual,audio,text` with `--config.model.temporal.text=mamba`.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    c = recipes.load(f"ras_reliability:{arg}")
    c.data.modalities = ("visual", "audio", "description")
    c.model.temporal = {"description": "mamba", "*": "transformer"}
    c.model.num_layers = {"description": 12, "*": 5}
    return c
