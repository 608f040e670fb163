"""Scans over layers: how much of them is written out, and what their gradients keep."""

from __future__ import annotations

import flax.linen as nn
import jax

from maven_jax.kernels.device import platform
from maven_jax.kernels.fused_attention import ATTENDED

_PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(ATTENDED),
)


def layers_written_out(num_layers: int) -> int:
    """Returns how many turns of a scan over layers the program writes out.

    On GPUs all: a loop copies what the gradient needs onto stacks, and from there. That is dearer
    than the time to compile, which grows with it.
    """
    return num_layers if platform() == "gpu" else 1


def keeping_products(layer: type[nn.Module]) -> type[nn.Module]:
    """Returns the layer; in a TPU's loop only products and attention are kept for the gradient.

    What lies between them is computed again: cheaper than to write and read stacks of it.
    """
    if platform() != "tpu":
        return layer
    # Inside a scan nothing can be eliminated that should be recomputed.
    return nn.remat(layer, prevent_cse=False, policy=_PRODUCTS)
