"""GRJCA and HGRJCA, as their authors' code has them, in PyTorch; random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.reference_rjca import CoAttention
from tests.support.reference_rjcma import WIDTHS, Tcn

NAMES = ("video", "logmel")


def chosen(gate: nn.Module, asked: torch.Tensor, choices: Sequence[torch.Tensor]) -> torch.Tensor:
    weights = torch.softmax(gate(asked) / 0.1, dim=-1)
    return torch.relu((torch.stack(list(choices), -1) * weights[..., None, :]).sum(-1))


class ReleasedGrjca(nn.Module):
    """Returns one dimension, (b, t), from features; `hierarchical` makes it HGRJCA."""

    def __init__(
        self, channels: Mapping[str, Sequence[int]], frames: int, head: int, hierarchical: bool
    ):
        super().__init__()
        self.hierarchical = hierarchical
        self.temporal = nn.ModuleDict({m: Tcn(WIDTHS[m], tuple(channels[m])) for m in NAMES})
        widths = [channels[m][-1] for m in NAMES]
        self.bn = nn.ModuleDict({m: nn.BatchNorm1d(w) for m, w in zip(NAMES, widths)})
        self.coattn = CoAttention(widths, frames, steps=2, use_query=True)
        if hierarchical:
            self.first = nn.ModuleList(nn.Linear(w, 2) for w in widths)
            self.second = nn.ModuleList(nn.Linear(w, 3) for w in widths)
        self.last = nn.ModuleList(nn.Linear(w, 2 if hierarchical else 3) for w in widths)
        self.regressor1 = nn.Linear(sum(widths), head)
        self.bn1 = nn.BatchNorm1d(head)
        self.regressor2 = nn.Linear(head, 1)

    def forward(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        start = [
            F.normalize(self.bn[m](self.temporal[m](features[m].mT)).mT, dim=-1) for m in NAMES
        ]
        steps = [start]
        for layer in self.coattn.dcn_layers:
            steps.append(layer(steps[-1], True))
        gated = []
        for m, (x0, x1, x2) in enumerate(zip(*steps)):
            if self.hierarchical:
                stages = (
                    chosen(self.first[m], x1, (x0, x1)),
                    chosen(self.second[m], x2, (x0, x1, x2)),
                )
            else:
                stages = x0, x1, x2
            gated.append(chosen(self.last[m], x2, stages))
        hidden = self.bn1(self.regressor1(torch.cat(gated, -1)).mT).mT
        return torch.tanh(self.regressor2(F.leaky_relu(hidden)))[..., 0]
