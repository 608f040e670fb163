"""Joint correlation and its recursion in torch, written from the formulas of the papers.

One window is (T, d_m) per modality; parameters have the names that ours have.
"""

import numpy as np
import torch
from torch import nn


class Step(nn.Module):
    """One application, with weights from a tree of NumPy arrays."""

    def __init__(self, params, correlation, joint, query):
        super().__init__()
        self.correlation, self.joint, self.query = correlation, joint, query
        self.weights, self.layers = nn.ParameterDict(), nn.ModuleDict()
        for name, value in params.items():
            if isinstance(value, dict):
                layer = nn.Linear(*value["kernel"].shape)
                layer.weight.data = torch.tensor(value["kernel"].T.copy())
                layer.bias.data = torch.tensor(value["bias"])
                self.layers[name] = layer
            else:
                self.weights[name] = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        joint = torch.cat(list(x.values()), -1)
        if self.joint == "linear":
            joint = self.layers["joint"](joint)
        update = {"channel": self.channel, "time": self.time, "dense": self.dense}
        return {m: value + update[self.correlation](m, value, joint) for m, value in x.items()}

    def channel(self, m, x, joint):
        w_j, w_x, w_c, w_h = (
            self.weights[f"{m}_{name}"] for name in ("joint", "input", "correlation", "output")
        )
        c = torch.tanh(x.mT @ w_j @ joint / joint.shape[-1] ** 0.5)
        return w_h.mT @ torch.relu(w_x @ x + w_c @ c.mT)

    def time(self, m, x, joint):
        w_j, w_c, w_h = (self.weights[f"{m}_{n}"] for n in ("joint", "correlation", "output"))
        c = torch.tanh(x @ w_j @ joint.mT / joint.shape[-1] ** 0.5)
        return w_h @ torch.relu(c.mT @ w_c @ x)

    def dense(self, m, x, joint):
        key, value, output = (self.layers[f"{m}_{n}"] for n in ("key", "value", "output"))
        query = self.layers["query"](joint) if self.query == "linear" else joint
        scores = torch.tanh(key(x.mT) @ query / query.shape[-1] ** 0.5)
        return torch.relu(output(torch.relu(torch.tanh(value(x) @ scores))))

    def gradients(self):
        """The tree of gradients, in the form the weights came in."""
        tree = {name: value.grad.numpy() for name, value in self.weights.items()}
        for name, layer in self.layers.items():
            tree[name] = {
                "kernel": layer.weight.grad.numpy().T,
                "bias": layer.bias.grad.numpy(),
            }
        return tree


def recursion(params, x, cotangents, *, num_steps, share_weights, **form):
    """Runs the recursion and differentiates Σ_m Σ X_m · cotangent_m over all of its steps.

    Args:
        params: of "step", arrays; stacked along a first axis unless `share_weights`.
        x: modality -> (b, T, d_m).
        cotangents: modality -> (l+1, b, T, d_m).
        num_steps: l.
        share_weights: as ours.
        **form: correlation, joint and query of each step.

    Returns:
        X_0 … X_l of each modality, gradients of the parameters, and of x.
    """

    def taken(tree, i):
        return {k: taken(v, i) if isinstance(v, dict) else v[i] for k, v in tree.items()}

    if share_weights:
        steps = [Step(params, **form)] * num_steps
    else:
        steps = [Step(taken(params, i), **form) for i in range(num_steps)]
    first = {m: torch.tensor(value, requires_grad=True) for m, value in x.items()}
    results = [first]
    for step in steps:
        results.append(step(results[-1]))
    stacked = {m: torch.stack([result[m] for result in results]) for m in x}
    sum((stacked[m] * torch.tensor(cotangents[m])).sum() for m in x).backward()
    outputs = {m: value.detach().numpy() for m, value in stacked.items()}
    inputs = {m: value.grad.numpy() for m, value in first.items()}
    if not num_steps:
        return outputs, {}, inputs
    trees = [step.gradients() for step in steps]
    return outputs, trees[0] if share_weights else stack(trees), inputs


def stack(trees):
    """Trees of equal form as one, the arrays stacked along a first axis."""
    if isinstance(trees[0], dict):
        return {name: stack([tree[name] for tree in trees]) for name in trees[0]}
    return np.stack(trees)
