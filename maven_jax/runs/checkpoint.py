"""Checkpoints of a run: state, position in the data, control values, metrics (orbax, async).

Orbax's V1 API, its main one from version 1.0 on, does most of this. But its `Checkpointer` (0.12.8)
lays itself over the `CheckpointManager` used here and lacks three of its options: the barrier
function, without which a full disk shows after minutes (`_barrier`); renaming before deleting,
without which a killed process leaves half a step (`_DELETED`); a say in who asks about preemption
(`_Manager`). V1 reads what is written here.
"""

from __future__ import annotations

import math
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from maven_jax.errors import UserError, disk_refusal, listing
from maven_jax.inputs import read_json
from maven_jax.progress import say
from maven_jax.runs.damaged import set_aside
from maven_jax.runtime.array_folders import reading, silence_late_callbacks
from maven_jax.runtime.hosts import agree, is_writer
from maven_jax.runtime.seal import find_fault, is_sealed, seal
from maven_jax.state import TrainState, Weights

SCORE = "ccc"
# Folders that orbax writes arrays to, and those of one JSON file each.
_ARRAYS, _JSON = ("weights", "optimizer"), ("control", "position", "metrics")
# What training needs to continue; converted weights have no more than weights.
_NEEDED = (*_ARRAYS, "control")
# What is deleted is renamed into it first: a step's folder is whole or absent.
_DELETED = ".deleted"
# What orbax calls a checkpoint that it is writing; a killed run leaves it behind.
_HALF_WRITTEN = "*.orbax-checkpoint-tmp*"
# Files that claim to hold more are forged: weights hardly compress, and only zeros by so much.
MOST_COMPRESSED, SMALL_BYTES = 100, 64 << 20


class _Manager(ocp.CheckpointManager):
    """Orbax's, but it leaves preemption to `hosts.Preemption`.

    The runtime agrees on the number of a question; Orbax asks with the step, we count questions,
    and mixing the two would miss the point to stop at.
    """

    def reached_preemption(self, step: int) -> bool:
        """Never."""
        return False


