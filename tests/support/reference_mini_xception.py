"""mini-Xception as Keras writes it and as PyTorch computes it, for parity and damage."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F

from maven_jax.encoders.mini_xception import MiniXceptionConfig

SIZES = {"image_size": 21, "stem_dims": (4, 4), "widths": (8, 8), "num_classes": 5}


def keras_layers(c: MiniXceptionConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Layer -> its arrays' shapes, as Keras names and numbers them."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}

    def norm(number: int, width: int) -> None:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        layers[f"batch_normalization_{number}"] = dict.fromkeys(names, (width,))

    width = c.num_channels
    for i, dim in enumerate(c.stem_dims, 1):
        layers[f"conv2d_{i}"] = {"kernel": (3, 3, width, dim)}
        norm(i, width := dim)
    for i, dim in enumerate(c.widths):
        layers[f"conv2d_{i + 3}"] = {"kernel": (1, 1, width, dim)}
        norm(3 * i + 3, dim)
        for k, inputs in ((1, width), (2, dim)):
            layers[f"separable_conv2d_{2 * i + k}"] = {
                "depthwise_kernel": (3, 3, inputs, 1),
                "pointwise_kernel": (1, 1, inputs, dim),
            }
            norm(3 * i + 3 + k, dim)
        width = dim
    shapes = {"kernel": (3, 3, width, c.num_classes), "bias": (c.num_classes,)}
    layers[f"conv2d_{3 + len(c.widths)}"] = shapes
    return layers


def write_keras(path: Path, c: MiniXceptionConfig, seed: int = 0) -> None:
    """Random weights in the file that Keras would write."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for layer, arrays in keras_layers(c).items():
            for name, shape in arrays.items():
                values = rng.normal(0, (2 / max(np.prod(shape[:-1]), 1)) ** 0.5, shape)
                if name in ("gamma", "moving_variance"):
                    values = rng.uniform(0.5, 1.5, shape)
                place = f"model_weights/{layer}/{layer}_1/{name}:0"
                file[place] = values.astype(np.float32)


def in_pytorch(path: Path, c: MiniXceptionConfig, images: np.ndarray) -> np.ndarray:
    """The logits of images (n, h, w, c), written after Keras's description of its layers."""
    arrays = {}

    def gather(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            layer, *_, leaf = name.split("/")
            arrays[f"{layer}/{leaf}"] = torch.tensor(item[()])

    with h5py.File(path) as file:
        file["model_weights"].visititems(gather)

    def get(layer: str, name: str) -> torch.Tensor:
        return arrays[f"{layer}/{name}:0"]

    def conv(x, number, **options):
        kernel = get(f"conv2d_{number}", "kernel").permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, arrays.get(f"conv2d_{number}/bias:0"), **options)

    def norm(x, number):
        names = ("moving_mean", "moving_variance", "gamma", "beta")
        return F.batch_norm(x, *(get(f"batch_normalization_{number}", n) for n in names), eps=1e-3)

    def separable(x, number):
        layer = f"separable_conv2d_{number}"
        depth = get(layer, "depthwise_kernel").permute(2, 3, 0, 1)
        x = F.conv2d(x, depth, padding=1, groups=len(depth))
        return F.conv2d(x, get(layer, "pointwise_kernel").permute(3, 2, 0, 1))

    x = torch.tensor(images.transpose(0, 3, 1, 2))
    for i in (1, 2):
        x = F.relu(norm(conv(x, i), i))
    for i in range(len(c.widths)):
        y = F.relu(norm(separable(x, 2 * i + 1), 3 * i + 4))
        y = norm(separable(y, 2 * i + 2), 3 * i + 5)
        side = y.shape[-1]
        zeros = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
        before, behind = zeros // 2, zeros - zeros // 2
        y = F.max_pool2d(F.pad(y, (before, behind) * 2, value=-np.inf), 3, 2)
        x = norm(conv(x, i + 3, stride=2), 3 * i + 3) + y
    return conv(x, 3 + len(c.widths), padding=1).mean((2, 3)).numpy()
