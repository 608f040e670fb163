"""torch's own attention layer, with our parameters."""

from __future__ import annotations

import numpy as np
import torch


def torch_attention(params, heads):
    """`torch.nn.MultiheadAttention` with the parameters of our layer, in evaluation mode."""
    p = {name: np.asarray(value) for name, value in params["params"].items()}
    d = p["out_bias"].size
    layer = torch.nn.MultiheadAttention(d, heads, batch_first=True)
    kernels = [p[f"{name}_kernel"].reshape(d, d).T for name in ("query", "key", "value")]
    biases = [p[f"{name}_bias"].reshape(d) for name in ("query", "key", "value")]
    state = {
        "in_proj_weight": np.concatenate(kernels),
        "in_proj_bias": np.concatenate(biases),
        "out_proj.weight": p["out_kernel"].reshape(d, d).T,
        "out_proj.bias": p["out_bias"],
    }
    layer.load_state_dict({name: torch.tensor(value.copy()) for name, value in state.items()})
    return layer.eval()
