"""What a training step is fed with: batches read from a store, or windows held on the devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maven_jax.data.pipeline import Source, WindowSource, number_iterator, to_batch, train_iterator
from maven_jax.data.resident import ResidentWindows, device_bytes, free_bytes, make_layout
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.runtime.sharding import batch_sharding, place_batch, process_rows
from maven_jax.state import TrainState
from maven_jax.store.reader import Store

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]


def steps_at_once(config: Config) -> int:
    """Steps that devices may take without hearing from the host: all between two log lines.

    A processor gains nothing by it.
    """
    return 1 if jax.devices()[0].platform == "cpu" else config.train.log_every_steps


@runtime_checkable
class Feed(Protocol):
    """Takes the steps of a run, one or several at a time.

    Attributes:
        position: iterator whose `get_state()` and `set_state` are the position in the data; it
            counts global batches, so that any feed continues where any other stopped.
    """

    position: grain.DatasetIterator

    def compile(self, step: Step, state: TrainState) -> None:
        """Compiles a stage's jitted (state, batch) -> (state, metrics)."""
        ...

    def take(self, most: int) -> tuple[Any, int]:
        """What the next steps need, and how many these are, `most` at the most."""
        ...

    def run(self, state: TrainState, taken: Any) -> tuple[TrainState, dict[str, Any]]:
        """Takes those steps; metrics are scalars, or one value for each step and then zeros."""
        ...


class Streamed:
    """Batches that threads read from the store while the devices work."""

    def __init__(self, source: Source, config: Config, mesh: Mesh, seed: int):
        self._mesh = mesh
        self._batch_size = batch_size = config.train.batch_size
        rows = process_rows(mesh, batch_size, "train.batch_size")
        self.position = train_iterator(
            source,
            batch_size=batch_size,
            rows=rows,
            seed=seed,
            num_threads=config.data.num_threads,
        )
        self._window = to_batch(source.read(np.zeros(1, int)))

    def compile(self, step: Any, state: TrainState) -> None:
        sharding = batch_sharding(self._mesh)
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                (self._batch_size, *x.shape[1:]), x.dtype, sharding=sharding
            ),
            self._window,
        )
        self._step = step.lower(state, batch).compile()

    def take(self, most: int) -> tuple[Any, int]:
        return place_batch(to_batch(next(self.position)), self._mesh), 1

    def run(self, state: TrainState, taken: Any) -> tuple[TrainState, dict[str, Any]]:
        return self._step(state, taken)


class Resident:
    """Windows of features that lie on the devices; several steps are one call of one program.

    Args:
        windows: on the devices.
        source: the same windows, for their order.
        config: the recipe.
        mesh: the device mesh.
        seed: of the order.
        steps_at_once: the most steps that a call takes.
    """

    def __init__(
        self,
        windows: ResidentWindows,
        source: WindowSource,
        config: Config,
        mesh: Mesh,
        seed: int,
        steps_at_once: int,
    ):
        self._windows, self._at_once = windows, steps_at_once
        self._replicated = NamedSharding(mesh, P())
        self._batch_size = config.train.batch_size
        self.position = number_iterator(source, batch_size=self._batch_size, seed=seed)

    def compile(self, step: Any, state: TrainState) -> None:
        def run(state: TrainState, arrays: Any, numbers: jax.Array, count: jax.Array) -> Any:
            def take(i: Any) -> Any:
                return self._windows.take(arrays, numbers[i])

            def one(i: Any, carry: Any) -> Any:
                state, metrics = step(carry[0], take(i))
                return state, jax.tree.map(lambda a, x: a.at[i].set(x), carry[1], metrics)

            _, shapes = jax.eval_shape(lambda: step(state, take(0)))
            room = jax.tree.map(lambda x: jnp.zeros((len(numbers), *x.shape), x.dtype), shapes)
            # One program for any number of steps; known to be one, it is no loop at all.
            return jax.lax.fori_loop(0, 1 if len(numbers) == 1 else count, one, (state, room))

        kept = jax.tree.map(lambda x: x.sharding, state)
        numbers = (self._at_once, self._batch_size)
        self._program = (
            jax.jit(run, donate_argnums=0, out_shardings=(kept, self._replicated))
            .lower(
                state,
                self._windows.arrays,
                jax.ShapeDtypeStruct(numbers, jnp.int32, sharding=self._replicated),
                jax.ShapeDtypeStruct((), jnp.int32, sharding=self._replicated),
            )
            .compile()
        )

    def take(self, most: int) -> tuple[Any, int]:
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
        return self._program(state, self._windows.arrays, *taken)


def make_feed(
    config: Config, store: Store, windows: Windows, source: Source, mesh: Mesh
) -> Streamed | Resident:
    """The feed that `data.resident` asks for; a line says when the features do not fit.

    Args:
        config: the recipe.
        store: the main store.
        windows: of its training split.
        source: of these, with what is mixed in.
        mesh: the device mesh.

    Raises:
        UserError: `data.resident` with `data.mix`, or a batch that the mesh cannot divide.
    """
    if not config.data.resident:
        return Streamed(source, config, mesh, config.seed)
    if not isinstance(source, WindowSource):
        raise UserError("config.data.resident does not go with config.data.mix: stream them")
    process_rows(mesh, config.train.batch_size, "train.batch_size")
    modalities, single = tuple(config.data.modalities), dict(config.data.single_vector)
    layout = make_layout(windows, mesh.shape["data"])
    needed, free = device_bytes(store, layout, modalities, single), free_bytes()
    sizes = f"{needed / 2**30:.2f} GiB of features per device"
    if free is not None and needed > free:
        say(f"{sizes}, but there is room for {free / 2**30:.2f} GiB: they are streamed instead")
        return Streamed(source, config, mesh, config.seed)
    say(f"{sizes}" + ("" if free is None else f", of {free / 2**30:.2f} GiB that may be used"))
    resident = ResidentWindows(store, windows, modalities, single, mesh)
    return Resident(resident, source, config, mesh, config.seed, steps_at_once(config))
