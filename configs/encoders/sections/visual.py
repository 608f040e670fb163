"""Sections for the face, by the kind of encoder or by the published name of its weights.

    maven-jax prepare --root ROOT --out STORE --encoders base --encoders.visual=NAME
    maven-jax prepare --root ROOT --out STORE --encoders base --encoders.visual.kind=KIND

takes one of these in place of the recipe's own section; its values can be set behind it, as
`--encoders.visual.source=FOLDER`. `KIND:tiny` is small and has random weights.
"""

from typing import Any

from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.features.sections import published

# Of recipes: kind -> the recipe, and its small one.
ELSEWHERE = {
    "swin": ("base", "tiny"),
    "iresnet50": ("rjcma", "rjcma:tiny"),
    "r2plus1d": ("rjca", "rjca:tiny"),
    "crops": ("raw", "raw:tiny"),
}
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "microsoft/swin-base-patch4-window7-224": ("swin", {}),
    "microsoft/swin-tiny-patch4-window7-224": ("swin", {}),
}


def get_config(arg: str = "") -> ConfigDict:
    """The section of a kind, of a kind's small variant (`KIND:tiny`), or of published weights."""
    name, _, size = arg.partition(":")
    recipes.check_arg(size, ("", "tiny"))
    kind, changes = published(name, tuple(ELSEWHERE), NAMED)
    section = recipes.load(ELSEWHERE[kind][size == "tiny"], group="encoders").visual
    section.update(changes)
    return section