class Checkpoints:
    """The checkpoints in `workdir/checkpoints`; the latest and the best ones are kept.

    Each is written under another name in the background, renamed when whole (orbax), and then
    sealed: process 0 writes down the sizes and digests of its files. Restored arrays take the
    layout that is asked for, whatever mesh and processes saved them.

    Args:
        workdir: folder of the run; all processes see the same one.
        keep_latest: how many of the newest to keep.
        keep_best: how many of those with the highest validation ccc to keep.
        read_only: for evaluation.
    """

    def __init__(self, workdir: Path, *, keep_latest: int, keep_best: int, read_only: bool = False):
        self.folder = workdir.resolve() / "checkpoints"
        if read_only and not self.folder.is_dir():
            raise UserError(f"{workdir}: no checkpoints here; is it the workdir of a training run?")
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._reader = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        # Made when training begins: it reads the metrics of all checkpoints, damaged or not.
        self._manager: ocp.CheckpointManager | None = None
        self._sealing: threading.Thread | None = None
        self._step = 0
        self._error: BaseException | None = None
        silence_late_callbacks()

    # Finding.

    @property
    def latest_step(self) -> int | None:
        """The newest step, whatever state its files are in."""
        if self._manager is not None:
            return self._manager.latest_step()
        return max(_steps(self.folder), default=None)

    @property
    def best_step(self) -> int | None:
        """The step with the highest validation ccc among those that were evaluated."""
        if self._manager is not None:
            return self._manager.best_step()
        return _best(_scores(self.folder, _steps(self.folder)))

    def newest_usable(self) -> int | None:
        """The newest step that is as it was written; None if none was ever saved.

        Process 0 reads every file of every checkpoint. Damaged ones are named and moved to
        `workdir/damaged`, so that neither this run nor its successors trip over them.

        Raises:
            UserError: there are checkpoints and all of them are damaged; they stay in place.
        """
        newest = agree(self._clear_away_damaged() if is_writer() else 0)
        if newest == _ALL_DAMAGED:
            raise UserError(
                f"{self.folder}: every checkpoint is damaged; put back a copy of one, or remove "
                "the folder to start the run afresh"
            )
        self._open()
        return None if newest == _NONE else newest

    def _clear_away_damaged(self) -> int:
        if not self.folder.is_dir():
            return _NONE
        for remains in (self.folder / _DELETED, *self.folder.glob(_HALF_WRITTEN)):
            shutil.rmtree(remains, ignore_errors=True)
        steps = _steps(self.folder)
        checked = {step: self._find_fault(step, _NEEDED) for step in steps}
        faults = {step: fault for step, fault in checked.items() if fault is not None}
        whole = [step for step in steps if step not in faults]
        for step, fault in sorted(faults.items(), reverse=True):
            moved = ""
            if whole:
                target = set_aside(self.folder.parent, str(step))
                (self.folder / str(step)).rename(target)
                moved = f"; moved to {target}"
            say(f"the checkpoint of step {step} is damaged: {fault}{moved}")
        if faults and not whole:
            return _ALL_DAMAGED
        return whole[-1] if whole else _NONE

    def resolve(self, which: str) -> int:
        """The step that `best`, `latest` or a number means.

        Damaged checkpoints are named and passed over; nothing is moved.

        Raises:
            UserError: there is none such; the message says which there are.
        """
        step = agree(self._resolve(which) if is_writer() else 0)
        if step == _NONE:
            steps = _steps(self.folder)
            raise UserError(f"{self.folder}: no checkpoint {which!r}; there are {steps or 'none'}")
        if step == _ALL_DAMAGED:
            raise UserError(f"{self.folder}: no checkpoint {which!r} that is not damaged")
        return step

    def _resolve(self, which: str) -> int:
        steps, damaged = _steps(self.folder), False
        if which.isdigit():
            steps = [step for step in steps if step == int(which)]
        elif which not in ("best", "latest"):
            steps = []
        scores = _scores(self.folder, steps) if which == "best" else {}
        while steps:
            best = _best({step: scores[step] for step in steps if step in scores})
            step = steps[-1] if best is None else best
            fault = self._find_fault(step, ("weights",))
            if fault is None:
                return step
            say(f"the checkpoint of step {step} is damaged: {fault}")
            steps.remove(step)
            damaged = True
        return _ALL_DAMAGED if damaged else _NONE

    def _find_fault(self, step: int, needed: tuple[str, ...]) -> str | None:
        """What is wrong with a step's files, by its seal; by reading them if it has none."""
        folder = self.folder / str(step)
        if is_sealed(folder):
            return find_fault(folder)
        return _find_unreadable(folder, needed)

    # Saving.

    def save(
        self,
        step: int,
        state: TrainState,
        position: Mapping[str, Any],
        control: Mapping[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Starts saving; what `metrics` holds decides whether it is the best so far.

        Args:
            step: steps taken.
            state: the training state, laid out on any mesh.
            position: of the global order of the data, the same on every process (JSON).
            control: see `StageControl` (JSON).
            metrics: of the evaluation at this step, if there was one.

        Raises:
            UserError: the disk takes no more, now or when the step before was written.
        """
        self.wait()
        manager = self._open()
        if step in manager.all_steps():
            return
        self._step = step
        try:
            manager.save(
                step,
                args=ocp.args.Composite(
                    weights=ocp.args.StandardSave(state.predicting),
                    optimizer=ocp.args.StandardSave(_rest(state)),
                    position=ocp.args.JsonSave(dict(position)),
                    control=ocp.args.JsonSave(dict(control)),
                ),
                metrics=metrics,
            )
        except Exception as error:
            self._error = error
            self.check()
        self._sealing = threading.Thread(target=self._finish, args=(manager, step), name="seal")
        self._sealing.start()

    def _finish(self, manager: ocp.CheckpointManager, step: int) -> None:
        """Waits for orbax, then seals; runs in the background."""
        try:
            manager.wait_until_finished()
            if is_writer():
                seal(self.folder / str(step))
                shutil.rmtree(self.folder / _DELETED, ignore_errors=True)
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        """Raises if saving has failed in the background.

        Raises:
            UserError: the disk takes no more.
        """
        if self._error is None:
            return
        reason = disk_refusal(self._error)
        if reason is None:
            raise self._error
        steps = [step for step in _steps(self.folder) if step != self._step]
        older = f"whole: those of steps {steps}" if steps else "there is no older one"
        raise UserError(
            f"{self.folder}: {reason}: the checkpoint of step {self._step} could not be written "
            f"({older}); make room, and the same command continues"
        ) from self._error

    def wait(self) -> None:
        """Returns when all that was started is on disk.

        Raises:
            UserError: the disk takes no more.
        """
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None
        self.check()

    def close(self) -> None:
        """Ends what runs in the background; what `check` raised is not raised again."""
        if self._sealing is not None:
            self._sealing.join()
        try:
            if self._manager is not None:
                self._manager.close()
        except Exception as error:
            self._error = self._error or error
        self._reader.close()
        # An error that is being raised is the reason for closing: another would hide it.
        if sys.exc_info()[0] is None:
            self.check()

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            policy = checkpoint_managers.AnyPreservationPolicy(
                [
                    checkpoint_managers.LatestN(self._keep_latest),
                    checkpoint_managers.BestN(
                        get_metric_fn=lambda metrics: metrics[SCORE],
                        n=self._keep_best,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            )
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=lambda metrics: metrics[SCORE],
                todelete_subdir=_DELETED,
                async_options=ocp.AsyncOptions(barrier_sync_fn=_barrier),
            )
            self._manager = _Manager(self.folder, options=options)
        return self._manager

    # Restoring.

    def control(self, step: int) -> dict[str, Any]:
        """The control values of a step."""
        return _read_json(self.folder / str(step), "control")

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state of a step, laid out as `like` is, and the position in the data.

        Raises:
            UserError: its arrays have other names, shapes or types than `like`.
        """
        restored = self._restore(step, {"weights": like.weights, "optimizer": _rest(like)})
        if not (self.folder / str(step) / "position").is_dir():
            raise UserError(
                f"{self.folder}/{step}: saved by an earlier version, which kept the position in "
                "the data otherwise; take another --workdir, with --init-from for its weights"
            )
        position = _read_json(self.folder / str(step), "position")
        weights, rest = restored["weights"], restored["optimizer"]
        if "params" in rest:
            average, weights = weights.params, weights.replace(params=rest.pop("params"))
            rest["average"] = average
        return TrainState(weights=weights, **rest), position

    def restore_weights(self, step: int, like: Weights) -> Weights:
        """The weights alone, laid out as `like` is.

        Raises:
            UserError: its arrays have other names, shapes or types than `like`.
        """
        return self._restore(step, {"weights": like})["weights"]

    def _restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        folder = self.folder / str(step)
        with reading(folder):
            for item, tree in like.items():
                _check_arrays(folder / item, tree)
            args = {k: ocp.args.StandardRestore(_abstract(tree)) for k, tree in like.items()}
            restored = self._reader.restore(folder, args=ocp.args.Composite(**args))
        return {item: restored[item] for item in like}

    def read_weights(self, step: int) -> dict[str, Any]:
        """The weights as nested dicts of NumPy arrays, whatever model they are of.

        Returns:
            `params`, `model_state`, and `statistics` of the features if it has them (converted
            weights have none).
        """
        folder = self.folder / str(step) / "weights"
        with reading(folder):
            weights = _read_arrays(folder)
        if not all(isinstance(weights.get(k, 0), dict | None) for k in ("params", "model_state")):
            raise UserError(f"{folder}: not the weights of a model")
        variables = {k: weights[k] or {} for k in ("params", "model_state")}
        return variables | {k: weights[k] for k in ("statistics",) if weights.get(k)}


# Answers of process 0 that are no step.
_NONE, _ALL_DAMAGED = -1, -2


def _steps(folder: Path) -> list[int]:
    """The steps whose checkpoints were written to the end, in order."""
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def _scores(folder: Path, steps: list[int]) -> dict[int, float]:
    """The scores of the steps that were evaluated; says which of them cannot be read."""
    scores = {}
    for step in steps:
        saved = folder / str(step)
        fault = find_fault(saved, "metrics/") if is_sealed(saved) else None
        try:
            if fault is not None:
                raise UserError(fault)
            if (saved / "metrics").is_dir():
                scores[step] = _read_json(saved, "metrics", {SCORE: float})[SCORE]
        except UserError as error:
            say(
                f"the checkpoint of step {step} is damaged: {error}; its score is not known, so "
                "another step may be taken for the best"
            )
    return scores


def _best(scores: Mapping[int, float]) -> int | None:
    """The one with the highest score, of equal ones the newest; None if there is none."""
    return max(scores, key=lambda step: (scores[step], step)) if scores else None


def _barrier(*, key: str, timeout_ms: int) -> None:
    """Waits for all processes, but not when this one is about to fail with an error.

    Before it raises an error, orbax waits for the others, and they wait for what this process
    failed to write: without this, a full disk would show after twenty minutes.
    """
    error = sys.exc_info()[1]
    if error is not None and threading.current_thread() is not threading.main_thread():
        raise RuntimeError("saving failed on this process") from error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _rest(state: TrainState) -> dict[str, Any]:
    """What only training needs."""
    rest = {"step": state.step, "opt_state": state.opt_state, "lr_scale": state.lr_scale}
    # The saved weights are those to predict with.
    return rest if state.average is None else rest | {"params": state.weights.params}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _read_json(folder: Path, item: str, pattern: Any = dict) -> dict[str, Any]:
    """An item that orbax wrote as JSON."""
    name = "metrics" if item == "metrics" else "metadata"
    return read_json(folder / item / name, f"the {item} of a checkpoint", pattern)


def _read_arrays(folder: Path) -> Any:
    """An item that orbax wrote as arrays, as nested dicts of NumPy arrays."""
    handler = ocp.PyTreeCheckpointHandler()
    described = handler.metadata(epath.Path(folder)).tree
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    claimed = sum(
        math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in _named(described).values()
    )
    if claimed > max(MOST_COMPRESSED * stored, SMALL_BYTES):
        raise UserError(f"{folder}: arrays of {claimed:,} bytes in files of {stored:,}: damaged")
    here = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), described)
    return handler.restore(epath.Path(folder), args=ocp.args.PyTreeRestore(restore_args=here))


