"""RJCA and RJCMA in torch.nn, small, and their weights as parameters of the models here."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm


def array(tensor):
    return tensor.detach().numpy()


def linear(layer):
    params = {"kernel": array(layer.weight).T}
    return params | ({} if layer.bias is None else {"bias": array(layer.bias)})


class CausalBlock(nn.Module):
    """One level of a TCN; the two convolutions are padded on the left, by hand."""

    def __init__(self, inputs, outputs, kernel_size, dilation):
        super().__init__()
        self.left = (kernel_size - 1) * dilation
        self.first = weight_norm(nn.Conv1d(inputs, outputs, kernel_size, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(outputs, outputs, kernel_size, dilation=dilation))
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.activate = nn.LeakyReLU()

    def forward(self, x):
        y = x
        for conv in (self.first, self.second):
            y = self.activate(conv(functional.pad(y, (self.left, 0))))
        return self.activate(y + self.shortcut(x))


class TorchTcn(nn.Module):
    def __init__(self, inputs, channels, kernel_size):
        super().__init__()
        widths = (inputs, *channels)
        self.levels = nn.Sequential(
            *(CausalBlock(*widths[i : i + 2], kernel_size, 2**i) for i in range(len(channels)))
        )

    def forward(self, x):
        return self.levels(x.transpose(1, 2)).transpose(1, 2)

    def params(self):
        params = {}
        for i, level in enumerate(self.levels):
            for number, conv in ((1, level.first), (2, level.second)):
                weight = conv.parametrizations.weight
                params[f"level_{i}_conv_{number}"] = {
                    "kernel": array(weight.original1).transpose(2, 1, 0),
                    "scale": array(weight.original0).ravel(),
                    "bias": array(conv.bias),
                }
            if isinstance(level.shortcut, nn.Conv1d):
                params[f"level_{i}_residual"] = {
                    "kernel": array(level.shortcut.weight)[:, :, 0].T,
                    "bias": array(level.shortcut.bias),
                }
        return params


def lstm_params(lstm):
    params = {}
    for i in range(lstm.num_layers):
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            if suffix and not lstm.bidirectional:
                continue
            ih, hh, b_ih, b_hh = (
                array(getattr(lstm, f"{name}_l{i}{suffix}"))
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            params[f"layer_{i}_{direction}"] = {
                "input": {"kernel": ih.T, "bias": b_ih + b_hh},
                "recurrent": hh.T,
            }
    return params


class TorchResidualBlstm(nn.Module):
    def __init__(self, inputs, dim, num_layers=2):
        super().__init__()
        self.lstm = nn.LSTM(inputs, dim // 2, num_layers, batch_first=True, bidirectional=True)
        # Rows: hidden states of every layer and direction, then cell states.
        self.initial = nn.Parameter(torch.randn(4 * num_layers, dim // 2))
        self.output = nn.Linear(inputs + dim, dim)

    def states(self, x):
        both = self.initial[:, None].expand(-1, x.shape[0], -1).contiguous()
        return self.lstm(x, tuple(both.chunk(2)))[0]

    def forward(self, x):
        return functional.normalize(self.output(torch.cat([x, self.states(x)], -1)), dim=-1)

    def blstm_params(self):
        initial = array(self.initial)
        shape = (2, self.lstm.num_layers, 2, initial.shape[1])
        return lstm_params(self.lstm) | {"initial_state": initial.reshape(shape)}

    def params(self):
        return {"blstm": self.blstm_params(), "output": linear(self.output)}


class TorchPool(nn.Module):
    """Pooling over positions; released, the guide adds one number to all of a position's units."""

    def __init__(self, channels, guide, dim, positions, layout):
        super().__init__()
        self.axis = -1 if layout == "released" else -2
        self.map, self.guide = nn.Linear(channels, dim), nn.Linear(guide, dim)
        self.map_content = nn.Linear(dim, positions, bias=False)
        self.guide_content = nn.Linear(dim, positions, bias=False)
        self.score = nn.Linear(positions, 1, bias=False)
        self.output = nn.Linear(channels, dim)

    def forward(self, x, guide):
        units = self.map_content(functional.relu(self.map(x)))
        led = self.guide_content(functional.relu(self.guide(guide)))
        units = units + led.unsqueeze(self.axis)
        weights = torch.softmax(self.score(torch.tanh(units)), dim=-2)
        return self.output((weights * x).sum(-2))

    def params(self):
        return {name: linear(layer) for name, layer in self.named_children()}


