"""What most training recipes share: each begins from these values and sets what makes it itself.

This is no recipe yet. Store, model, loss terms, the optimiser's kind and rate, batch size and
epochs are each recipe's own; a run names the ones that are missing. A recipe of your own begins
here too, in whatever folder it lies:

    from maven_jax import recipes

    def get_config(arg=""):
        c = recipes.common()
        ...
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            data=dict(
                synthetic=None,
                modalities=("visual", "audio", "text"),
                single_vector={},
                train_split="train",
                eval_split="validation",
                fold=None,
                # With a fold: the number of folds and a file of groups; both None: ABAW's six.
                folds=None,
                fold_groups=None,
                mix={},
                window=dict(kind="sliding", length=300, hop=200, step_s=None),
                # Share of each recording's mean that is taken from features made elsewhere; of
                # several, ridge chooses one by leaving out recordings.
                centre=(0.0,),
                num_threads=8,
                resident=False,
            ),
            inputs=dict(
                noise_std=0.0,
                noise_always=False,
                offset_std=0.0,
                video_offset_std=0.0,
                channel_dropout=0.0,
                speed=0.0,
                modality_dropout=0.0,
            ),
            loss=dict(
                dimension_weights=(1.0, 1.0),
                min_frames=2,
                stop_ccc_gradient=False,
                # Of the store, beside valence and arousal: names, or "*" for all that it has; and
                # one weight for all, or one for each.
                extra_targets=(),
                extra_weights=(1.0,),
            ),
            optimizer=dict(decay_all=False, b1=0.9, b2=0.999, eps=1e-8, clip_norm=1.0),
            train=dict(
                accumulate_steps=1,
                ema_decay=0.0,  # of an average of the weights, which then predicts
                batch_frames=None,  # in place of `batch_size`: annotated frames in a batch
                eval_every_epochs=1.0,
                log_every_steps=50,
                # The same numbers elsewhere too: a project of Weights & Biases, an experiment of
                # MLflow.
                wandb=None,
                mlflow=None,
                # A factor of 1 leaves the learning rate to its schedule.
                plateau=dict(factor=1.0, patience=5, min_scale=1e-4),
                stages=(),
                init={},
            ),
            # `blend`: of overlapping windows, "mean" or "centre": their middles count most.
            # `labels`: split -> folder of annotations, for splits that the store has none of.
            eval=dict(smooth_frames=(0, 0), blend="mean", labels={}),
            checkpoint=dict(keep=dict(keep_latest=2, keep_best=1), every_steps=2000),
            mesh=dict(data=-1, model=1, fsdp=False),
        )
    )
