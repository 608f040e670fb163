"""The heads of published checkpoints: their layers' names, their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from maven_jax.encoders.head import Head, HeadParams
from maven_jax.errors import UserError

# The layers of a head, as (end of the tensors' names, activation behind it).
Layers = tuple[tuple[str, str | None], ...]
_LINEAR: Layers = (("classifier", None),)
# audEERING's dimensional model and its like: arousal, dominance, valence.
_REGRESSION: Layers = (("classifier.dense", "tanh"), ("classifier.out_proj", None))
_AUDIO = (_REGRESSION, (("projector", None), ("classifier", None)))
HEADS: dict[str, tuple[Layers, ...]] = {
    **dict.fromkeys(("hubert", "wav2vec2", "wavlm"), _AUDIO),
    **dict.fromkeys(("roberta", "xlm-roberta", "mpnet"), (_REGRESSION,)),
    "bert": ((("pooler.dense", "tanh"), ("classifier", None)),),
    "deberta-v2": ((("pooler.dense", "gelu"), ("classifier", None)),),
    **dict.fromkeys(
        ("swin", "swinv2", "convnext", "vit", "vit_mae", "dinov2", "dinov2_with_registers"),
        (_LINEAR,),
    ),
    # CLIP's is the projection into the space that pictures and texts share.
    **dict.fromkeys(("clip", "clip_vision_model"), ((("visual_projection", None),),)),
    "efficientnet": (_LINEAR, (("classifier.0", None),)),
}


def read_head(
    kind: str,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
) -> tuple[Head, HeadParams, list[str]]:
    """The head of an encoder and the names of its tensors.

    Args:
        kind: of the encoder.
        config: its config.json; `id2label` names the outputs.
        shapes: name of a tensor -> its shape, of all in the checkpoint.
        read: name -> tensor.

    Raises:
        UserError: there is none, or one that is not implemented.
    """
    if config.get("use_weighted_layer_sum"):
        raise UserError(
            "its head takes a weighted sum of all layers (use_weighted_layer_sum), which is not "
            "implemented; take output=embedding"
        )
    for layers in HEADS.get(kind, ()):
        names = [_named(stem, shapes) for stem, _ in layers]
        if all(name is not None for name in names):
            break
    else:
        expected = " or ".join(
            " and ".join(f"{stem}.weight" for stem, _ in layers) for layers in HEADS.get(kind, ())
        )
        raise UserError(
            f"has no trained head: output=logits needs {expected or 'another kind'}; take "
            "output=embedding"
        )
    params, used, width = [], [], 0
    for name in names:
        kernel = read(f"{name}.weight")
        used.append(f"{name}.weight")
        if kernel.ndim != 2 or (width and kernel.shape[1] != width):
            raise UserError(f"{name}.weight has shape {kernel.shape}, which fits no head")
        width = kernel.shape[0]
        bias = np.zeros(width, np.float32)
        if f"{name}.bias" in shapes:
            bias = read(f"{name}.bias")
            used.append(f"{name}.bias")
        if bias.shape != (width,):
            raise UserError(f"{name}.bias has shape {bias.shape}, expected {(width,)}")
        params.append((jnp.asarray(kernel.T), jnp.asarray(bias)))
    inputs = int(params[0][0].shape[0])
    head = Head(tuple(name for _, name in layers), inputs, _labels(config, width))
    return head, params, used


def _named(stem: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The full name of the layer whose name ends in `stem`."""
    end = f"{stem}.weight"
    names = [n for n in shapes if n == end or n.endswith(f".{end}")]
    return min(names, key=len).removesuffix(".weight") if names else None


def _labels(config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    given = config.get("id2label")
    if isinstance(given, Mapping):
        labels = tuple(str(given.get(str(i), given.get(i, i)))[:40] for i in range(count))
        if len(given) == count:
            return labels
    return tuple(map(str, range(count))) if count <= 16 else (f"0 to {count - 1}",)
