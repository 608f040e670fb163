"""Sizes that follow from the data: for recipes that suit a store of any length and rate."""

from __future__ import annotations

from maven_jax.experiment import Experiment
from maven_jax.progress import say

# Windows of one frame each are no neighbours: so many of them say as much as any batch needs.
MOST_WINDOWS = 128


def settle_sizes(experiment: Experiment) -> None:
    """With `train.batch_frames`, sets window and batch size by the training videos.

    No window is longer than the longest video, and a batch has as many windows as hold so many
    annotated frames: a CCC over a batch needs them, whether windows have hundreds of frames or,
    with a rating per clip, one. Changes the experiment's recipe, so that the record of the run says
    what was chosen.
    """
    config = experiment.config
    frames = config.train.batch_frames
    if frames is None:
        return
    longest = max(e.num_frames for e in experiment.entries(config.data.train_split))
    for key in ("length", "hop"):
        config.data.window[key] = min(config.data.window[key], longest)
    config.eval.hop = min(config.eval.hop, config.data.window.length)
    for section in (config.model, config.model.get("ridge", {})):
        if "widths" in section:  # a box wider than all videos says what a narrower one does
            widths = tuple(section.widths)
            section.widths = tuple(w for w in widths if w == min(widths) or w < 2 * longest)
    windows = experiment.windows(config.data.train_split, train=True)
    annotated = sum(entry.num_annotated for entry in windows.entries)
    share = annotated / sum(entry.num_frames for entry in windows.entries)
    held = share * ((windows.stop - windows.start) / windows.step).mean()
    size = min(max(round(frames / held), 1), MOST_WINDOWS, len(windows))
    # Whatever the devices, so that a run continues on others; eight of them can share it.
    config.train.batch_size = size - size % 8 or size
    say(
        f"windows of {config.data.window.length} frames, {config.train.batch_size} in a batch, "
        "by the lengths of the training videos"
    )
