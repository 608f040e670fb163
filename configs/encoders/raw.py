"""Crops and spectrograms as RJCMA's encoders take them, to train those too; only BERT encodes here.

Command: maven-jax prepare --root ROOT --out STORE --encoders raw
Features: visual 48 x 48 x 3 bytes per frame, audio 96 x 64 log-mel values, text 768 of BERT as in
`rjcma`; about 21 kB per frame.
`raw:tiny` has crops of 24 x 24, 32 columns of sound and a small random BERT, for tests and the
synthetic corpus.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    """The encoders; `arg` is BERT's precision or "tiny"."""
    arg = recipes.check_arg(arg, ("", "float32", "bfloat16", "tiny"))
    config = ConfigDict()
    # Frames per record of the store.
    config.chunk_frames = 50
    # Pixels: the networks crop the middle 40 themselves, or any 40 in training.
    config.visual = ConfigDict({"kind": "crops", "resize": 48})
    # As in `rjcma`: 0.96 s of sound from the frame's time on.
    config.audio = ConfigDict({"kind": "log_mel", "columns": 96, "align": "start"})
    config.text = recipes.load(f"rjcma:{arg}", group="encoders").text
    if arg == "tiny":
        config.visual.resize = 24
        config.audio.columns = 32
    return config
