"""Sections for the face, by the kind of encoder or by the published name of its weights.

    maven-jax prepare --root ROOT --out STORE --encoders base --encoders.visual=NAME
    maven-jax prepare --root ROOT --out STORE --encoders base --encoders.visual.kind=KIND

takes one of these in place of the recipe's own section; its values can be set behind it, as
`--encoders.visual.source=FOLDER`. `KIND:tiny` is small and has random weights.
"""

from typing import Any

from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.features.sections import published

# Of recipes: kind -> the recipe, and its small one.
ELSEWHERE = {
    "swin": ("base", "tiny"),
    "iresnet50": ("rjcma", "rjcma:tiny"),
    "r2plus1d": ("rjca", "rjca:tiny"),
    "crops": ("raw", "raw:tiny"),
}
# ViTs: kind -> weights, and what stands for an image: its token, or the mean of its patches.
VITS = {
    "vit": ("google/vit-base-patch16-224", "cls"),
    "vit_mae": ("facebook/vit-mae-base", "mean"),
    "clip": ("openai/clip-vit-base-patch32", "cls"),
    "clip_vision_model": ("openai/clip-vit-base-patch32", "cls"),
    "dinov2": ("facebook/dinov2-base", "cls"),
    "dinov2_with_registers": ("facebook/dinov2-with-registers-base", "cls"),
}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# EmotiEffNet was trained from timm's `tf_` networks. State dicts do not say how these pad; whole
# modules and ONNX files do.
TENSORFLOW = {"model": {"same_padding": True, "norm_eps": 1e-3}}
EMOTIEFF_B0 = ("efficientnet", TENSORFLOW | {"resize": 224, "crop": 224})
EMOTIEFF_B2 = ("efficientnet", TENSORFLOW | {"resize": 260, "crop": 260})
# The source of EmotiEffNets are files of github.com/sb-ai-lab/EmotiEffLib and
# github.com/av-savchenko/face-emotion-recognition, downloaded by hand.
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "emotieffnet_b0": (
        EMOTIEFF_B0[0],
        EMOTIEFF_B0[1] | {"source": "weights/enet_b0_8_best_vgaf.pt"},
    ),
    "emotieffnet_b2": (EMOTIEFF_B2[0], EMOTIEFF_B2[1] | {"source": "weights/enet_b2_8.pt"}),
    "weights/enet_b0_8_best_vgaf.pt": EMOTIEFF_B0,
    "weights/enet_b0_8_best_afew.pt": EMOTIEFF_B0,
    "weights/enet_b0_8_va_mtl.pt": EMOTIEFF_B0,
    "weights/enet_b2_8.pt": EMOTIEFF_B2,
    "weights/enet_b2_8_best.pt": EMOTIEFF_B2,
    "weights/enet_b0_8_best_vgaf.onnx": EMOTIEFF_B0,
    "weights/enet_b2_8.onnx": EMOTIEFF_B2,
}
HUB: dict[str, tuple[str, dict[str, Any]]] = {
    "timm/efficientnet_b0.ra_in1k": ("efficientnet", {"resize": 224, "crop": 224}),
    "timm/tf_efficientnet_b0.ns_jft_in1k": ("efficientnet", {"resize": 224, "crop": 224}),
    "timm/tf_efficientnet_b2.ns_jft_in1k": ("efficientnet", {"resize": 260, "crop": 260}),
    "microsoft/swin-base-patch4-window7-224": ("swin", {}),
    "microsoft/swin-tiny-patch4-window7-224": ("swin", {}),
    "microsoft/swinv2-base-patch4-window8-256": ("swinv2", {}),
    "microsoft/swinv2-tiny-patch4-window8-256": ("swinv2", {}),
    "facebook/convnext-tiny-224": ("convnext", {}),
    "facebook/convnext-base-224": ("convnext", {}),
    "google/vit-base-patch16-224": ("vit", {}),
    "google/vit-large-patch16-224": ("vit", {}),
    "trpakov/vit-face-expression": ("vit", {"output": "logits"}),
    "facebook/vit-mae-base": ("vit_mae", {}),
    "facebook/vit-mae-large": ("vit_mae", {}),
    "openai/clip-vit-base-patch16": ("clip", {}),
    "openai/clip-vit-base-patch32": ("clip", {}),
    "openai/clip-vit-large-patch14": ("clip", {}),
    "facebook/dinov2-small": ("dinov2", {}),
    "facebook/dinov2-base": ("dinov2", {}),
    "facebook/dinov2-large": ("dinov2", {}),
    "facebook/dinov2-with-registers-base": ("dinov2_with_registers", {}),
    "MCG-NJU/videomae-base": ("videomae", {}),
    "MCG-NJU/videomae-base-finetuned-kinetics": ("videomae", {}),
}
LIKE_SWIN = {
    "swinv2": "microsoft/swinv2-base-patch4-window8-256",
    "convnext": "facebook/convnext-base-224",
}
KINDS = (
    "swin",
    *VITS,
    *LIKE_SWIN,
    "efficientnet",
    "mini_xception",
    "iresnet50",
    "r2plus1d",
    "videomae",
    "crops",
)