class TorchDense(nn.Module):
    """One step of the released joint correlation."""

    def __init__(self, widths, length, query):
        super().__init__()
        d = sum(widths.values())
        self.query = nn.Linear(d, d) if query == "linear" else None
        self.key = nn.ModuleDict({m: nn.Linear(length, length) for m in widths})
        self.value = nn.ModuleDict({m: nn.Linear(w, w) for m, w in widths.items()})
        self.output = nn.ModuleDict({m: nn.Linear(d, w) for m, w in widths.items()})

    def forward(self, x):
        joint = torch.cat(list(x.values()), -1)
        query = joint if self.query is None else self.query(joint)
        updated = {}
        for m, value in x.items():
            key = self.key[m](value.mT)
            scores = torch.tanh(key @ query / joint.shape[-1] ** 0.5)
            attended = functional.relu(torch.tanh(self.value[m](value) @ scores))
            updated[m] = value + functional.relu(self.output[m](attended))
        return updated

    def params(self):
        params = {} if self.query is None else {"query": linear(self.query)}
        for part in ("key", "value", "output"):
            params |= {f"{m}_{part}": linear(layer) for m, layer in getattr(self, part).items()}
        return params


def stacked(steps):
    """Parameters of several steps along a leading axis."""
    params = [step.params() for step in steps]
    return {
        name: {leaf: np.stack([p[name][leaf] for p in params]) for leaf in params[0][name]}
        for name in params[0]
    }


class TorchRjca(nn.Module):
    def __init__(self, channels, audio, dim, positions, length, num_steps):
        super().__init__()
        self.audio = TorchResidualBlstm(audio, dim)
        self.pool = TorchPool(channels, dim, dim, positions, "released")
        self.visual = TorchResidualBlstm(dim, dim)
        widths = {"visual": dim, "audio": dim}
        self.steps = nn.ModuleList(TorchDense(widths, length, "linear") for _ in range(num_steps))
        self.joint = TorchResidualBlstm(2 * dim, dim)
        self.valence, self.arousal = (
            nn.Sequential(nn.Linear(dim, 6), nn.ReLU(), nn.Linear(6, 1)) for _ in range(2)
        )

    def forward(self, maps, audio):
        """Maps (b, t, positions, channels), of which each frame's has length one as a whole."""
        audio = self.audio(functional.normalize(audio, dim=-1))
        x = {"visual": self.visual(self.pool(maps, audio)), "audio": audio}
        for step in self.steps:
            x = step(x)
        joint = self.joint(torch.cat(list(x.values()), -1))
        return torch.cat([self.valence(joint), self.arousal(joint)], -1)

    def params(self):
        head = {}
        for name in ("valence", "arousal"):
            mlp = getattr(self, name)
            head |= {f"{name}_hidden_0": linear(mlp[0]), f"{name}_output": linear(mlp[2])}
        return {
            "unimodal_audio": self.audio.params(),
            "unimodal_visual": self.visual.params(),
            "pool": self.pool.params(),
            "recursion": {"step": stacked(self.steps)},
            "joint": self.joint.params(),
            "head": head,
        }


class TorchRjcma(nn.Module):
    def __init__(self, inputs, channels, kernel_size, length, num_steps, head_dim, outputs):
        super().__init__()
        widths = {m: channels[m][-1] for m in inputs}
        self.tcn = nn.ModuleDict(
            {m: TorchTcn(w, channels[m], kernel_size) for m, w in inputs.items()}
        )
        self.norm = nn.ModuleDict({m: nn.BatchNorm1d(w) for m, w in widths.items()})
        self.steps = nn.ModuleList(TorchDense(widths, length, "identity") for _ in range(num_steps))
        self.hidden = nn.Linear(sum(widths.values()), head_dim)
        self.head_norm = nn.BatchNorm1d(head_dim)
        self.output = nn.Linear(head_dim, outputs)

    def forward(self, features):
        x = {m: self.norm[m](self.tcn[m](v).mT).mT for m, v in features.items()}
        for step in self.steps:
            x = step(x)
        hidden = self.hidden(torch.cat(list(x.values()), -1))
        hidden = functional.leaky_relu(self.head_norm(hidden.mT).mT)
        return torch.tanh(self.output(hidden))

    def params(self):
        params = {
            "recursion": {"step": stacked(self.steps)},
            "head": {
                "hidden": linear(self.hidden),
                "norm": norm_params(self.head_norm),
                "output": linear(self.output),
            },
        }
        for m in self.tcn:
            params[f"temporal_{m}"] = {"tcn": self.tcn[m].params()}
            params[f"norm_{m}"] = norm_params(self.norm[m])
        return params

    def batch_stats(self):
        stats = {f"norm_{m}": running(norm) for m, norm in self.norm.items()}
        return stats | {"head": {"norm": running(self.head_norm)}}


def norm_params(norm):
    return {"scale": array(norm.weight), "bias": array(norm.bias)}


def running(norm):
    return {"mean": array(norm.running_mean).copy(), "var": array(norm.running_var).copy()}
