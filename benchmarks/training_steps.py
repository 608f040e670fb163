"""Training steps of all systems, ours against the same network in PyTorch, in turns.

    maven-jax bench maven_released maven_paper rjcma rjca

Both sides get the same weights (ours through `maven-jax convert`, as users would get them) and the
same batch, and have to give the same outputs before anything is timed. Then each takes whole steps:
forward, loss, gradients, Adam. PyTorch runs eagerly with as many threads as there are cores.

Both drop out at the same places. Beside the times, FLOPs are those of the matrix products and
convolutions in our step, loops as often as they are done, and the roofline is their rate over that
of a large float32 matrix product measured just before, in the same process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from jax.interpreters.partial_eval import dce_jaxpr
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from benchmarks.random_store import RandomStore
from benchmarks.side_by_side import Row, compare, matmul_peak, product_flops
from maven_jax import recipes
from maven_jax.convert import released_tables
from maven_jax.convert.conversions import norm
from maven_jax.convert.loaded import nested
from maven_jax.convert.released_tables import Piece, Table
from maven_jax.convert.tensor_files import read_file
from maven_jax.evaluation.step import make_predict_step
from maven_jax.experiment import Experiment
from maven_jax.recipes import Config
from maven_jax.runs.released import NETWORKS, check_tensors, fill, network_shapes
from maven_jax.runtime.sharding import place_batch
from maven_jax.state import TrainState, put_weights
from maven_jax.training.stages import StageBuilder
from maven_jax.types import Batch
from tests.support import reference_maven, reference_rjca, reference_rjcma

# What the outputs of both sides may differ by, of the largest output.
_TOLERANCE = 1e-4
MAVEN_WIDTHS = dict(visual=1024, audio=768, text=768)


def random_batch(
    widths: dict[str, int], batch: int, frames: int, single: tuple[str, ...] = ()
) -> Batch:
    """Windows in which everything is observed; modalities in `single` are one vector each."""
    rng = np.random.default_rng(0)
    steps = {m: 1 if m in single else frames for m in widths}
    fields: dict[str, Any] = dict(
        features={
            m: rng.normal(size=(batch, steps[m], c)).astype(np.float32) for m, c in widths.items()
        },
        modality_masks={m: np.ones((batch, steps[m]), bool) for m in widths},
        frame_mask=np.ones((batch, frames), bool),
        targets=rng.uniform(-1, 1, (batch, frames, 2)).astype(np.float32),
        target_mask=np.ones((batch, frames), bool),
        window=np.arange(batch, dtype=np.int32),
    )
    return Batch(**fields)


class Ours:
    """A recipe's training step and prediction on one batch.

    Args:
        config: the recipe.
        batch: what every step takes.
        variables: `params` and `model_state` to start from, as NumPy arrays.
        state: to start from instead.
    """

    def __init__(
        self,
        config: Config,
        batch: Batch,
        variables: dict[str, Any] | None,
        state: TrainState | None = None,
    ):
        frames = batch.frame_mask.shape[1]
        config.data.window.length = frames
        widths = {m: batch.features[m].shape[-1] for m in config.data.modalities}
        experiment = Experiment(config, RandomStore(1, frames, widths))
        self.config, self.batch = config, batch
        self._mesh = experiment.mesh
        builder = StageBuilder(experiment, steps_per_epoch=100, total_steps=100_000)
        stage = builder.build(0, 0)
        self._step = stage.step
        self._state: TrainState = builder.fresh(stage) if state is None else state
        if variables is not None:
            weights = put_weights(self._state.weights, variables, "/", "benchmark")
            self._state = self._state.replace(weights=weights)
        self._predict = make_predict_step(
            experiment.model,
            experiment.transform,
            mesh=experiment.mesh,
            rules=experiment.rules,
            shardings=stage.shardings.weights,
            seed=config.seed,
        )
        with jax.set_mesh(self._mesh):
            self._batch = place_batch(batch, self._mesh)

    def in_dtype(self, dtype: str) -> Ours:
        """The same in another dtype; its first step uses up the weights of this one."""
        config = self.config.copy_and_resolve_references()
        config.model.dtype = dtype
        return Ours(config, self.batch, None, self._state)

    @cached_property
    def lowered_prediction(self) -> Any:
        """With products in whole float32 on every device."""
        with jax.set_mesh(self._mesh), jax.default_matmul_precision("float32"):
            return self._predict.lower(self._state.weights, self._batch)

    @cached_property
    def prediction(self) -> Any:
        """Compiled."""
        return self.lowered_prediction.compile()

    def outputs(self) -> np.ndarray:
        """(b, t, 2) predictions."""
        return np.asarray(self.prediction(self._state.weights, self._batch))

    @cached_property
    def _traced(self) -> Any:
        with jax.set_mesh(self._mesh):
            return self._step.trace(self._state, self._batch)

    @cached_property
    def flops(self) -> float:
        """Of one step, without what nothing needs: the gradients of features, for instance."""
        jaxpr = self._traced.jaxpr.jaxpr
        return product_flops(dce_jaxpr(jaxpr, [True] * len(self._traced.jaxpr.out_avals))[0])

    def lower(self) -> Any:
        """The step, ready to be compiled."""
        with jax.set_mesh(self._mesh):
            return self._traced.lower()

    @cached_property
    def program(self) -> Any:
        """Compiled."""
        return self.lower().compile()

    def begin(self) -> Any:
        """Begins a step; returns arrays that are there when it is done."""
        self._state, metrics = self.program(self._state, self._batch)
        return self._state, metrics

    def __call__(self) -> None:
        jax.block_until_ready(self.begin())


class Peer:
    """Steps of a PyTorch module: loss (of outputs and targets), gradients, Adam.

    Args:
        module: the network.
        inputs: its arguments.
        targets: second argument of `loss`.
        loss: of outputs and targets.
        to_ours: NumPy outputs -> (b, t, n) as ours gives its first n of two.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[Any, ...],
        targets: torch.Tensor,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        to_ours: Callable[[np.ndarray], np.ndarray],
    ):
        self.module, self.inputs, self.targets, self.loss = module, inputs, targets, loss
        self._to_ours = to_ours
        self._adam = torch.optim.Adam(module.parameters(), lr=1e-4)

    def to(self, device: torch.device) -> Peer:
        """The same on another device; the module itself moves there."""

        def put(x: Any) -> Any:
            return x.to(device) if isinstance(x, torch.Tensor) else x

        inputs = tree_map(put, self.inputs)
        return Peer(self.module.to(device), inputs, put(self.targets), self.loss, self._to_ours)

    @torch.no_grad()
    def outputs(self) -> np.ndarray:
        """Of the module in inference mode, with products in whole float32 on every device."""
        kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
        allowed = [kind.allow_tf32 for kind in kinds]
        for kind in kinds:
            kind.allow_tf32 = False
        self.module.eval()
        outputs = self.module(*self.inputs).cpu().numpy()
        self.module.train()
        for kind, was in zip(kinds, allowed):
            kind.allow_tf32 = was
        return self._to_ours(outputs)

    def __call__(self) -> None:
        self._adam.zero_grad(set_to_none=True)
        self.loss(self.module(*self.inputs), self.targets).backward()
        self._adam.step()