def get_config(arg: str = "") -> ConfigDict:
    """The section of a kind, of a kind's small variant (`KIND:tiny`), or of published weights."""
    name, _, size = arg.partition(":")
    recipes.check_arg(size, ("", "tiny"))
    kind, changes = published(name, KINDS, FILES | HUB)
    if kind in ELSEWHERE:
        section = recipes.load(ELSEWHERE[kind][size == "tiny"], group="encoders").visual
    elif kind in LIKE_SWIN:
        section = like_swin(kind, size == "tiny")
    elif kind == "videomae":
        section = videomae(size == "tiny")
    elif kind == "efficientnet":
        section = efficientnet(size == "tiny")
    elif kind == "mini_xception":
        section = mini_xception(size == "tiny")
    else:
        section = vit(kind, size == "tiny")
    # None of the files but state dicts leaves out a size.
    with section.unlocked():
        section.update(changes)
    return section


def like_swin(kind: str, tiny: bool) -> ConfigDict:
    """Whole crops through a pyramid of stages; the feature is the mean of the last."""
    section = recipes.load("tiny" if tiny else "base", group="encoders").visual
    section.kind = kind
    if not tiny:
        section.source = LIKE_SWIN[kind]
    elif kind == "convnext":
        section.model = ConfigDict({"image_size": 32, "hidden_sizes": (16, 32), "depths": (1, 1)})
    return section


def efficientnet(tiny: bool) -> ConfigDict:
    """Whole crops through a network that ends in 1280 (B0) or 1408 (B2) channels."""
    section = recipes.load("rjcma:tiny" if tiny else "rjcma", group="encoders").visual
    section.update({"kind": "efficientnet", **IMAGENET})
    if not tiny:
        section.update({"source": "weights/enet_b0_8_best_vgaf.pt", "resize": 224, "crop": 224})
        section.update({"output": "embedding", "batch_size": 64, **TENSORFLOW})
        return section
    section.model = ConfigDict(
        {
            "image_size": 40,
            "stem_dim": 16,
            "widths": (16, 24),
            "depths": (1, 1),
            "kernels": (3, 5),
            "strides": (1, 2),
            "expansions": (1, 4),
            "head_dim": 64,
        }
    )
    return section


def mini_xception(tiny: bool) -> ConfigDict:
    """Grey crops; the file is that of `maven-jax weights mini_xception`."""
    section = ConfigDict(
        {
            "kind": "mini_xception",
            "source": "random" if tiny else "weights/emotion_model.hdf5",
            "dtype": "float32",
            "batch_size": 64,
            "batch_buckets": 3,
            "resize": 64,
            "crop": 64,
            "output": "embedding",
        }
    )
    if tiny:
        section.update({"seed": 0, "model": {"stem_dims": (4, 4), "widths": (8, 16)}})
    return section


def videomae(tiny: bool) -> ConfigDict:
    """A clip of 16 crops for each frame: eight times the tokens of a ViT's crop."""
    section = recipes.load("rjca:tiny" if tiny else "rjca", group="encoders").visual
    section.update({"kind": "videomae", **IMAGENET})
    if tiny:
        sizes = {
            "image_size": 32,
            "patch_size": 16,
            "num_frames": 4,
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        }
        section.model = ConfigDict(sizes)
    else:
        section.update({"source": "MCG-NJU/videomae-base", "batch_size": 4})
    return section


def vit(kind: str, tiny: bool) -> ConfigDict:
    """A ViT of that kind; the processor's settings lie beside the weights."""
    source, pool = VITS[kind]
    section = recipes.load("tiny" if tiny else "base", group="encoders").visual
    section.update({"kind": kind, "pool": pool})
    if not tiny:
        section.source = source
        return section
    sizes = {
        "image_size": 64,
        "patch_size": 16,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    section.model = ConfigDict({"vision_config": sizes} if kind == "clip" else sizes)
    return section
