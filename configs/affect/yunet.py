"""YuNet (Wu et al., Machine Intelligence Research 2023), the face detector of OpenCV's model zoo.

Command: maven-jax weights yunet [--from face_detection_yunet_2026may.onnx]
`predict` and `corpus` find faces by it once it is there; `--face-model FILE` takes another version.
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg

NAME = "face_detection_yunet_2026may.onnx"
SHA256 = "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"


def get_config(arg: str = "") -> ConfigDict:
    """The weights; there are no variants."""
    check_arg(arg, ("",))
    return ConfigDict(
        {
            "detector": "yunet",
            "weights": {
                "title": "face detector YuNet of OpenCV's model zoo, May 2026",
                "licence": "MIT",
                "trained_on": "WIDER FACE (pictures of the web with boxes, by its authors)",
                "page": "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
                "files": {
                    "onnx": {
                        "name": NAME,
                        "member": "",
                        "bytes": 229_738,
                        "sha256": SHA256,
                    }
                },
                # The file lies in Git's large file storage: `raw` leads there.
                "url": "https://github.com/opencv/opencv_zoo/raw/main/models/"
                f"face_detection_yunet/{NAME}",
                "url_sha256": SHA256,
                "bytes": 229_738,
                "package": "",
                "hub": "",
            },
        }
    )
