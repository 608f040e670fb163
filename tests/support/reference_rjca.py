"""RJCA's and RJCMA's released co-attention, and RJCA's network, in PyTorch; random weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class DenseCoAttention(nn.Module):
    """Every modality's channels against the joint features' channels, over `frames` frames."""

    def __init__(self, widths: Sequence[int], frames: int):
        super().__init__()
        joint = sum(widths)
        self.query_linear = nn.Linear(joint, joint)
        for i, width in enumerate(widths, 1):
            self.add_module(f"key{i}_linear", nn.Linear(frames, frames))
            self.add_module(f"value{i}_linear", nn.Linear(width, width))

    def forward(self, x: Sequence[torch.Tensor], use_query: bool) -> list[torch.Tensor]:
        joint = torch.cat(list(x), dim=-1)
        query = self.query_linear(joint) if use_query else joint
        result = []
        for i, features in enumerate(x, 1):
            key = getattr(self, f"key{i}_linear")(features.transpose(1, 2))
            scores = torch.tanh(key @ query / joint.shape[-1] ** 0.5)
            scores = F.dropout(scores, 0.6, self.training)
            value = getattr(self, f"value{i}_linear")(features)
            result.append(torch.relu(torch.tanh(value @ scores)))
        return result


class CoAttentionLayer(nn.Module):
    def __init__(self, widths: Sequence[int], frames: int):
        super().__init__()
        self.dense_coattn = DenseCoAttention(widths, frames)
        joint = sum(widths)
        self.linears = nn.ModuleList(
            nn.Sequential(nn.Linear(joint, width), nn.ReLU(), nn.Dropout(0.6)) for width in widths
        )

    def forward(self, x: Sequence[torch.Tensor], use_query: bool) -> list[torch.Tensor]:
        attended = self.dense_coattn(x, use_query)
        return [a + linear(b) for a, linear, b in zip(x, self.linears, attended)]


class CoAttention(nn.Module):
    def __init__(self, widths: Sequence[int], frames: int, steps: int, use_query: bool):
        super().__init__()
        self.use_query = use_query
        self.dcn_layers = nn.ModuleList(CoAttentionLayer(widths, frames) for _ in range(steps))

    def forward(self, x: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        for layer in self.dcn_layers:
            x = layer(x, self.use_query)
        return x


class ResidualLstm(nn.Module):
    """A two-way LSTM, its input beside its output, a linear layer, rows of length one."""

    def __init__(self, inputs: int, outputs: int, layers: int = 2, dropout: float = 0.0):
        super().__init__()
        half = outputs // 2
        self.init_hidden = nn.Parameter(0.3 * torch.randn(4 * layers, half))
        self.linear = nn.Linear(inputs + outputs, outputs)
        self.dropout = nn.Dropout(dropout)
        self.rnn = nn.LSTM(
            inputs, half, layers, bidirectional=True, batch_first=True, dropout=dropout
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = self.init_hidden[:, None].expand(-1, len(x), -1).contiguous()
        states, _ = self.rnn(x, tuple(start.chunk(2)))
        return F.normalize(self.linear(self.dropout(torch.cat([x, states], dim=-1))), dim=-1)


class PositionAttention(nn.Module):
    def __init__(self, width: int, positions: int):
        super().__init__()
        self.affine_audio = nn.Linear(width, width)
        self.affine_video = nn.Linear(width, width)
        self.affine_v = nn.Linear(width, positions, bias=False)
        self.affine_g = nn.Linear(width, positions, bias=False)
        self.affine_h = nn.Linear(positions, 1, bias=False)
        self.affine_feat = nn.Linear(width, width)

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        maps = video.unflatten(-1, (-1, audio.shape[-1]))  # (b, t, p, c)
        content = self.affine_v(torch.relu(self.affine_video(maps)))
        content = content + self.affine_g(torch.relu(self.affine_audio(audio)))[..., None]
        alpha = torch.softmax(self.affine_h(torch.tanh(content)), dim=2)
        return self.affine_feat((alpha * maps).sum(2))


class Pooling(nn.Module):
    def __init__(self, width: int, positions: int):
        super().__init__()
        self.attn = PositionAttention(width, positions)


class ReleasedRjca(nn.Module):
    """Returns valence and arousal, (b, t, 2), of windows of 16 steps."""

    def __init__(self, width: int = 512, positions: int = 49, frames: int = 16):
        super().__init__()
        self.coattn = CoAttention((width, width), frames, steps=1, use_query=True)
        self.audio_extract = ResidualLstm(width, width, dropout=0.1)
        self.video_extract = ResidualLstm(width, width, dropout=0.1)
        self.video_attn = Pooling(width, positions)
        self.Joint = ResidualLstm(2 * width, width)
        for name in ("vregressor", "aregressor"):
            head = (nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.6), nn.Linear(128, 1))
            self.add_module(name, nn.Sequential(*head))

    def forward(self, maps: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """Args: maps (b, t, 512, 7, 7) as convolutions leave them; audio (b, t, 512)."""
        video = F.normalize(maps.flatten(2), dim=-1)
        audio = self.audio_extract(F.normalize(audio, dim=-1))
        video = self.video_extract(self.video_attn.attn(video, audio))
        joint = self.Joint(torch.cat(list(self.coattn([video, audio])), dim=-1))
        return torch.cat([self.vregressor(joint), self.aregressor(joint)], dim=-1)
