"""Sections for the words, by the kind of encoder or by the published name of its weights.

    maven-jax prepare --root ROOT --out STORE --encoders base --encoders.text=NAME
    maven-jax prepare --root ROOT --out STORE --encoders base --encoders.text.kind=KIND

takes one of these in place of the recipe's own section; its values can be set behind it, as
`--encoders.text.source=FOLDER`. `KIND:tiny` is small and has random weights.
"""

from typing import Any

from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.features.sections import published

SOURCES = {
    "roberta": "roberta-base",
    "xlm-roberta": "FacebookAI/xlm-roberta-base",
    "bert": "bert-base-uncased",
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
    "deberta-v2": "microsoft/deberta-v3-base",
    "modernbert": "answerdotai/ModernBERT-base",
}
# What small random networks need beside the recipe's sizes.
SMALL: dict[str, dict[str, Any]] = {
    "deberta-v2": {
        "relative_attention": True,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "pos_att_type": "p2c|c2p",
        "position_buckets": 32,
        "type_vocab_size": 0,
    },
    "modernbert": {"pad_token_id": 1},
}
# Sentence encoders of BERT's kind: one layer, as their own pooling takes it.
LAST = {"summed_layers": 1}
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "FacebookAI/roberta-base": ("roberta", {}),
    "FacebookAI/roberta-large": ("roberta", {}),
    "FacebookAI/xlm-roberta-base": ("xlm-roberta", {}),
    "FacebookAI/xlm-roberta-large": ("xlm-roberta", {}),
    "google-bert/bert-base-uncased": ("bert", {}),
    "google-bert/bert-large-uncased": ("bert", {}),
    "google-bert/bert-base-multilingual-cased": ("bert", {}),
    "sentence-transformers/all-MiniLM-L6-v2": ("bert", LAST),
    "sentence-transformers/all-mpnet-base-v2": ("mpnet", {}),
    "microsoft/mpnet-base": ("mpnet", {}),
    "microsoft/deberta-v3-base": ("deberta-v2", {}),
    "microsoft/deberta-v3-large": ("deberta-v2", {}),
    "microsoft/mdeberta-v3-base": ("deberta-v2", {}),
    "answerdotai/ModernBERT-base": ("modernbert", {}),
    "answerdotai/ModernBERT-large": ("modernbert", {}),
    # Classifiers: what they say of a segment is the vector of each of its words.
    "j-hartmann/emotion-english-distilroberta-base": ("roberta", {"output": "logits"}),
    "SamLowe/roberta-base-go_emotions": ("roberta", {"output": "logits"}),
    "cardiffnlp/twitter-roberta-base-sentiment-latest": ("roberta", {"output": "logits"}),
}


def get_config(arg: str = "") -> ConfigDict:
    """The section of a kind, of a kind's small variant (`KIND:tiny`), or of published weights."""
    name, _, size = arg.partition(":")
    recipes.check_arg(size, ("", "tiny"))
    kind, changes = published(name, tuple(SOURCES), NAMED)
    recipe = "rjcma:tiny" if size else "rjcma"
    if kind != "bert":
        recipe = "tiny" if size else "base"
    section = recipes.load(recipe, group="encoders").text
    section.kind = kind
    if size and kind in SMALL:
        with section.unlocked():
            section.model.update(SMALL[kind])
    if not size:
        section.source = SOURCES[kind]
        section.update(changes)
    return section
