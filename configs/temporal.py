"""Temporal baselines: the modalities side by side, and a transformer or Mamba over 400 frames.

    maven-jax train --config temporal:transformer --config.data.store=STORE --workdir runs/temporal

Variants: `:transformer` (five layers, 256 wide, eight heads, a learned bias over distances),
`:mamba` (selective state spaces, both ways, by one associative scan). Windows, loss weights,
average of the weights and smoothing are those of RAS (10th ABAW, 2026), whose face stream is such a
transformer; Mamba-VA (8th ABAW) published .536 / .431 (valence / arousal, official validation).
Needs: one GPU with 8 GB or more. Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    temporal = recipes.check_arg(arg or "transformer", ("transformer", "mamba"))
    c = recipes.common()
    c.data.store = "stores/affwild2"
    c.data.modalities = ()  # all that the store has
    c.data.window.update(length=400, hop=150)
    c.inputs.update(standardize="store", modality_dropout=0.1)
    c.model = dict(
        name="early_fusion",
        temporal=temporal,
        embed_dim=128,
        width=256,
        num_layers=5,
        kernel_size=4,
        num_heads=8,
        dropout_rate=0.2,
        head_dims=(128,),
        head_dropout_rate=0.2,
        head="va",
        dtype="float32",
    )
    c.loss.update(terms=dict(ccc_batch=1.0, mse=0.05), dimension_weights=(0.7, 0.3))
    c.optimizer.update(
        name="adamw",
        learning_rate=1e-4,
        schedule_kind="cosine",
        warmup_epochs=1.0,
        weight_decay=1e-2,
    )
    c.train.update(batch_size=16, num_epochs=30.0, ema_decay=0.998)
    c.train.plateau.stop_patience = 8
    c.eval.update(batch_size=32, hop=150, smooth_frames=(7, 13), blend="centre")
    return c
