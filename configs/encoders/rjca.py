"""The encoders of RJCA (Praveen et al., 2023/24): R(2+1)D-18 on clips and ResNet-18 on sound.

Command: maven-jax prepare --root ROOT --out STORE --encoders rjca
Weights: both from TSAV's checkpoint (Kuhnke et al., FG 2020):
    maven-jax convert --model tsav --input FILE --out weights/tsav
If they lie elsewhere, set --encoders.visual.source=FOLDER and --encoders.audio.source=FOLDER.
Features: visual 49 x 512 per frame, position by position (50 kB: 3 million frames are 150 GB),
audio 512; no text.
`rjca:bfloat16` computes in bfloat16. `rjca:tiny` has small random networks, for tests and the
synthetic corpus: clips of 32 x 32 pixels, 16 positions of 64; audio 64.

A frame's clip is 8 crops 4/30 s apart, the last of which is its own; its second of sound ends at
the frame, as in the release. What differs: the release takes every 4th frame (3rd, 2nd or 1st if
crops are missing) and black if there is none. Here a moment without a crop takes the nearest
earlier one, or else the first later one. The release's sound spans 31 frame intervals, which 104
columns cover at 30 fps; its spectrogram reflects the sound at both ends of every example, ours goes
on.
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg


def get_config(arg: str = "") -> ConfigDict:
    """The encoders; `arg` is the precision or "tiny"."""
    arg = check_arg(arg, ("", "float32", "bfloat16", "tiny"))
    dtype = arg if arg in ("float32", "bfloat16") else "float32"
    config = ConfigDict()
    # Frames per record of the store: windows read single frames a second apart.
    config.chunk_frames = 1
    config.visual = ConfigDict(
        {
            "kind": "r2plus1d",
            "source": "weights/tsav/visual",
            "dtype": dtype,
            # Clips per call over all local devices, and the number of smaller sizes compiled for.
            "batch_size": 32,
            "batch_buckets": 3,
            "step_s": 4 / 30,
            # Of Kinetics, on which the network was pretrained.
            "mean": (0.43216, 0.394666, 0.37645),
            "std": (0.22803, 0.22145, 0.216989),
        }
    )
    config.audio = ConfigDict(
        {
            "kind": "tsav_resnet18",
            "source": "weights/tsav/audio",
            "dtype": dtype,
            # Examples per call over all local devices.
            "batch_size": 128,
            "batch_buckets": 3,
            # 1.03 s of sound, up to the frame's time.
            "columns": 104,
            "align": "end",
        }
    )
    return _tiny(config) if arg == "tiny" else config


def _tiny(config: ConfigDict) -> ConfigDict:
    """Narrow networks with random weights: nothing to download."""
    visual = {
        # Few layers and 4 x 4 places: in deeper random networks what they see gets lost.
        "image_size": 32,
        "stem_dims": (16, 32),
        "widths": (64,),
        "depths": (1,),
        "strides": (4,),
    }
    audio = {"stem_dim": 16, "widths": (32, 64), "depths": (1, 1), "strides": (2, 2)}
    for name, model in (("visual", visual), ("audio", audio)):
        config[name].update({"source": "random", "seed": 0, "model": model})
    return config