def ccc_loss(x: torch.Tensor, y: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """1 - CCC over `dims`, averaged over the others."""
    mx, my = x.mean(dims, keepdim=True), y.mean(dims, keepdim=True)
    covariance = ((x - mx) * (y - my)).mean(dims)
    bottom = x.var(dims, correction=0) + y.var(dims, correction=0) + (mx - my).square().mean(dims)
    return (1 - 2 * covariance / (bottom + 1e-8)).mean()


def tensors(batch: Batch, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """The batch's features under the peer's names."""
    return {theirs: torch.from_numpy(batch.features[ours]) for ours, theirs in names.items()}


def as_ours(config: Config, table: Table, widths: dict[str, int], module: nn.Module) -> dict:
    """The module's weights as those of the recipe's model, by way of a file as users have it."""
    shapes = network_shapes(config, widths)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save(module.state_dict(), file)
        saved = read_file(file)
        names = {table.renamed(name): name for name in saved.shapes}
        check_tensors(str(file), table, saved, names, shapes)
        params, model_state = nested(fill(table, saved, names, shapes))
    return {"params": params, "model_state": model_state}


def check_equal(ours: np.ndarray, peer: np.ndarray, name: str) -> float:
    """The largest difference of both outputs, of the largest output.

    Raises:
        AssertionError: they are not the same network.
    """
    ours = ours[..., : peer.shape[-1]]
    difference = float(np.abs(ours - peer).max() / np.abs(peer).max())
    assert difference < _TOLERANCE, f"{name}: outputs differ by {difference:.1e}"
    return difference


def clipped(outputs: np.ndarray) -> np.ndarray:
    """As ours gives them."""
    return outputs.clip(-1, 1)


def from_polar(outputs: np.ndarray) -> np.ndarray:
    """Valence and arousal from angle and intensity."""
    angle, intensity = np.moveaxis(outputs, -1, 0)
    return clipped(np.stack([intensity * np.cos(angle), intensity * np.sin(angle)], -1))


def maven_released(batch_size: int = 8, frames: int = 300) -> tuple[Ours, Peer]:
    """The released network with the MLP: one audio and one text vector per window."""
    torch.manual_seed(0)
    module = reference_maven.ReleasedMlp()
    batch = random_batch(MAVEN_WIDTHS, batch_size, frames, ("audio", "text"))
    config = NETWORKS["maven-mlp"].config()
    # Features are standardised and get noise in the recipe; the peer takes them as they are.
    config.inputs.update(standardize="none", noise_std=0.0)
    targets = torch.from_numpy(batch.targets)
    angle = torch.atan2(targets[..., 1], targets[..., 0])
    polar = torch.stack([angle, targets.square().sum(-1).sqrt()], -1)
    inputs = tensors(batch, dict(visual="video", audio="audio", text="text"))
    peer = Peer(module, (inputs,), polar, F.mse_loss, from_polar)
    ours = Ours(config, batch, as_ours(config, released_tables.maven(config), MAVEN_WIDTHS, module))
    return ours, peer


def rjcma(batch_size: int = 12, frames: int = 300) -> tuple[Ours, Peer]:
    """The released fusion of one dimension on features."""
    torch.manual_seed(0)
    module = reference_rjcma.ReleasedRjcma()
    widths = released_tables.RJCMA_WIDTHS
    batch = random_batch(widths, batch_size, frames)
    config = NETWORKS["rjcma"].config(None, [f"--config.data.window.length={frames}"])
    config.inputs.standardize.text = "none"
    targets = torch.from_numpy(batch.targets[..., 0])
    inputs = tensors(batch, dict(visual="video", audio="logmel", text="bert"))
    loss = partial(ccc_loss, dims=(1,))
    peer = Peer(module, (inputs,), targets, loss, lambda valence: valence[..., None])
    ours = Ours(config, batch, as_ours(config, released_tables.rjcma(config), widths, module))
    return ours, peer


def rjca(batch_size: int = 64, frames: int = 16) -> tuple[Ours, Peer]:
    """The released fusion of face maps and voice."""
    torch.manual_seed(0)
    module = reference_rjca.ReleasedRjca(frames=frames)
    widths = dict(visual=49 * 512, audio=512)
    batch = random_batch(widths, batch_size, frames)
    config = NETWORKS["rjca"].config(None, [f"--config.data.window.length={frames}"])
    targets = torch.from_numpy(batch.targets)
    # Ours keeps positions before channels, as the store does; the peer has maps as convolutions do.
    maps = torch.from_numpy(batch.features["visual"]).unflatten(-1, (49, 512)).transpose(2, 3)
    audio = torch.from_numpy(batch.features["audio"])
    inputs = (maps.contiguous(), audio)
    peer = Peer(module, inputs, targets, partial(ccc_loss, dims=(0, 1)), clipped)
    ours = Ours(config, batch, as_ours(config, released_tables.rjca(config), widths, module))
    return ours, peer


class PaperMaven(reference_maven.ReleasedBeit):
    """The paper's MAVEN: self-attention after the pathways, two BEiT encoders in series."""

    def __init__(self, layers: int):
        super().__init__(layers=layers)
        for m in MAVEN_WIDTHS:
            attention = nn.MultiheadAttention(512, 2, dropout=0.1, batch_first=True)
            self.add_module(f"self_attention_{m}", attention)
            self.add_module(f"self_norm_{m}", nn.LayerNorm(512))
        self.regressor = reference_maven.Regressor(768)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = []
        for m, x in zip(MAVEN_WIDTHS, self.multihead_attention(features)):
            attended = getattr(self, f"self_attention_{m}")(x, x, x)[0]
            rows.append(getattr(self, f"self_norm_{m}")(attended + x))
        x = self.projection_layer(torch.cat(rows, dim=-1))
        for encoder in self.beit3_encoders:
            x = encoder(x)
        return self.regressor(x)


def paper_table(config: Config) -> Table:
    """From `PaperMaven` to the recipe's model."""
    released = NETWORKS["maven-beit"].config()
    released.model.update({k: v for k, v in config.model.items() if k.startswith("beit_")})
    table = released_tables.maven(released)
    for m in MAVEN_WIDTHS:
        table.pieces.extend(released_tables.multihead(f"self_attention_{m}", f"self_attention_{m}"))
        for theirs, ours, conversion in norm(f"self_norm_{m}", f"self_norm_{m}"):
            table.pieces.append(Piece((theirs,), ours, conversion))
    return table


def maven_paper(batch_size: int = 2, frames: int = 300, layers: int = 12) -> tuple[Ours, Peer]:
    """The recipe's network without its learned relative positions, in float32."""
    torch.manual_seed(0)
    module = PaperMaven(layers)
    batch = random_batch(MAVEN_WIDTHS, batch_size, frames)
    config = recipes.load("maven")
    config.model.update(dtype="float32", head="va", stochastic_depth_rate=0.0, beit_layers=layers)
    with config.model.ignore_type():
        config.model.relative_position = None
    config.inputs.update(standardize="none", modality_dropout=0.0)
    targets = torch.from_numpy(batch.targets)
    inputs = tensors(batch, dict(visual="video", audio="audio", text="text"))

    def loss(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ccc_loss(out, targets, (0, 1)) + 0.5 * F.mse_loss(out, targets)

    ours = Ours(config, batch, as_ours(config, paper_table(config), MAVEN_WIDTHS, module))
    return ours, Peer(module, (inputs,), targets, loss, clipped)


# name -> (maker, sizes at which it is measured: the claim's first, what it has to reach)
CLAIMS: dict[str, tuple[Any, tuple[tuple[int, int], ...], float]] = {
    "maven_released": (maven_released, ((8, 300), (8, 150), (8, 600)), 1.0),
    "maven_paper": (maven_paper, ((2, 300), (2, 150), (2, 600)), 1.0),
    "rjcma": (rjcma, ((12, 300), (6, 300), (24, 300)), 1.0),
    "rjca": (rjca, ((64, 16), (32, 16), (128, 16)), 1.0),
}


def measure(name: str, repeats: int, growth: bool) -> Iterator[Row]:
    """The rows of one claim; with `growth`, those at its other sizes too."""
    make, sizes, goal = CLAIMS[name]
    grows = [what for what, values in zip("BT", zip(*sizes)) if len(set(values)) > 1]
    peak = matmul_peak()
    for batch_size, frames in sizes if growth else sizes[:1]:
        ours, peer = make(batch_size, frames)
        difference = check_equal(ours.outputs(), peer.outputs(), name)
        claimed = (batch_size, frames) == sizes[0]
        row = compare(
            name if claimed else f"{name}/B{batch_size}xT{frames}",
            f"training step, B {batch_size}, T {frames}, float32",
            ours,
            peer,
            repeats=repeats,
            peer_name="the same network in PyTorch, eager",
            goal=goal if claimed else None,
            size={what: dict(B=batch_size, T=frames)[what] for what in grows},
            gflop=ours.flops / 1e9,
            difference_of_outputs=difference,
        )
        rate = ours.flops / row.ours_s
        row.facts.update(gflop_per_s=rate / 1e9, roofline=rate / peak, peak_gflop_per_s=peak / 1e9)
        yield row