def _find_unreadable(folder: Path, needed: tuple[str, ...]) -> str | None:
    """The first item of an unsealed checkpoint that cannot be read or is needed, and why."""
    for item in (*_ARRAYS, *_JSON):
        if not (folder / item).is_dir():
            if item in needed:
                return f"{item} is missing"
            continue
        try:
            with reading(folder / item):
                _read_arrays(folder / item) if item in _ARRAYS else _read_json(folder, item)
        except UserError as error:
            return f"{item} cannot be read ({error})"
    return None


def _named(tree: Any) -> dict[str, Any]:
    """Leaves with a shape by path, the path spelled as orbax does it."""
    names = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        parts = (getattr(p, "key", getattr(p, "idx", getattr(p, "name", p))) for p in path)
        if hasattr(leaf, "shape"):
            names["/".join(map(str, parts))] = leaf
    return names


def _check_arrays(folder: Path, like: Any) -> None:
    """Compares names, shapes and types: orbax itself would cast types without a word.

    Raises:
        UserError: they differ; the message names the first few.
    """
    saved = _named(ocp.StandardCheckpointHandler().metadata(epath.Path(folder)).tree)
    model = _named(like)
    faults = [f"{name} is not in it" for name in sorted(model.keys() - saved.keys())]
    faults += [f"{name} is not in the model" for name in sorted(saved.keys() - model.keys())]
    for name in sorted(model.keys() & saved.keys()):
        kinds = [_kind(x) for x in (saved[name], model[name])]
        if kinds[0] != kinds[1]:
            faults.append(f"{name} is {kinds[0]} there, {kinds[1]} in the model")
    if faults:
        raise UserError(
            f"{folder} does not fit the recipe's model: {listing(faults, 3, '; ')}; take the "
            "recipe that it was trained with"
        )


def _kind(array: Any) -> str:
    """Type and shape as a message shows them."""
    return f"{np.dtype(array.dtype)}{list(array.shape)}"
