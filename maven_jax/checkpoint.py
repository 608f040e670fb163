"""Checkpoints of a run: state, position in the data, control values, metrics (orbax, async)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from maven_jax.errors import UserError
from maven_jax.state import TrainState, Weights

SCORE = "ccc"


class Checkpoints:
    """The checkpoints in `workdir/checkpoints`; the latest and the best ones are kept.

    Each is written under another name and renamed when whole, in the background.

    Args:
        workdir: folder of the run.
        keep_latest: how many of the newest to keep.
        keep_best: how many of those with the highest validation ccc to keep.
        read_only: for evaluation.
    """

    def __init__(self, workdir: Path, *, keep_latest: int, keep_best: int, read_only: bool = False):
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep_latest),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics[SCORE],
                    n=keep_best,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda metrics: metrics[SCORE],
            enable_async_checkpointing=not read_only,
            read_only=read_only,
            create=not read_only,
        )
        self.folder = workdir.resolve() / "checkpoints"
        if read_only and not self.folder.is_dir():
            raise UserError(f"{workdir}: no checkpoints here; is it the workdir of a training run?")
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step with the highest validation ccc among those that were evaluated."""
        return self._manager.best_step()

    def resolve(self, which: str) -> int:
        """The step that `best`, `latest` or a number means.

        Raises:
            UserError: there is none such; the message says which there are.
        """
        steps = sorted(self._manager.all_steps())
        best = self.best_step
        if which == "best" and best is not None:
            return best
        if which in ("best", "latest") and steps:
            return steps[-1]
        if which.isdigit() and int(which) in steps:
            return int(which)
        raise UserError(f"{self.folder}: no checkpoint {which!r}; there are {steps or 'none'}")

    def save(
        self,
        step: int,
        state: TrainState,
        data: grain.DatasetIterator,
        control: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Starts saving; what `metrics` holds decides whether it is the best so far."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(state.weights),
                optimizer=ocp.args.StandardSave(_rest(state)),
                data=grain.checkpoint.CheckpointSave(data),
                control=ocp.args.JsonSave(control),
            ),
            metrics=metrics,
        )

    def control(self, step: int) -> dict[str, Any]:
        """The control values of a step."""
        return self._manager.restore(step, args=ocp.args.Composite(control=ocp.args.JsonRestore()))[
            "control"
        ]

    def restore(self, step: int, like: TrainState, data: grain.DatasetIterator) -> TrainState:
        """The state of a step, laid out as `like` is; `data` is moved to where it was."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardRestore(_abstract(like.weights)),
                optimizer=ocp.args.StandardRestore(_abstract(_rest(like))),
                data=grain.checkpoint.CheckpointRestore(data),
            ),
        )
        return TrainState(weights=restored["weights"], **restored["optimizer"])

    def restore_weights(self, step: int, like: Weights) -> Weights:
        """The weights alone, laid out as `like` is.

        Raises:
            UserError: the checkpoint's tree is not that of the model.
        """
        args = ocp.args.Composite(weights=ocp.args.StandardRestore(_abstract(like)))
        try:
            return self._manager.restore(step, args=args)["weights"]
        except (ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self.folder}/{step} does not fit the recipe's model: {first}"
            ) from error

    def read_weights(self, step: int) -> dict[str, Any]:
        """The weights as nested dicts of NumPy arrays, whatever model they are of.

        Returns:
            `params` and `model_state`, without the statistics of the features.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = self._manager.item_metadata(step)["weights"]
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved)
        args = ocp.args.Composite(weights=ocp.args.StandardRestore(like))
        weights = jax.tree.map(np.asarray, self._manager.restore(step, args=args)["weights"])
        return {k: weights[k] or {} for k in ("params", "model_state")}

    def wait(self) -> None:
        """Returns when all that was started is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _rest(state: TrainState) -> dict[str, Any]:
    """What only training needs."""
    return {"step": state.step, "opt_state": state.opt_state, "lr_scale": state.lr_scale}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
