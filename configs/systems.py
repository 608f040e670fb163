"""Every system in small, on equal terms, on the quickstart's synthetic corpus.

    maven-jax train --config systems:rjcma --workdir runs/systems_rjcma
    python -m benchmarks.systems --out runs/systems

Variants: `:mean`, `:ridge`, `:concat`, `:early_fusion`, `:late_fusion`, `:lfan`, `:maven`, `:rjca`,
`:rjcma`, `:grjca`, `:hgrjca`, `:tagf`, `:lfan_abaw3`, `:transformer`, `:mamba`, `:ras_reliability`,
`:ras_experts`. All but ridge have the quickstart's inputs, loss and optimiser; their widths suit a
few dozen synthetic people. The second command runs all with three seeds and prints the table of
docs/systems.md.
Hardware: 2 CPU cores, two to four minutes each.
"""

from typing import Any

from ml_collections import ConfigDict

from maven_jax import recipes

WIDTH = 32
TCN = dict(temporal="tcn", channels={"*": (WIDTH,) * 4}, kernel_size=5, temporal_dropout_rate=0.2)


def rjcma(name: str, **changes: Any) -> dict[str, Any]:
    """RJCMA and those of its relatives that have a recursion."""
    return dict(
        name=name,
        **TCN,
        correlation="time",
        num_steps=3,
        share_weights=False,
        attention_dim=16,
        joint="linear",
        joint_dim=3 * WIDTH,
        query="identity",
        correlation_dropout_rate=0.0,
        remat=False,
        head_dim=64,
        dimensions=("valence", "arousal"),
        dtype="float32",
        **changes,
    )


def temporal(kind: str) -> dict[str, Any]:
    """The modalities side by side and one network over time."""
    return dict(
        name="early_fusion",
        temporal=kind,
        embed_dim=WIDTH,
        width=2 * WIDTH,
        num_layers=2,
        kernel_size=4,
        num_heads=4,
        dropout_rate=0.3,
        head_dims=(),
        head_dropout_rate=0.0,
        head="va",
        dtype="float32",
    )


def ras(experts: bool) -> dict[str, Any]:
    """The parts of RAS that work on any features."""
    return dict(
        name="ras",
        temporal={"*": "transformer"},
        num_layers={"*": 2},
        embed_dim=WIDTH,
        num_heads=4,
        kernel_size=4,
        dropout_rate=0.3,
        gated_by={},
        experts=experts,
        expert_dim=WIDTH,
        head_dims=(64,),
        head_dropout_rate=0.2,
        head="va",
        dtype="float32",
    )


MODELS: dict[str, dict[str, Any]] = {
    "late_fusion": dict(
        name="late_fusion",
        **TCN,
        head_dims=(64,),
        head_dropout_rate=0.2,
        head="va",
        dtype="float32",
    ),
    "lfan": dict(
        name="lfan",
        **TCN,
        leader="visual",
        attention_dim=WIDTH,
        dtype="float32",
    ),
    "rjca": dict(
        name="rjca",
        pooled="visual",
        guide="audio",
        positions=1,
        layout="positions",
        lstm_dim=2 * WIDTH,
        lstm_layers=1,
        lstm_dropout_rate=0.3,
        correlation="channel",
        num_steps=3,
        share_weights=False,
        attention_dim=16,
        joint="concat",
        joint_dim=0,
        query="linear",
        correlation_dropout_rate=0.0,
        remat=False,
        joint_lstm_dim=2 * WIDTH,
        joint_lstm_dropout_rate=0.3,
        head_dim=64,
        head_dropout_rate=0.3,
        dtype="float32",
    ),
    "rjcma": rjcma("rjcma"),
    "grjca": rjcma("grjca", gate_temperature=0.1, unit_length=True),
    "hgrjca": rjcma("hgrjca", gate_temperature=0.1, unit_length=True),
    "tagf": rjcma("tagf", gate_dim=WIDTH),
    "lfan_abaw3": dict(
        name="lfan_abaw3",
        **TCN,
        leader="visual",
        attention_dim=WIDTH,
        num_heads=2,
        dropout_rate=0.1,
        dtype="float32",
    ),
    "transformer": temporal("transformer"),
    "mamba": temporal("mamba"),
    "ras_reliability": ras(experts=False),
    "ras_experts": ras(experts=True),
}
TIED = ("rjca", "rjcma", "grjca", "hgrjca", "tagf")


def get_config(arg: str = "rjcma") -> ConfigDict:
    names = ("mean", "ridge", "concat", "early_fusion", "maven", *MODELS)
    variant = recipes.check_arg(arg or "rjcma", names)
    if variant == "ridge":
        c = recipes.load("ridge")
        common = recipes.load("quickstart")
        for key in ("store", "synthetic"):
            c.data[key] = common.data[key]
        c.eval.labels = common.eval.labels
        return c
    c = recipes.load(f"quickstart:{variant}" if variant in ("mean", "concat") else "quickstart")
    c.eval.hop = 50
    if variant == "early_fusion":
        c.model = recipes.load("features:tcn").model
        c.model.ridge.weight = 0.0
    if variant not in MODELS:
        return c
    c.model = ConfigDict(MODELS[variant])
    # Recursions and LSTMs diverge at MAVEN's rate, and take more steps at this one.
    c.optimizer.learning_rate = 1e-3
    c.train.num_epochs = 60.0
    if variant == "rjca":
        c.data.modalities = ("visual", "audio", "text")
        c.data.window.update(dict(kind="dense", length=16, hop=1))
        with c.data.window.ignore_type():
            c.data.window.step_s = 0.5
        c.eval.hop = 1
        # As many frames per step as 8 windows of 100, which the others have.
        c.train.batch_size = 50
    if variant in TIED:
        c.model.window_length = c.data.window.get_ref("length")
    return c
