"""MAVEN as its paper describes it (CVPRW 2025), on per-frame features of Aff-Wild2.

    maven-jax train --config maven --config.data.store=STORE --workdir runs/maven

Variants: `:visual`, `:audio`, `:text`, or several as in `:visual,audio`: the paper's ablation;
`:paper`, the paper's training.
Published (valence / arousal / mean CCC, presumably official validation): .3068 / .3054 / .3061;
visual alone .1048 / .2459, audio alone .1283 / .0683, text alone .0019 / .0006.
The optimiser is that of section 3.8 (AdamW 1e-4, decay 1e-2), batch and epochs are those of 4.2,
which has Adam and a decay of 1e-3.

Where the paper is silent, or we differ: a prediction per frame instead of one per window
(`model.readout`), a CCC loss beside the MSE (`loss.terms`), a warm-up and a cosine schedule,
clipped gradients, stochastic depth, early stop, and 10 % modality dropout, so that one checkpoint
copes when a modality is missing. `:paper` has none of these: one prediction per window, MSE, a
constant rate.
docs/maven.md says where the network differs from the paper's equations.
Needs: one GPU or TPU with 16 GB or more. Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    c = recipes.common()
    c.data.store = "stores/affwild2"
    paper = arg == "paper"
    if arg and not paper:
        c.data.modalities = tuple(arg.split(","))
    c.inputs.update(standardize="store", modality_dropout=0.1)
    c.model = dict(
        name="maven",
        embed_dim=512,
        num_heads=2,
        dropout_rate=0.1,
        shared_norm=True,
        refine_dim=768,
        num_stacks=2,
        beit_layers=12,
        beit_heads=12,
        beit_mlp_dim=3072,
        layer_scale_init=0.1,
        relative_position="1d",
        beit_dropout_rate=0.0,
        stochastic_depth_rate=0.1,
        remat=False,
        head_dims=(512, 256),
        head_dropout_rate=0.2,
        head="polar",
        readout="frame",
        dtype="bfloat16",
    )
    c.loss.terms = dict(ccc_batch=1.0, mse=0.5)
    c.optimizer.update(
        name="adamw",
        learning_rate=1e-4,
        schedule_kind="cosine",
        warmup_epochs=2.0,
        weight_decay=1e-2,
    )
    c.train.update(batch_size=16, num_epochs=200.0)
    c.train.plateau.stop_patience = 30
    c.eval.update(batch_size=32, hop=100)
    if paper:
        c.inputs.modality_dropout = 0.0
        c.model.update(readout="pooled", stochastic_depth_rate=0.0)
        c.loss.terms = dict(mse=1.0)
        c.optimizer.update(schedule_kind="constant", warmup_epochs=0.0)
        with c.optimizer.ignore_type():
            c.optimizer.clip_norm = None
        with c.train.plateau.ignore_type():
            c.train.plateau.stop_patience = None
    return c
