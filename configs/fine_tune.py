"""A trained model, trained a little further on your own ratings.

    maven-jax train --config fine_tune:W --config.data.store=STORE --workdir runs/mine

W is the workdir of a run, or a bundle of `maven-jax export`. Its model, inputs and windows stay as
they are, and training starts from its weights, as with `--init-from W`. STORE holds your own corpus
(docs/fine_tuning.md), encoded by the encoders that W was trained on. W may also be the name of a
recipe (`fine_tune:maven` is the default); then give `--init-from` on the command line.

The training is ours: a tenth of the learning rate, half the batch, 10 epochs at most, early stop
after 3 without a better validation ccc, for corpora of minutes rather than hours. Features are
standardised by the statistics of STORE, because another camera or microphone has another mean.
Hardware: what W needs, for less time. Expected: depends on both corpora; no score is claimed.
"""

from pathlib import Path

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "maven") -> ConfigDict:
    start = Path(arg or "maven")
    if (start / "config.json").is_file():
        # Only now: other recipes are read without the parts that a trained model needs.
        from maven_jax.runs.trained_model import read_config

        c = read_config(start)
        init = {"/": str(start)}
    else:
        c = recipes.load(arg or "maven")
        init = {}
    c.data.update(store="stores/mine", train_split="train", eval_split="validation")
    c.data.synthetic = c.data.fold = c.data.folds = c.data.fold_groups = None
    c.data.mix = {}
    c.optimizer.update(
        learning_rate=c.optimizer.learning_rate / 10, schedule_kind="cosine", warmup_epochs=1.0
    )
    c.train.update(
        batch_size=max(c.train.batch_size // 2, 1),
        accumulate_steps=1,
        num_epochs=10.0,
        eval_every_epochs=1.0,
        log_every_steps=10,
        stages=(),
    )
    c.train.init = init
    c.train.plateau.update(stop_patience=3)
    c.checkpoint.every_steps = 200
    return c
