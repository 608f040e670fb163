"""What a training step is fed with: batches read from a store, or windows held on the devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maven_jax.data.pipeline import Source, WindowSource, number_iterator, to_batch, train_iterator
from maven_jax.data.resident import ResidentWindows, device_bytes, make_layout, room
from maven_jax.data.store import Store
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.sharding import batch_sharding, place_batch, process_rows
from maven_jax.state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]


def steps_at_once() -> int:
    """Steps that devices take without hearing from the host; a processor gains nothing by it."""
    return 1 if jax.devices()[0].platform == "cpu" else 16


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
        """Takes those steps; metrics are scalars, or (steps,) of several."""
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
    """Windows of features that lie on the devices; several steps are one program.

    Args:
        windows: on the devices.
        source: the same windows, for their order.
        config: the recipe.
        mesh: the device mesh.
        seed: of the order.
        steps_at_once: how many steps a program takes when nothing comes between them.
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
        def run(state: TrainState, arrays: Any, numbers: jax.Array) -> Any:
            def one(state: TrainState, row: jax.Array) -> Any:
                return step(state, self._windows.take(arrays, row))

            return jax.lax.scan(one, state, numbers)

        jitted = jax.jit(run, donate_argnums=0)
        self._programs = {
            count: jitted.lower(
                state,
                self._windows.arrays,
                jax.ShapeDtypeStruct(
                    (count, self._batch_size), jnp.int32, sharding=self._replicated
                ),
            ).compile()
            for count in {1, self._at_once}
        }

    def take(self, most: int) -> tuple[Any, int]:
        count = self._at_once if most >= self._at_once else 1
        numbers = np.stack([next(self.position) for _ in range(count)]).astype(np.int32)
        placed = jax.make_array_from_callback(numbers.shape, self._replicated, lambda i: numbers[i])
        return placed, count

    def run(self, state: TrainState, taken: Any) -> tuple[TrainState, dict[str, Any]]:
        return self._programs[len(taken)](state, self._windows.arrays, taken)


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
    needed, free = device_bytes(store, layout, modalities, single), room()
    sizes = f"{needed / 2**30:.2f} GiB of features per device"
    if free is not None and needed > free:
        say(f"{sizes}, but there is room for {free / 2**30:.2f} GiB: they are streamed instead")
        return Streamed(source, config, mesh, config.seed)
    say(f"{sizes}" + ("" if free is None else f", of {free / 2**30:.2f} GiB that may be used"))
    resident = ResidentWindows(store, windows, modalities, single, mesh)
    return Resident(resident, source, config, mesh, config.seed, steps_at_once())
