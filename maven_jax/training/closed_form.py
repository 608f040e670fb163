"""Ridge regression solved in closed form: one pass over the store for sums, then linear algebra.

Every row [x, 1, y] of regressors, a one and the two targets adds its outer product to the sums of
its group of recordings. From these sums follow the solution for any penalty, and the score of every
group under the solution of all others, without a second pass. The penalty is chosen by that score.
Left-out predictions also say how far tracks of new people spread: the solution is stretched so that
their mean and standard deviation are those of the training labels.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
from flax import struct
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float64, Int

from maven_jax import recipes
from maven_jax.data.pipeline import listed_batches, to_batch
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.evaluation.scores import score
from maven_jax.experiment import Experiment
from maven_jax.models.ridge import Ridge
from maven_jax.progress import meter, say, timed
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.metrics import open_writer
from maven_jax.runs.workdir import claim
from maven_jax.runtime import hosts
from maven_jax.runtime.sharding import batch_sharding, place_batch, process_rows
from maven_jax.runtime.watchdog import Watchdog
from maven_jax.state import TrainState, abstract_state
from maven_jax.types import DIMENSIONS, Batch

# What the sums of all groups may take on a device; more recordings share a group.
MOST_SUM_BYTES = 4 << 30


@no_type_check
@struct.dataclass
class Sums:
    """Σ zzᵀ of rows z = [x, 1, y] by group, each the sum of two float32: about 14 digits.

    Attributes:
        high: (g, d + 3, d + 3).
        low: what float32 had to round off.
    """

    high: Float[Array, "g n n"]
    low: Float[Array, "g n n"]

    def add(self, group: Array, part: Float[Array, "n n"]) -> Sums:
        """The sums with `part` added to one group's (Knuth's exact sum of two numbers)."""
        old = self.high[group]
        new = old + part
        added = new - old
        rounded_off = (old - (new - added)) + (part - added)
        return Sums(high=self.high.at[group].set(new), low=self.low.at[group].add(rounded_off))


@dataclasses.dataclass(frozen=True)
class Solution:
    """A linear map of regressors, and how it was chosen.

    Attributes:
        kernel: (d, 2).
        bias: (2,).
        penalties: of valence and arousal, per row.
        left_out: (p, 2) ccc at each penalty, every group predicted by the solution of all others
            and stretched to the labels; NaN if there is one group only.
    """

    kernel: Float64[np.ndarray, "d 2"]
    bias: Float64[np.ndarray, "2"]
    penalties: Float64[np.ndarray, "2"]
    left_out: Float64[np.ndarray, "p 2"]

    def describe(self) -> str:
        """One line: the penalties, and the scores that chose them."""
        if np.isnan(self.left_out).any():
            return "one recording only: nothing to choose the penalty by"
        chosen = (
            f"{name} {self.penalties[k]:g}, {self.left_out[:, k].max():.3f}"
            for k, name in enumerate(DIMENSIONS)
        )
        return f"penalty and ccc of recordings left out: {'; '.join(chosen)}"

    def to_json(self) -> dict[str, float]:
        """As metrics have it."""
        values = {f"penalty_{d}": float(p) for d, p in zip(DIMENSIONS, self.penalties)}
        if np.isfinite(self.left_out).all():
            best = self.left_out.max(0)
            values |= {f"ccc_left_out_{d}": float(c) for d, c in zip(DIMENSIONS, best)}
        return values


def regress(
    sums: Float64[np.ndarray, "n n"], penalties: Sequence[float | int]
) -> Float64[np.ndarray, "p k 2"]:
    """The ridge solution by penalty, (p, d + 1, 2): minimises mean (y - xβ - b)² + penalty |β|².

    Args:
        sums: Σ zzᵀ, see `Sums`.
        penalties: each times the number of rows is scikit-learn's `alpha`.
    """
    d = len(sums) - 3
    rows = sums[d, d]
    mean = sums[d] / rows
    centred = sums / rows - np.outer(mean, mean)
    solutions = []
    for penalty in penalties:
        matrix = centred[:d, :d] + penalty * np.eye(d)
        factor = scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
        kernel = scipy.linalg.cho_solve(factor, centred[:d, -2:], check_finite=False)
        bias = mean[-2:] - mean[:d] @ kernel
        solutions.append(np.vstack([kernel, bias]))
    return np.stack(solutions)


def solve(groups: Float64[np.ndarray, "g n n"], penalties: Sequence[float | int]) -> Solution:
    """The solution of all rows, its penalty and stretch chosen by leaving out one group at a time.

    Args:
        groups: Σ zzᵀ of each group; groups without a row do not count.
        penalties: to choose from; the middle one is taken if there is one group only.
    """
    d = groups.shape[1] - 3
    with_rows = groups[:, d, d] > 0
    groups = groups if with_rows.all() else groups[with_rows]
    total = groups.sum(0)
    labels = total[d, -2:] / total[d, d]
    spread = np.sqrt(np.diag(total)[-2:] / total[d, d] - labels**2)
    if len(groups) == 1:
        scores = np.full((len(penalties), 2), np.nan)
        best, centre, stretch = np.full(2, len(penalties) // 2), labels, np.ones(2)
    else:
        moments = np.zeros((5, len(penalties), 2))
        for sums in groups:
            left_out = [_moments(sums, x) for x in regress(total - sums, penalties)]
            moments += np.stack(left_out, 1) / total[d, d]
        x, y, xx, yy, xy = moments
        deviation = np.sqrt(np.maximum(xx - x**2, 1e-12))
        # Once mean and spread are those of the labels, ccc and correlation are the same.
        scores = (xy - x * y) / (deviation * np.sqrt(np.maximum(yy - y**2, 1e-12)))
        best = scores.argmax(0)
        centre, stretch = (np.take_along_axis(v, best[None], 0)[0] for v in (x, spread / deviation))
    by_dimension = regress(total, [penalties[b] for b in best])
    solution = np.stack([by_dimension[k, :, k] for k in range(2)], -1)
    return Solution(
        kernel=stretch * solution[:d],
        bias=labels + stretch * (solution[d] - centre),
        penalties=np.array([penalties[b] for b in best]),
        left_out=scores,
    )


def _moments(
    sums: Float64[np.ndarray, "n n"], solution: Float64[np.ndarray, "k 2"]
) -> Float64[np.ndarray, "5 2"]:
    """Σx, Σy, Σx², Σy², Σxy of a solution's predictions x of a group's rows, by dimension."""
    d = len(sums) - 3
    inputs = sums[: d + 1]
    return np.stack(
        [
            inputs[d, : d + 1] @ solution,
            sums[d, -2:],
            np.einsum("ik,ij,jk->k", solution, inputs[:, : d + 1], solution, optimize=True),
            np.diag(sums)[-2:],
            np.einsum("ik,ik->k", solution, inputs[:, -2:]),
        ]
    )


def group_recordings(windows: Windows, most: int) -> np.ndarray:
    """(v,) group of each video: one for each recording, or runs of them if there are more."""
    recordings = list(dict.fromkeys(entry.stem for entry in windows.entries))
    count = min(len(recordings), most)
    numbers = {stem: i * count // len(recordings) for i, stem in enumerate(recordings)}
    return np.array([numbers[entry.stem] for entry in windows.entries])


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """A recipe's `optimizer` section for the closed form.

    Attributes:
        name: "closed_form".
        penalties: to choose from, per row of standardised features.
        frame_step: frames from one that counts to the next; neighbours say nearly the same.
        most_groups: recordings are left out one by one if there are no more than that, otherwise
            in so many groups.
    """

    name: str
    penalties: tuple[float, ...]
    frame_step: int
    most_groups: int

    def __post_init__(self):
        if not self.penalties or min(self.penalties) <= 0:
            raise UserError("config.optimizer.penalties: expected numbers above 0")


class ClosedFormFit:
    """The sums of a run and what they are made of.

    Args:
        experiment: its model is a `Ridge`.
        section: see `ClosedForm`.

    Raises:
        UserError: another model.
    """

    def __init__(self, experiment: Experiment, section: ClosedForm):
        if not isinstance(experiment.model, Ridge):
            raise UserError(
                f"config.optimizer.name=closed_form: {experiment.config.model.name} has no closed "
                "form; model ridge has, other models take adam or adamw"
            )
        self._experiment, self._section, self._mesh = experiment, section, experiment.mesh
        config = experiment.config
        self._windows = experiment.windows(config.data.train_split, train=True)
        # Rows of a window that count at the most.
        self._most_rows = -(-self._windows.length // section.frame_step)
        example = experiment.example(), np.zeros((1, self._most_rows), np.int32)
        with jax.set_mesh(self._mesh):
            rows = jax.eval_shape(self._rows, *example, experiment.statistics)
        self.width = rows.shape[-1]
        most = max(MOST_SUM_BYTES // (8 * self.width**2), 2)
        self._group = group_recordings(self._windows, min(section.most_groups, most))
        # As many rows in a product as without leaving any out, however few a window has.
        windows = config.train.batch_size * self._windows.length // self._most_rows
        devices = self._mesh.shape["data"]
        self.rows_at_once = -(-windows // devices) * devices
        self._batches = [
            (group, numbers[i : i + self.rows_at_once])
            for group in range(self.groups)
            for numbers in [np.flatnonzero(self._group[self._windows.video] == group)]
            for i in range(0, len(numbers), self.rows_at_once)
        ]
        self.like, self.shardings = abstract_state(
            experiment.abstract_weights, self.tx, self._mesh, experiment.rules
        )
        replicated = NamedSharding(self._mesh, P())
        self._add = jax.jit(
            self._added,
            in_shardings=(
                self.shardings.opt_state,
                replicated,
                batch_sharding(self._mesh),
                batch_sharding(self._mesh),
                replicated,
            ),
            out_shardings=self.shardings.opt_state,
            donate_argnums=0,
        )

    def __len__(self) -> int:
        """Batches of the pass."""
        return len(self._batches)

    @property
    def groups(self) -> int:
        return int(self._group.max()) + 1

    @property
    def tx(self) -> optax.GradientTransformation:
        """An optimiser whose state is the sums, so that they are saved and restored as one."""
        shape = (self.groups, self.width, self.width)

        def init(params: Any) -> Any:
            return Sums(high=jnp.zeros(shape), low=jnp.zeros(shape))

        return optax.GradientTransformation(init, optax.identity().update)

    def describe(self) -> str:
        """One line: what is solved, and what is left out."""
        recordings = len({entry.stem for entry in self._windows.entries})
        what = "each recording" if recordings == self.groups else f"{self.groups} groups"
        return (
            f"ridge: {2 * (self.width - 2):,} parameters in closed form; penalty chosen by leaving "
            f"out {what} of {recordings} recordings in turn"
        )

    def _rows(
        self, batch: Batch, places: Int[Array, "b k"], statistics: Any
    ) -> Float[Array, "b k n"]:
        """[x, 1, y] of the annotated frames in these places, zeros for others and for -1."""
        model: Any = self._experiment.model
        batch = self._experiment.transform(batch, statistics, jax.random.key(0), train=False)
        x = model.design(batch.features, batch.modality_masks, batch.frame_mask)
        targets, counted = batch.targets, batch.target_mask & batch.frame_mask
        if self._most_rows < x.shape[1]:
            # The product of the rows is most of the work: of those that count alone.
            at = jnp.maximum(places, 0)
            x, targets = (jnp.take_along_axis(v, at[..., None], 1) for v in (x, targets))
            counted = jnp.take_along_axis(counted, at, 1) & (places >= 0)
        ones = jnp.ones((*x.shape[:2], 1), x.dtype)
        rows = jnp.concatenate([x, ones, targets], -1)
        return jnp.where(counted[..., None], rows, 0)

    def _added(
        self, sums: Sums, statistics: Any, batch: Batch, places: Array, group: Array
    ) -> Sums:
        rows = self._rows(batch, places, statistics)
        return sums.add(group, jnp.einsum("bti,btj->ij", rows, rows, precision="highest"))

    def batches(self, start: int) -> Any:
        """(group, batch and places of what counts, on the devices) from the batch `start` on."""
        experiment, config = self._experiment, self._experiment.config
        at_once = self.rows_at_once
        empty = len(self._windows)  # numbers past the last give empty windows
        numbers = [
            np.pad(n, (0, at_once - len(n)), constant_values=empty)
            for _, n in self._batches[start:]
        ]
        read = listed_batches(
            experiment.source(self._windows),
            numbers,
            rows=process_rows(self._mesh, at_once, "train.batch_size"),
            num_threads=config.data.num_threads,
        )
        for (group, _), batch in zip(self._batches[start:], read):
            first_time = self._first_time(batch["window"])
            batch = to_batch({**batch, "target_mask": batch["target_mask"] & first_time})
            places = np.full((len(first_time), self._most_rows), -1, np.int32)
            for row, counted in enumerate(first_time):
                at = np.flatnonzero(counted)
                places[row, : len(at)] = at
            yield group, place_batch((batch, places), self._mesh)

    def _first_time(self, numbers: np.ndarray) -> np.ndarray:
        """(b, t): frames that no earlier window has, every `frame_step`-th of them."""
        windows = self._windows
        keep = np.zeros((len(numbers), windows.length), bool)
        for row, number in enumerate(numbers.tolist()):
            if number < 0:
                continue
            frames = np.arange(*windows.frames(number).indices(int(windows.stop[number])))
            earlier = number > 0 and windows.video[number - 1] == windows.video[number]
            done = windows.stop[number - 1] if earlier else 0
            keep[row, : len(frames)] = (frames >= done) & (frames % self._section.frame_step == 0)
        return keep

    def fresh(self) -> TrainState:
        """The state before the first batch."""
        return self._experiment.fresh_state(self.tx, self.shardings)

    def solved(self, state: TrainState, solution: Solution) -> TrainState:
        """The state with the solution as weights and nothing to continue from."""
        params = {"kernel": solution.kernel, "bias": solution.bias}
        params = {name: np.asarray(value, np.float32) for name, value in params.items()}
        params = jax.device_put(params, self.shardings.weights.params)
        weights = state.weights.replace(params=params)
        return state.replace(step=state.step + 1, weights=weights, opt_state=optax.EmptyState())

    def add(self, state: TrainState, group: int, placed: tuple[Batch, Array]) -> TrainState:
        """The state after what `batches` gives."""
        statistics = state.weights.statistics
        sums = self._add(state.opt_state, statistics, *placed, np.int32(group))
        return state.replace(step=state.step + 1, opt_state=sums)

    def solution(self, state: TrainState) -> Solution:
        """The solution of the sums; the same on every process.

        Raises:
            UserError: no frame is annotated.
        """
        high, low = np.asarray(state.opt_state.high), np.asarray(state.opt_state.low)
        groups = np.empty(high.shape)
        for i in range(len(groups)):  # all at once would hold them five times, gigabytes each
            np.add(high[i], low[i], out=groups[i], dtype=np.float64)
        if not groups[:, -3, -3].sum():
            raise UserError("the training split has no annotated frame")
        solved = solve(groups, self._section.penalties)
        if jax.process_count() > 1:  # other processors round otherwise
            solved = Solution(
                *multihost_utils.broadcast_one_to_all(dataclasses.astuple(solved))  # type: ignore
            )
        return solved


def fit(
    experiment: Experiment,
    workdir: Path,
    overrides: list[str],
    watchdog: Watchdog,
    preemption: hosts.Preemption,
) -> dict[str, Any] | None:
    """Solves a recipe with `optimizer.name="closed_form"`; as `training.train.train`.

    Returns:
        The scores of the evaluation split; None if `preemption` ended the pass over the store.

    Raises:
        UserError: the model has no closed form, or nothing is annotated.
    """
    config = experiment.config
    if config.data.mix:
        raise UserError("config.data.mix: the closed form takes one store")
    work = ClosedFormFit(experiment, recipes.call(ClosedForm, config.optimizer, "optimizer"))
    say(work.describe())
    keep = config.checkpoint.keep
    checkpoints = recipes.call(
        Checkpoints, keep, "checkpoint.keep", workdir=workdir, read_only=False
    )
    with contextlib.closing(checkpoints):
        start = checkpoints.newest_usable() or 0
        record = {"run": claim(workdir, experiment, {}, overrides)}
        if start and checkpoints.control(start).get("solved"):
            say(f"it is solved: step {start}")
            return {}
        state, first = work.fresh(), 0
        if start:
            saved, position = checkpoints.restore(start, work.like)
            if position["windows"] == work.rows_at_once:
                state, first = saved, position["first"]
                say(f"continuing from batch {start - first} of {len(work)}")
            else:  # its batches are other ones: windows would count twice, or never
                state, first = state.replace(step=saved.step), start
                say("the sums are of batches of another size, on other devices: summing anew")

        def save(state: TrainState, scores: dict[str, Any] | None = None) -> None:
            position = {"windows": work.rows_at_once, "first": first}
            metrics = scores and {"ccc": scores["ccc"]}
            saved = record | {"solved": scores is not None}
            with watchdog.paused("saving"):
                checkpoints.save(int(state.step), state, position, saved, metrics)

        with meter("summing", len(work), "batches", initial=start - first) as progress:
            for step, (group, placed) in enumerate(work.batches(start - first), start + 1):
                watchdog.beat(step, "summing")
                state = work.add(state, group, placed)
                progress.advance()
                stops = preemption.reached()
                if stops or step % config.checkpoint.every_steps == 0:
                    save(state)
                if stops:
                    checkpoints.wait()
                    say(f"stopped by SIGTERM: saved at step {step}; the same command continues")
                    return None
        with watchdog.paused("solving"), timed("solving"):
            solution = work.solution(state)
        say(solution.describe())
        state = work.solved(state, solution)
        with watchdog.paused("evaluating"):
            predictor = experiment.predictor(config.data.eval_split, work.shardings.weights)
            with jax.set_mesh(experiment.mesh):
                predictor.compile(state.weights)
                scores, _ = score(predictor(state.weights), experiment.dimensions)
        save(state, scores)
        writer = open_writer(config, workdir, start)
        with contextlib.closing(writer):
            writer.write(int(state.step), "solution", solution.to_json())
            writer.write(int(state.step), config.data.eval_split, scores)
        checkpoints.wait()
    return scores
