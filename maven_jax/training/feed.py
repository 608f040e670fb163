"""What a training step is fed with: batches read from a store, or windows held on the devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maven_jax.data.pipeline import Source, WindowSource, number_iterator, to_batch, train_iterator
from maven_jax.data.resident import ResidentWindows, device_bytes, free_bytes, make_layout
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.progress import say
from maven_jax.runtime.sharding import batch_sharding, place_batch, process_rows
from maven_jax.state import TrainState


def steps_at_once(experiment: Experiment) -> int:
    """Steps that devices may take in one call: all between two log lines.

    On a processor, where that gains nothing, one.
    """
    on_processor = jax.devices()[0].platform == "cpu"
    return 1 if on_processor else experiment.config.train.log_every_steps


class StreamedFeed:
    """Batches that threads read from the store while the devices work.

    Attributes:
        position: iterator whose `get_state()` and `set_state` are the position in the data; it
            counts global batches, so that any feed continues where any other stopped.
    """

    def __init__(self, experiment: Experiment, source: Source):
        config = experiment.config
        self._mesh = experiment.mesh
        self._batch_size = config.train.batch_size
        self.position = train_iterator(
            source,
            batch_size=self._batch_size,
            rows=process_rows(self._mesh, self._batch_size, "train.batch_size"),
            seed=config.seed,
            num_threads=config.data.num_threads,
        )
        self._example = experiment.example()

    def compile(self, step: Any, state: TrainState) -> Any:
        """Compiles a stage's jitted (state, batch) -> (state, metrics); returns the program."""
        sharding = batch_sharding(self._mesh)
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                (self._batch_size, *x.shape[1:]), x.dtype, sharding=sharding
            ),
            self._example,
        )
        self._step = step.lower(state, batch).compile()
        return self._step

    def take(self, most: int) -> tuple[Any, int]:
        """What the next steps need, and how many these are, `most` at the most: one."""
        return place_batch(to_batch(next(self.position)), self._mesh), 1

    def run(self, state: TrainState, taken: Any) -> tuple[TrainState, dict[str, Any]]:
        """Takes that step; metrics are scalars."""
        return self._step(state, taken)


class ResidentFeed:
    """Windows of features that lie on the devices; several steps are one call of one program.

    Args:
        experiment: what is trained.
        windows: on the devices.
        source: the same windows, for their order.
        steps_at_once: the most steps that a call takes.

    Attributes:
        position: as that of `StreamedFeed`.
    """

    def __init__(
        self,
        experiment: Experiment,
        windows: ResidentWindows,
        source: WindowSource,
        steps_at_once: int,
    ):
        self._windows, self._at_once = windows, steps_at_once
        self._replicated = NamedSharding(experiment.mesh, P())
        self._batch_size = experiment.config.train.batch_size
        seed = experiment.config.seed
        self.position = number_iterator(source, batch_size=self._batch_size, seed=seed)

    def compile(self, step: Any, state: TrainState) -> Any:
        """Compiles a loop over a stage's jitted step, as `StreamedFeed`; returns the program."""

        def run(state: TrainState, arrays: Any, numbers: jax.Array, count: jax.Array) -> Any:
            def take(i: Any) -> Any:
                return self._windows.take(arrays, numbers[i])

            def one(i: Any, carry: Any) -> Any:
                state, metrics = step(carry[0], take(i))
                return state, jax.tree.map(lambda a, x: a.at[i].set(x), carry[1], metrics)

            _, shapes = jax.eval_shape(lambda: step(state, take(0)))
            metrics = jax.tree.map(lambda x: jnp.zeros((len(numbers), *x.shape), x.dtype), shapes)
            # One program for any number of steps; where it can only be one, there is no loop.
            return jax.lax.fori_loop(0, 1 if len(numbers) == 1 else count, one, (state, metrics))

        shardings = jax.tree.map(lambda x: x.sharding, state)
        numbers = (self._at_once, self._batch_size)
        self._program = (
            jax.jit(run, donate_argnums=0, out_shardings=(shardings, self._replicated))
            .lower(
                state,
                self._windows.arrays,
                jax.ShapeDtypeStruct(numbers, jnp.int32, sharding=self._replicated),
                jax.ShapeDtypeStruct((), jnp.int32, sharding=self._replicated),
            )
            .compile()
        )
        return self._program

    def take(self, most: int) -> tuple[Any, int]:
        """What the next steps need, and how many these are, `most` at the most."""
        count = min(most, self._at_once)
        numbers = np.zeros((self._at_once, self._batch_size), np.int32)
        for i in range(count):
            numbers[i] = next(self.position)
        placed = (
            jax.make_array_from_callback(x.shape, self._replicated, lambda i, x=x: x[i])
            for x in (numbers, np.array(count, np.int32))
        )
        return tuple(placed), count

    def run(self, state: TrainState, taken: Any) -> tuple[TrainState, dict[str, Any]]:
        """Takes those steps; metrics hold one value for each step, and then zeros."""
        return self._program(state, self._windows.arrays, *taken)


def make_feed(
    experiment: Experiment, windows: Windows, source: Source
) -> StreamedFeed | ResidentFeed:
    """The feed that `data.resident` asks for; if the features do not fit, a line says so.

    Args:
        experiment: what is trained.
        windows: of its training split.
        source: of these, with what is mixed in.

    Raises:
        UserError: `data.resident` with `data.mix`, or a batch that the mesh cannot divide.
    """
    config, mesh, store = experiment.config, experiment.mesh, experiment.store
    if not config.data.resident:
        return StreamedFeed(experiment, source)
    if not isinstance(source, WindowSource):
        raise UserError("config.data.resident does not go with config.data.mix: stream them")
    if experiment.centre:
        say("data.resident: centred features (data.centre) are streamed instead")
        return StreamedFeed(experiment, source)
    process_rows(mesh, config.train.batch_size, "train.batch_size")
    modalities, single = tuple(experiment.modalities), dict(config.data.single_vector)
    extra = tuple(experiment.extra_targets)
    layout = make_layout(windows, mesh.shape["data"])
    needed, free = device_bytes(store, layout, modalities, single, extra), free_bytes()
    sizes = f"{needed / 2**30:.2f} GiB of features per device"
    if free is not None and needed > free:
        say(f"{sizes}, but {free / 2**30:.2f} GiB are free: they are streamed instead")
        return StreamedFeed(experiment, source)
    say(f"{sizes}" + ("" if free is None else f", of {free / 2**30:.2f} GiB that may be used"))
    resident = ResidentWindows(store, windows, modalities, single, mesh, extra)
    return ResidentFeed(experiment, resident, source, steps_at_once(experiment))
