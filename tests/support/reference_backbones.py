"""The convolutional encoders in torch.nn, with the parameter names of the published files."""

import torch
from torch import nn


def ir_unit(width: int, features: int, stride: int) -> nn.Module:
    unit = nn.Module()
    unit.res_layer = nn.Sequential(
        nn.BatchNorm2d(width),
        nn.Conv2d(width, features, 3, 1, 1, bias=False),
        nn.PReLU(features),
        nn.Conv2d(features, features, 3, stride, 1, bias=False),
        nn.BatchNorm2d(features),
    )
    unit.shortcut_layer = nn.MaxPool2d(1, stride)
    if width != features:
        unit.shortcut_layer = nn.Sequential(
            nn.Conv2d(width, features, 1, stride, bias=False), nn.BatchNorm2d(features)
        )
    unit.forward = lambda x: unit.res_layer(x) + unit.shortcut_layer(x)
    return unit


class IResNet(nn.Module):
    """IR network; unit vectors out of (n, 3, side, side)."""

    def __init__(self, side=40, stem=64, widths=(64, 128, 256, 512), depths=(3, 4, 14, 3), out=512):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem)
        )
        units, width = [], stem
        for stage, (features, depth) in enumerate(zip(widths, depths, strict=True)):
            for i in range(depth):
                units.append(ir_unit(width, features, 2 if stage and not i else 1))
                width = features
        self.body = nn.Sequential(*units)
        for _ in widths[1:]:
            side = (side + 1) // 2
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(width * side * side, out),
            nn.BatchNorm1d(out),
        )

    def forward(self, images):
        x = self.output_layer(self.body(self.input_layer(images)))
        return x / x.norm(dim=1, keepdim=True)


class ExpressionNetwork(nn.Module):
    """An IR network and the classifier that it was trained with, as RJCMA's file has them."""

    def __init__(self, **sizes):
        super().__init__()
        self.backbone = IResNet(**sizes)
        self.logits = nn.Linear(sizes.get("out", 512), 8)


class Vggish(nn.Module):
    """The port of VGGish: (n, 1, frames, bands) to (n, 128); positions before channels."""

    def __init__(self, widths=(64, "M", 128, "M", 256, 256, "M", 512, 512, "M"), grid=(6, 4)):
        super().__init__()
        layers, channels = [], 1
        for width in widths:
            if width == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(channels * grid[0] * grid[1], 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 128),
        )

    def forward(self, examples):
        x = self.features(examples).permute(0, 2, 3, 1)
        return self.embeddings(x.flatten(1))


def split_conv(width, middle, features, kernel, strides):
    s, t = strides
    return [
        nn.Conv3d(width, middle, (1, kernel, kernel), (1, s, s), (0, kernel // 2, kernel // 2),
                  bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(),
        nn.Conv3d(middle, features, (3, 1, 1), (t, 1, 1), (1, 0, 0), bias=False),
    ]  # fmt: skip


class VideoBlock(nn.Module):
    """A basic block of R(2+1)D under torchvision's names."""

    def __init__(self, width, features, stride):
        super().__init__()
        # As many weights as a 3×3×3 convolution from width to features channels has.
        middle = width * features * 27 // (width * 9 + features * 3)
        self.conv1 = nn.Sequential(
            nn.Sequential(*split_conv(width, middle, features, 3, (stride, stride))),
            nn.BatchNorm3d(features),
            nn.ReLU(),
        )
        self.conv2 = nn.Sequential(
            nn.Sequential(*split_conv(features, middle, features, 3, (1, 1))),
            nn.BatchNorm3d(features),
        )
        self.downsample = None
        if stride > 1 or width != features:
            self.downsample = nn.Sequential(
                nn.Conv3d(width, features, 1, stride, bias=False), nn.BatchNorm3d(features)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv2(self.conv1(x)) + shortcut)


class ImageBlock(nn.Module):
    """A basic block of ResNet under torchvision's names."""

    def __init__(self, width, features, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.downsample = None
        if stride > 1 or width != features:
            self.downsample = nn.Sequential(
                nn.Conv2d(width, features, 1, stride, bias=False), nn.BatchNorm2d(features)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + shortcut)


def add_layers(network, block, stem, widths, depths):
    width = stem
    for stage, (features, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks = []
        for i in range(depth):
            blocks.append(block(width, features, 2 if stage and not i else 1))
            width = features
        setattr(network, f"layer{stage + 1}", nn.Sequential(*blocks))


def through_layers(network, x):
    for name, layer in network.named_children():
        if name.startswith("layer"):
            x = layer(x)
    return x


class R2Plus1D(nn.Module):
    """R(2+1)D without pooling and classifier: (n, c, t, h, w) to the last block's output."""

    def __init__(self, channels=4, stem=(45, 64), widths=(64, 128, 256, 512), depths=(2, 2, 2, 2)):
        super().__init__()
        self.stem = nn.Sequential(
            *split_conv(channels, *stem, 7, (2, 1)), nn.BatchNorm3d(stem[1]), nn.ReLU()
        )
        add_layers(self, VideoBlock, stem[1], widths, depths)

    def forward(self, clips):
        return through_layers(self, self.stem(clips))


class AudioResnet(nn.Module):
    """ResNet with one input channel, without classifier: (n, 1, bands, time) to (n, d)."""

    def __init__(self, stem=64, widths=(64, 128, 256, 512), depths=(2, 2, 2, 2)):
        super().__init__()
        self.conv1 = nn.Conv2d(1, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.pool = nn.MaxPool2d(3, 2, 1)
        add_layers(self, ImageBlock, stem, widths, depths)

    def forward(self, mel):
        x = self.pool(torch.relu(self.bn1(self.conv1(mel))))
        return through_layers(self, x).mean((2, 3))


class Tsav(nn.Module):
    """Both networks of TSAV and its classifier."""

    def __init__(self, video=None, audio=None):
        super().__init__()
        self.audio_model, self.video_model = nn.Module(), nn.Module()
        self.audio_model.resnet = AudioResnet(**(audio or {}))
        self.video_model.r2plus1d = R2Plus1D(**(video or {}))
        self.fc = nn.Sequential(nn.Dropout(0.0), nn.Linear(1024, 17))
