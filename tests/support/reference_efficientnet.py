"""EfficientNet in torch under timm's names, and a writer of the ONNX files that tests read."""

import struct

import torch
from torch import nn
from torch.nn import functional


class Conv2dSame(nn.Conv2d):
    """Pads as TensorFlow does; timm's class of this name."""

    def forward(self, x):
        pads = []
        for size, kernel, step in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            total = max((-(-size // step) - 1) * step + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(
            functional.pad(x, pads), self.weight, self.bias, self.stride, 0, 1, self.groups
        )


class Squeeze(nn.Module):
    def __init__(self, width, squeezed):
        super().__init__()
        self.conv_reduce = nn.Conv2d(width, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, width, 1)

    def forward(self, x):
        y = functional.silu(self.conv_reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.conv_expand(y))


class Block(nn.Module):
    def __init__(self, width, features, kernel, stride, expansion, conv, eps):
        super().__init__()
        wide = width * expansion
        self.added = stride == 1 and width == features
        self.wide = expansion > 1
        norms = iter(("bn1", "bn2", "bn3"))
        self.order = []

        def add(name, layer, out):
            norm = next(norms)
            setattr(self, name, layer)
            setattr(self, norm, nn.BatchNorm2d(out, eps=eps))
            self.order.append((name, norm))

        if self.wide:
            add("conv_pw", nn.Conv2d(width, wide, 1, bias=False), wide)
        add("conv_dw", conv(wide, wide, kernel, stride, groups=wide), wide)
        self.se = Squeeze(wide, width // 4)
        last = "conv_pwl" if self.wide else "conv_pw"
        add(last, nn.Conv2d(wide, features, 1, bias=False), features)

    def forward(self, x):
        y = x
        for name, norm in self.order:
            y = self.se(y) if name == self.order[-1][0] else y
            y = getattr(self, norm)(getattr(self, name)(y))
            y = y if name == self.order[-1][0] else functional.silu(y)
        return x + y if self.added else y


class EfficientNet(nn.Module):
    """Seven stages, as all of timm's have."""

    def __init__(self, widths, depths, labels, tensorflow):
        super().__init__()
        eps = 1e-3 if tensorflow else 1e-5

        def conv(width, features, kernel, stride, groups=1):
            of = Conv2dSame if tensorflow else nn.Conv2d
            padding = 0 if tensorflow else kernel // 2
            return of(width, features, kernel, stride, padding, groups=groups, bias=False)

        self.conv_stem, self.bn1 = conv(3, 8, 3, 2), nn.BatchNorm2d(8, eps=eps)
        width, stages = 8, []
        kernels, strides = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
        for stage, (features, depth) in enumerate(zip(widths, depths)):
            blocks = []
            for i in range(depth):
                step = 1 if i else strides[stage]
                expansion = 2 if stage else 1
                blocks.append(Block(width, features, kernels[stage], step, expansion, conv, eps))
                width = features
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(width, 16, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(16, eps=eps)
        self.classifier = nn.Linear(16, labels)

    def embed(self, x):
        x = self.blocks(functional.silu(self.bn1(self.conv_stem(x))))
        return functional.silu(self.bn2(self.conv_head(x))).mean((2, 3))

    def forward(self, x):
        return self.classifier(self.embed(x))


def _varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def onnx_bytes(model):
    """What `torch.onnx.export` writes of the weights: norms folded, such convolutions renamed."""
    nodes, tensors = [], []

    def tensor(name, values):
        dims = b"".join(_varint(n) for n in values.shape)
        raw = values.detach().numpy().astype("<f4").tobytes()
        body = _field(1, dims) + _field(2, 1) + _field(8, name) + _field(9, raw)
        tensors.append(_field(5, body))
        return name

    def node(op, *inputs, **numbers):
        body = b"".join(_field(1, name) for name in ("x", *inputs)) + _field(4, op)
        for key, values in numbers.items():
            attribute = _field(1, key) + b"".join(_field(8, n) for n in values)
            if key in ("group", "transB"):
                attribute = _field(1, key) + _field(3, values[0])
            body += _field(5, attribute)
        nodes.append(_field(1, body))

    def conv(layer, norm=None):
        weight, bias = layer.weight, layer.bias
        if norm is not None:
            factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight = weight * factor[:, None, None, None]
            bias = norm.bias - norm.running_mean * factor
        names = [tensor(f"onnx::Conv_{len(tensors)}", t) for t in (weight, bias)]
        pads = [p for _ in range(2) for p in layer.padding]
        node("Conv", *names, group=[layer.groups], pads=pads)

    conv(model.conv_stem, model.bn1)
    for block in (block for stage in model.blocks for block in stage):
        for name, norm in block.order:
            if name == block.order[-1][0]:
                conv(block.se.conv_reduce)
                conv(block.se.conv_expand)
            conv(getattr(block, name), getattr(block, norm))
    conv(model.conv_head, model.bn2)
    names = [tensor("classifier.weight", model.classifier.weight)]
    names.append(tensor("classifier.bias", model.classifier.bias))
    node("Gemm", *names, transB=[1])
    version = struct.pack("<f", 1.0)  # a field of a fixed width that nobody reads
    graph = b"".join(nodes) + b"".join(tensors) + _varint(99 << 3 | 5) + version
    return _field(1, 8) + _field(7, graph)
