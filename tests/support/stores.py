"""Small stores for tests: quick to write, and a model can learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maven_jax.store.reader import Store
from maven_jax.store.schema import ExtraTarget, Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter

# Learnable from the features: a third dimension, the quadrant, and two yes-or-nos.
EXTRA_TARGETS = (
    ExtraTarget("dominance", "continuous", ("dominance",)),
    ExtraTarget("expr", "classes", ("Sad", "Calm", "Angry", "Happy")),
    ExtraTarget("au", "binary", ("AU1", "AU12")),
)


def write_small_store(
    path: Path,
    *,
    videos: int = 6,
    frames: int = 250,
    modalities: Mapping[str, int] = {"visual": 8, "audio": 6, "text": 4},
    seed: int = 0,
    splits: Sequence[str] = ("train", "validation"),
    chunk_frames: int = 100,
    shard_bytes: int = 2**15,
    unannotated: float = 0.02,
    unobserved: float = 0.02,
    extra_targets: Sequence[ExtraTarget] = (),
    encoder: str = "random",
    offset_std: float = 0.0,
) -> Store:
    """Writes a store whose targets are a smooth function of its features, with noise.

    Video i of a split has `frames + 7 i` frames at 25 fps; annotations and observations are
    missing at random. Each modality holds valence and arousal in a random projection.

    Args:
        path: folder to make.
        videos: in the first split; half as many, at least one, in every other.
        frames: frames of the shortest video.
        modalities: name -> width.
        seed: same seed, same store.
        splits: their names.
        chunk_frames: frames per record.
        shard_bytes: small, so that there are several shards.
        unannotated: share of frames without annotation.
        unobserved: share of frames in which a modality is missing.
        extra_targets: of `EXTRA_TARGETS`; the first 20 frames of each video are without.
        encoder: what is said to have made the features.
        offset_std: of an offset of each video's features.
    """
    rng = np.random.default_rng(seed)
    mixing = {m: rng.normal(size=(2, dim)) for m, dim in modalities.items()}
    counts = {s: videos if i == 0 else max(1, videos // 2) for i, s in enumerate(splits)}
    planned = [
        PlannedVideo(f"{split}_{i:02d}", split, frames + 7 * i, f"{split}_{i:02d}")
        for split in splits
        for i in range(counts[split])
    ]
    writer = StoreWriter(
        path,
        videos=planned,
        modalities={
            **{m: ModalitySpec(m, dim, {"encoder": encoder}) for m, dim in modalities.items()},
            **{t.name: ModalitySpec.of_target(t) for t in extra_targets},
        },
        chunk_frames=chunk_frames,
        shard_bytes=shard_bytes,
        provenance={"made_by": "write_small_store", "seed": seed},
    )
    for video in planned:
        n = video.num_frames
        time_s = np.arange(n) / 25.0
        # Sums of slow sines with random phases, squashed: smooth, within -1 to 1, not constant.
        phase = rng.uniform(0, 2 * np.pi, size=(3, 1, 2))
        rate = rng.uniform(0.3, 2.0, size=(3, 1, 2))
        targets = np.tanh(np.sin(rate * time_s[:, None] + phase).sum(axis=0))
        block = Frames(
            time_s=time_s,
            targets=targets.astype(np.float32),
            target_mask=rng.uniform(size=n) >= unannotated,
            segment_id=(np.arange(n) // 60).astype(np.int32),
            features={
                m: (targets @ mixing[m] + 0.3 * rng.normal(size=(n, dim)) + 1.0).astype(np.float32)
                for m, dim in modalities.items()
            },
            masks={m: rng.uniform(size=n) >= unobserved for m in modalities},
        )
        if offset_std:
            for x in block.features.values():
                x += offset_std * rng.normal(size=x.shape[1]).astype(np.float32)
        quadrants = targets > 0
        extra = {
            "dominance": targets.mean(axis=1, keepdims=True),
            "expr": quadrants @ [[1.0], [2.0]],
            "au": np.where(np.arange(2 * n).reshape(n, 2) % 11 == 0, -1.0, quadrants),
        }
        for target in extra_targets:
            block.features[target.name] = extra[target.name].astype(np.float32)
            block.masks[target.name] = np.arange(n) >= 20
        if not writer.is_done(video.video):
            with writer.video(video.video, 25.0, n / 25.0) as out:
                out.append(block)
    return writer.finish()
