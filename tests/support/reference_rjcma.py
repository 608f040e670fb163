"""RJCMA's released network in PyTorch, with its later TCN widths; random weights."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.reference_rjca import CoAttention

CHANNELS = {"video": (512, 512, 256, 256), "logmel": (128,) * 4, "bert": (256, 256, 128, 128)}
WIDTHS = {"video": 512, "logmel": 128, "bert": 768}


def weight_normed(inputs: int, outputs: int, dilation: int) -> nn.Module:
    with warnings.catch_warnings():
        # The newer one gives the tensors other names than the release has.
        warnings.simplefilter("ignore", FutureWarning)
        conv = nn.Conv1d(inputs, outputs, 5, padding=4 * dilation, dilation=dilation)
        return nn.utils.weight_norm(conv)


class Level(nn.Module):
    def __init__(self, inputs: int, outputs: int, dilation: int):
        super().__init__()
        self.conv1 = weight_normed(inputs, outputs, dilation)
        self.conv2 = weight_normed(outputs, outputs, dilation)
        # Chomp and LeakyReLU have no tensors of their own.
        self.net = nn.Sequential(
            *(self.conv1, nn.Identity(), nn.LeakyReLU(), nn.Dropout(0.1)),
            *(self.conv2, nn.Identity(), nn.LeakyReLU(), nn.Dropout(0.1)),
        )
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for conv, dropout in ((self.conv1, self.net[3]), (self.conv2, self.net[7])):
            y = dropout(F.leaky_relu(conv(y)[..., : x.shape[-1]]))
        return F.leaky_relu(y + (self.downsample(x) if self.downsample else x))


class Tcn(nn.Module):
    def __init__(self, inputs: int, channels: tuple[int, ...]):
        super().__init__()
        widths = (inputs, *channels)
        self.network = nn.Sequential(
            *(Level(a, b, 2**i) for i, (a, b) in enumerate(zip(widths, channels)))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


class ReleasedRjcma(nn.Module):
    """Returns one dimension, (b, t), from features; the encoders are only there to be saved.

    Args:
        visual: with the names of IR-50 and a `logits` layer, or None.
        audio: with the names of VGGish, or None.
    """

    def __init__(self, visual: nn.Module | None = None, audio: nn.Module | None = None):
        super().__init__()
        self.temporal = nn.ModuleDict({m: Tcn(WIDTHS[m], CHANNELS[m]) for m in WIDTHS})
        if visual is not None and audio is not None:
            self.spatial = nn.ModuleDict(
                {"visual": visual, "audio": nn.ModuleDict({"backbone": audio})}
            )
        self.bn = nn.ModuleDict({m: nn.BatchNorm1d(CHANNELS[m][-1]) for m in WIDTHS})
        widths = [CHANNELS[m][-1] for m in WIDTHS]
        self.coattn = CoAttention(widths, frames=300, steps=2, use_query=False)
        self.regressor1 = nn.Linear(512, 256)
        self.bn1 = nn.BatchNorm1d(256)
        self.regressor2 = nn.Linear(256, 1)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Args: features: (b, 300, c) of video, logmel and bert."""
        x = [self.bn[m](self.temporal[m](features[m].mT)).mT for m in WIDTHS]
        hidden = self.regressor1(torch.cat(list(self.coattn(x)), dim=-1))
        hidden = F.leaky_relu(self.bn1(hidden.mT).mT)
        return torch.tanh(self.regressor2(hidden))[..., 0]
