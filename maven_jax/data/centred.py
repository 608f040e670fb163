"""Features without the level of each recording: what differs between people, not within one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from maven_jax.store.reader import Store
from maven_jax.store.schema import ModalitySpec, VideoEntry, mask_field


class CentredStore:
    """Stands in for a store: of each video's features a share of their mean is taken away.

    The mean is that of the whole video's observed frames, so that overlapping windows agree. What
    another system predicted of a person is often too high or too low throughout; where videos
    differ in what is felt more than that, their means are worth keeping.

    Args:
        store: the features.
        share: of the mean, above 0 to 1.
        modalities: whose features; the others stay as they are.
    """

    def __init__(self, store: Store, share: float | int, modalities: Sequence[str]):
        self.path, self.modalities = store.path, store.modalities
        self.extra_targets = store.extra_targets
        self._store, self._share, self._names = store, share, tuple(modalities)
        self._levels: dict[str, dict[str, Float32[np.ndarray, "_"]]] = {}

    def read_into(
        self,
        spans: Sequence[tuple[VideoEntry, slice]],
        outputs: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        """See `Store.read_into`."""
        self._store.read_into(spans, outputs)
        for (entry, _), fields in zip(spans, outputs):
            for name, level in self._levels_of(entry).items():
                if name in fields:
                    seen = fields[mask_field(name)]
                    fields[name][seen] = fields[name][seen].astype(np.float32) - level

    def _levels_of(self, entry: VideoEntry) -> dict[str, Float32[np.ndarray, "_"]]:
        if entry.video not in self._levels:
            sums = self._store.video_sums(entry)
            self._levels[entry.video] = {
                name: np.float32(self._share) * np.asarray(sums[name]["mean"], np.float32)
                for name in self._names
            }
        return self._levels[entry.video]


def made_elsewhere(
    modalities: Mapping[str, ModalitySpec], single_vector: Collection[str]
) -> tuple[str, ...]:
    """The modalities whose features were imported, frame by frame.

    Those of this library's encoders are not among them: `predict` reads a video as it comes, and
    knows no mean before its end.
    """
    return tuple(
        name
        for name, spec in modalities.items()
        if spec.spec.get("encoder") == "imported"
        and spec.dtype != "uint8"
        and name not in single_vector
    )
