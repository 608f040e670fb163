"""GRJCA (8th ABAW, 2025, second place): RJCMA's recursion, with a gate that weighs its steps.

    maven-jax train --config grjca --config.data.store=stores/rjcma --workdir runs/grjca

Variants and everything else are those of `rjcma`. The paper has two modalities:
`--config.data.modalities=visual,audio`.
Published for GRJCA and HGRJCA together (valence / arousal / mean CCC): test .561 / .620 / .591,
cross-validation fold 1 .623 / .660 / .642.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "both") -> ConfigDict:
    c = recipes.load(f"rjcma:{arg or 'both'}")
    c.model.name = "grjca"
    c.model.gate_temperature = 0.1
    return c
