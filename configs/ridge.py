"""Ridge regression on features and their averages over a few widths of time, in closed form.

    maven-jax train --config ridge --config.data.store=STORE --workdir runs/ridge

What every network has to beat: the first line of a table. The penalty is chosen by leaving out one
recording of the training split at a time, and the predictions get the mean and the spread of the
training labels; no validation label is used.
`model.widths` are frames: at 30 fps 15, 45 and 121 are .5, 1.5 and 4 seconds. For a corpus of
Aff-Wild2's size set `optimizer.frame_step=5`: every fifth frame counts, neighbours say nearly the
same, and the pass over the store takes a fifth of the products.
Features made elsewhere take a pass more for each share of `data.centre`; one share, such as
`--config.data.centre=0.0`, leaves these out.
Hardware: 2 CPU cores, seconds for a few dozen videos. Expected: depends on the features.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    recipes.check_arg(arg, ("",))
    c = recipes.common()
    c.data.store = "stores/affwild2"
    c.data.modalities = ()  # all that the store has
    # Of features made elsewhere; the first unless another predicts recordings left out better.
    c.data.centre = (0.0, 0.5, 0.8)
    c.data.window.update(length=1000, hop=900)
    c.inputs.standardize = "store"
    c.model = dict(name="ridge", widths=(1, 15, 45, 121))
    c.loss.terms = dict(mse=1.0)
    c.optimizer = dict(
        name="closed_form",
        # Per frame and standardised channel.
        penalties=(0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        frame_step=1,
        most_groups=64,
    )
    c.train.update(batch_size=1, batch_frames=1000, num_epochs=1.0)
    c.train.plateau.stop_patience = None
    c.eval.update(batch_size=4, hop=900)
    return c
