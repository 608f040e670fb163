"""A store of any size that takes no space: for measuring what is done with features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.store.moments import Moments
from maven_jax.store.reader import Store
from maven_jax.store.schema import ModalitySpec, VideoEntry, mask_field

# Widths of the features that the published encoders give.
MAVEN = {"visual": 1024, "audio": 768, "text": 768}
RJCMA = {"visual": 512, "audio": 128, "text": 768}
RJCA = {"visual": 49 * 512, "audio": 512}
# recipe -> widths of its features; end_to_end takes pixels, fine_tune a trained run, and systems
# has small forms of the others
WIDTHS: dict[str, dict[str, int]] = {
    "quickstart": MAVEN,
    "maven": MAVEN,
    "maven_released:mlp": MAVEN,
    "maven_released:beit": MAVEN,
    "rjcma": RJCMA,
    "lfan": RJCMA,
    "late_fusion": RJCMA,
    "grjca": RJCMA,
    "hgrjca": RJCMA,
    "tagf": RJCMA,
    "rjca": RJCA,
    "rjca:released": RJCA,
    "baseline": MAVEN,
    "features": MAVEN,
}
# So many frames differ; a prime, so that no window length divides it.
_FRAMES = 997


class RandomStore(Store):
    """A store in memory only: its features are the same few random frames again and again.

    Features have mean 0 and standard deviation 1, targets mean 0.
    """

    def __init__(self, videos: int, frames: int, widths: Mapping[str, int]):
        self.path, self.chunk_frames, self.fingerprint = Path("random"), 100, "random"
        self.modalities = {m: ModalitySpec(m, c, {"encoder": "random"}) for m, c in widths.items()}
        self.stored, self.extra_targets, self.face_searches = self.modalities, {}, []
        self.splits, self.dropped, self.provenance = ("train",), (), {}
        self.statistics = {
            m: Moments(videos * frames, np.zeros(c), np.ones(c))
            for m, c in {**widths, "targets": 2}.items()
        }
        entries = [
            VideoEntry(
                video=f"{i:03d}",
                split="train",
                num_frames=frames,
                first_record=i * -(-frames // self.chunk_frames),
                fps=30.0,
                duration_s=frames / 30,
                num_annotated=frames,
                stem=f"{i:03d}",
                observed=dict.fromkeys(widths, frames),
                nonfinite=dict.fromkeys(widths, 0),
                segments=((0, frames),),
            )
            for i in range(videos)
        ]
        self._videos = {"train": tuple(entries)}

    @cached_property
    def _frames(self) -> dict[str, Any]:
        """Field -> its values in the frames that differ."""
        rng = np.random.default_rng(0)
        frames: dict[str, Any] = {
            m: rng.normal(size=(_FRAMES, spec.dim)).astype(np.float16)
            for m, spec in self.modalities.items()
        }
        frames["targets"] = rng.uniform(-1, 1, (_FRAMES, 2)).astype(np.float32)
        frames |= {mask_field(m): np.ones(_FRAMES, bool) for m in self.modalities}
        frames["target_mask"] = np.ones(_FRAMES, bool)
        frames["segment_id"] = np.zeros(_FRAMES, np.int32)
        return frames

    def read_into(
        self,
        spans: Sequence[tuple[VideoEntry, slice]],
        outputs: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        for (entry, span), out in zip(spans, outputs):
            numbers = np.arange(span.start, span.stop, span.step)
            rows = (numbers + 31 * entry.first_record) % _FRAMES
            for field, array in out.items():
                if field == "time_s":
                    array[:] = numbers / 30
                else:  # straight into the array, which "raise" does not do
                    np.take(self._frames[field], rows, 0, array, mode="clip")
