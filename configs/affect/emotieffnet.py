"""EmotiEffNet B0 (Savchenko, 2022), `enet_b0_8_va_mtl`: eight expressions, valence and arousal.

Command: maven-jax weights emotieffnet [--from enet_b0_8_va_mtl.pt]
Its last two outputs are valence and arousal of a single picture, in [-1, 1]. The file was not at
hand when this was written: its size and hash are not known, and the first copy is taken for it.
"""

from ml_collections import ConfigDict

from maven_jax import recipes

REPOSITORY = "https://github.com/sb-ai-lab/EmotiEffLib"
FILE = "enet_b0_8_va_mtl.pt"


def get_config(arg: str = "") -> ConfigDict:
    """The network; there are no variants."""
    recipes.check_arg(arg, ("",))
    encoder = recipes.load(f"sections/visual:weights/{FILE}", "encoders")
    encoder.output = "logits"
    return ConfigDict(
        {
            "encoder": encoder,
            # It was trained on boxes of faces, which are not aligned.
            "face_margin": 0.0,
            "map": {
                "kind": "dimensions",
                "num_outputs": 10,
                "valence": {"output": 8, "scale": 1.0, "offset": 0.0},
                "arousal": {"output": 9, "scale": 1.0, "offset": 0.0},
            },
            "weights": {
                "title": "EmotiEffNet B0 with valence and arousal (enet_b0_8_va_mtl)",
                "licence": "Apache-2.0",
                "trained_on": "AffectNet (pictures of the web; valence and arousal of single "
                "pictures; for research only)",
                "page": REPOSITORY,
                "files": {"pt": {"name": FILE, "member": "", "bytes": 0, "sha256": ""}},
                "url": f"{REPOSITORY}/raw/main/models/affectnet_emotions/{FILE}",
                "url_sha256": "",
                "bytes": 0,
                "package": "",
                "hub": "",
            },
        }
    )
