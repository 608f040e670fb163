"""MAVEN's released networks in PyTorch, for their names, shapes and outputs; random weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

PATHWAYS = [(q, k) for q in "vat" for k in "vat" if q != k]


class CrossModal(nn.Module):
    """Six pathways; audio and text are one vector per window."""

    def __init__(self, embed_dim: int, num_heads: int, widths: dict[str, int]):
        super().__init__()
        for name, width in widths.items():
            self.add_module(f"{name}_proj", nn.Linear(width, embed_dim))
        for q, k in PATHWAYS:
            attention = nn.MultiheadAttention(embed_dim, num_heads, dropout=0.1, batch_first=True)
            self.add_module(f"attn_{q}2{k}", attention)
        self.layer_norm = nn.LayerNorm(embed_dim)

    def forward(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        x = {name[0]: getattr(self, f"{name}_proj")(value) for name, value in features.items()}
        enhanced = []
        for q in "vat":
            total = x[q]
            for k in "vat":
                if k != q:
                    total = total + getattr(self, f"attn_{q}2{k}")(x[q], x[k], x[k])[0]
            enhanced.append(self.layer_norm(total / 3))
        return enhanced


class Regressor(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc = nn.Sequential(
            *(nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.3)),
            nn.Linear(256, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


class SelfAttention(nn.Module):
    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = (
            layer(x).view(b, t, self.num_heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / (d // self.num_heads) ** 0.5, dim=-1)
        return (weights @ v).transpose(1, 2).reshape(b, t, d)


class Dense(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x)


class BeitAttention(nn.Module):
    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.attention = SelfAttention(width, num_heads)
        self.output = Dense(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.attention(x))


class BeitLayer(nn.Module):
    def __init__(self, width: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.lambda_1 = nn.Parameter(torch.full((width,), 0.1))
        self.lambda_2 = nn.Parameter(torch.full((width,), 0.1))
        self.attention = BeitAttention(width, num_heads)
        self.intermediate = Dense(width, mlp_dim)
        self.output = Dense(mlp_dim, width)
        self.layernorm_before = nn.LayerNorm(width, eps=1e-12)
        self.layernorm_after = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.lambda_1 * self.attention(self.layernorm_before(x))
        hidden = F.gelu(self.intermediate(self.layernorm_after(x)))
        return x + self.lambda_2 * self.output(hidden)


class BeitEncoder(nn.Module):
    def __init__(self, layers: int, width: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.layer = nn.ModuleList(BeitLayer(width, num_heads, mlp_dim) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


WIDTHS = {"video": 1024, "audio": 768, "text": 768}


class ReleasedMlp(nn.Module):
    """Returns (angle, intensity) of every frame."""

    def __init__(self, embed_dim: int = 512):
        super().__init__()
        self.multihead_attention = CrossModal(embed_dim, 2, WIDTHS)
        self.regressor = Regressor(3 * embed_dim)

    def refine(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Args: features: video (b, t, 1024), audio and text (b, 1, 768)."""
        rows = self.multihead_attention(features)
        frames = features["video"].shape[1]
        x = torch.cat([row.expand(-1, frames, -1) for row in rows], dim=-1)
        return self.regressor(self.refine(x))


class ReleasedBeit(ReleasedMlp):
    """Returns (valence, arousal) of every frame."""

    def __init__(
        self, embed_dim: int = 512, layers: int = 12, mlp_dim: int = 3072, num_heads: int = 12
    ):
        super().__init__(embed_dim)
        self.projection_layer = nn.Linear(3 * embed_dim, 768)
        self.beit3_encoders = nn.ModuleList(
            BeitEncoder(layers, 768, num_heads, mlp_dim) for _ in range(2)
        )
        self.regressor = Regressor(2 * 768)

    def refine(self, x: torch.Tensor) -> torch.Tensor:
        x = self.projection_layer(x)
        return torch.cat([encoder(x) for encoder in self.beit3_encoders], dim=-1)
