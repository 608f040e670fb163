"""Sizes of a run that follow from its data: for recipes that suit a store of any size and rate."""

from __future__ import annotations

import math

from maven_jax.experiment import Experiment
from maven_jax.progress import say

# Evaluations of a run whose length is given in steps.
EVALUATIONS = 6
# Windows of one frame each are no neighbours: so many of them say as much as any batch needs.
MOST_WINDOWS = 128


def settle_sizes(experiment: Experiment) -> None:
    """Sets window, batch size and epochs where a recipe names frames and steps instead.

    With `train.batch_frames` no window is longer than the longest video, and a batch has as many
    windows as hold so many annotated frames: a CCC over a batch needs them, whether windows have
    hundreds of frames or, with a rating per clip, one. With `train.num_steps` the run has so many
    steps, however many windows make an epoch.

    Changes the experiment's recipe, so that the record of the run says what was chosen.
    """
    config = experiment.config
    frames, steps = config.train.batch_frames, config.train.num_steps
    if frames is not None:
        longest = max(e.num_frames for e in experiment.entries(config.data.train_split))
        for section, key in ((config.data.window, "length"), (config.data.window, "hop")):
            section[key] = min(section[key], longest)
        config.eval.hop = min(config.eval.hop, config.data.window.length)
        if "widths" in config.model:  # a box wider than all videos says what a narrower one does
            widths = tuple(config.model.widths)
            config.model.widths = tuple(w for w in widths if w == min(widths) or w < 2 * longest)
        windows = experiment.windows(config.data.train_split, train=True)
        annotated = sum(entry.num_annotated for entry in windows.entries)
        share = annotated / sum(entry.num_frames for entry in windows.entries)
        held = share * ((windows.stop - windows.start) / windows.step).mean()
        unit = config.train.accumulate_steps * experiment.mesh.shape["data"]
        most = min(MOST_WINDOWS, len(windows))
        size = min(max(round(frames / held), 1), most)
        config.train.batch_size = max(round(size / unit), 1) * unit
    if steps is not None:
        windows = experiment.windows(config.data.train_split, train=True)
        per_epoch = max(math.ceil(len(windows) / config.train.batch_size), 1)
        config.train.num_epochs = steps / per_epoch
        config.train.eval_every_epochs = steps / per_epoch / EVALUATIONS
    if frames is not None or steps is not None:
        say(
            f"windows of {config.data.window.length} frames, {config.train.batch_size} in a batch, "
            f"{config.train.num_epochs:.1f} epochs"
        )
