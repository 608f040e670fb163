"""RJCMA (6th ABAW, 2024): recursive joint cross-modal attention of face, voice and words, TCNs.

    maven-jax prepare --root AFFWILD2 --out stores/rjcma --encoders rjcma
    maven-jax train --config rjcma:valence --config.data.store=stores/rjcma --workdir runs/rjcma_v
    maven-jax train --config rjcma:arousal --config.data.store=stores/rjcma --workdir runs/rjcma_a
    maven-jax ensemble runs/rjcma_v runs/rjcma_a --out runs/rjcma

Variants: `:valence`, `:arousal` (the paper's: a network for each), `:both` (one network for both).
Folds: `--config.data.fold=1` … `5` (0 is the official split).
Published (valence / arousal / mean CCC): official validation .455 / .652 / .554, test .542 / .619 /
.581; its .585 / .659 is cross-validation fold 1. Recursion, fold 1 mean: l = 1 .607, 2 .618,
3 .629, 4 .615.

These are the paper's formulas (`correlation="time"`, l = 3, each step with its own weights). The
released network is `model.correlation=dense model.query=identity model.num_steps=2
model.correlation_dropout_rate=0.6`; `maven-jax convert --model rjcma` reads its weights. The
learning rate of 1e-4 is that of the authors' later work (1e-5 in the release). Padding is masked;
the release attends to it. Encoders are frozen here; `configs/end_to_end.py` trains them in stages.
Needs: one GPU with 8 GB or more. Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes

WEIGHTS = {"valence": (1.0, 0.0), "arousal": (0.0, 1.0), "both": (1.0, 1.0)}


def get_config(arg: str = "both") -> ConfigDict:
    variant = recipes.check_arg(arg or "both", tuple(WEIGHTS))
    c = recipes.common()
    c.data.store = "stores/rjcma"
    # Only the words' vectors are standardised.
    c.inputs.standardize = dict(visual="none", audio="none", text="store")
    c.model = dict(
        name="rjcma",
        temporal="tcn",
        channels=dict(visual=(512, 512, 256, 256), audio=(128,) * 4, text=(256, 256, 128, 128)),
        kernel_size=5,
        temporal_dropout_rate=0.1,
        correlation="time",
        window_length=c.data.window.get_ref("length"),
        num_steps=3,
        share_weights=False,
        attention_dim=32,
        joint="linear",
        joint_dim=512,
        query="identity",
        correlation_dropout_rate=0.0,
        remat=False,
        head_dim=256,
        dimensions=("valence", "arousal") if variant == "both" else (variant,),
        dtype="float32",
    )
    c.loss.update(terms=dict(ccc=1.0), dimension_weights=WEIGHTS[variant])
    c.optimizer.update(
        name="adam",
        learning_rate=1e-4,
        schedule_kind="constant",
        warmup_epochs=5.0,
        weight_decay=1e-3,
        decay_all=True,
        clip_norm=None,
    )
    c.train.update(batch_size=12, num_epochs=100.0)
    # From 1e-4 down to 1e-8.
    c.train.plateau.update(factor=0.1, stop_patience=50)
    c.eval.update(batch_size=24, hop=200)
    return c
