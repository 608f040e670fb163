"""Frames of a video that is still being encoded, read window by window as from a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from maven_jax.errors import UserError
from maven_jax.store.schema import ExtraTarget, Frames, ModalitySpec, VideoEntry, mask_field


class LiveFrames:
    """The newest frames of one video, in the precision of a store; older ones are dropped.

    Windows are read in the order of their first frames: those of one call begin no earlier than
    those of the call before. Every kind of window keeps to that.

    Attributes:
        path: of the video, for messages.
        modalities: name -> how its features were made.
        observed: modality -> blocks of masks (n,) of all frames read so far.
    """

    def __init__(
        self, path: Path, modalities: Mapping[str, ModalitySpec], blocks: Iterator[Frames]
    ):
        self.path, self.modalities = path, dict(modalities)
        self.extra_targets: dict[str, ExtraTarget] = {}
        self.observed: dict[str, list[np.ndarray]] = {m: [] for m in modalities}
        self._blocks = blocks
        self._first = 0  # frame that `_held` begins with
        self._held: dict[str, np.ndarray] = {}

    @property
    def _stop(self) -> int:
        return self._first + len(self._held.get("time_s", ()))

    def read_into(
        self,
        spans: Sequence[tuple[VideoEntry, slice]],
        outputs: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        """Copies frames into the given arrays; see `Store.read_into`.

        Raises:
            UserError: an encoder made values that are not finite.
        """
        if not spans:
            return
        self._read_until(max(span.stop for _, span in spans), min(s.start for _, s in spans))
        for (_, span), out in zip(spans, outputs):
            rows = slice(span.start - self._first, span.stop - self._first, span.step)
            for field, array in out.items():
                array[:] = self._held[field][rows]

    def _read_until(self, stop: int, keep: int) -> None:
        """Reads on until the frame before `stop` is held; drops those before `keep`."""
        if keep < self._first:
            raise ValueError(f"frame {keep} was dropped, the first one held is {self._first}")
        new = []
        end = self._stop
        while end < stop:
            block = self._as_stored(next(self._blocks))
            for name, masks in self.observed.items():
                masks.append(block[mask_field(name)])
            new.append(block)
            end += len(block["time_s"])
        if not new:
            return
        dropped = keep - self._first if self._held else 0
        parts = [{f: a[dropped:] for f, a in self._held.items()}, *new] if self._held else new
        self._first += dropped
        self._held = {field: np.concatenate([p[field] for p in parts]) for field in new[0]}

    def _as_stored(self, frames: Frames) -> dict[str, np.ndarray]:
        """A block's fields, rounded as a store rounds them: training saw no others."""
        fields = {
            "time_s": frames.time_s,
            "targets": frames.targets,
            "target_mask": frames.target_mask,
        }
        for name, spec in self.modalities.items():
            mask = frames.masks[name]
            values = np.where(mask[:, None], frames.features[name], 0).astype(spec.dtype)
            if not np.isfinite(values).all():
                raise UserError(f"{self.path}: the encoder of {name} made values beyond float16")
            fields[name], fields[mask_field(name)] = values, mask
        return fields
