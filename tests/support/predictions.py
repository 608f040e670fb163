"""Predictions made by hand, for tests of what people see of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from maven_jax.evaluation.calibration import box_filter
from maven_jax.store.schema import ExtraTarget
from maven_jax.video.extra_curves import ExtraCurves
from maven_jax.video.prediction import VideoPrediction, Word

HOSTILE = (
    "$\\frac$ </script x></script><script>window.hurt=1</script>"
    "<img src=x onerror=window.hurt=2>&amp;"
)
_SAID = "so this is what a good day looks like then it rained and we all went home"


def prediction_of(
    n: int = 240,
    fps: float | int = 24,
    *,
    name: str = "clip.mp4",
    source: Path = Path("clip.mp4"),
    label: str = "",
    hostile: bool = False,
) -> VideoPrediction:
    """A wandering track with noise, a stretch without a face, and one of which nothing is known."""
    time_s = np.arange(n) / fps
    slow = 2 * np.pi * np.arange(n) / max(n, 1)
    noise = np.random.default_rng(0).normal(0, 0.06, (n, 2))
    va = np.stack([0.6 * np.sin(slow + 0.4), 0.5 * np.cos(1.5 * slow) + 0.1], axis=1) + noise
    va = np.clip(va, -1, 1).astype(np.float32)
    smoothed = box_filter(va, (9, 15))
    found = np.ones(n, bool)
    found[n // 2 : n // 2 + n // 8] = False
    unknown = slice(n // 2 + n // 16, n // 2 + n // 10)
    va[unknown] = smoothed[unknown] = np.nan
    observed = {"visual": found, "audio": np.ones(n, bool), "text": np.arange(n) % 100 < 70}
    observed["audio"][unknown] = False
    observed["text"][unknown] = False
    boxes = np.stack([60 + 30 * np.sin(slow), 40 + 5 * np.cos(slow), 0 * slow, 0 * slow], axis=1)
    boxes[:, 2:] = 70
    boxes[~found] = np.nan
    texts = _SAID.split()
    if hostile:
        texts[1] = HOSTILE
    step = n / fps / (len(texts) + 1)
    words = tuple(Word(0.2 + i * step, 0.2 + i * step + 0.8 * step, t) for i, t in enumerate(texts))
    shares = {"visual": 0.5, "audio": 0.3, "text": 0.1}
    return VideoPrediction(
        name=HOSTILE if hostile else name,
        source=source,
        track="",
        frame=np.arange(n),
        time_s=time_s,
        va=va,
        smoothed=smoothed,
        face_found=found,
        face_confidence=np.where(found, 0.97, 0).astype(np.float32),
        boxes=boxes.astype(np.float32),
        observed=observed,
        words=words,
        contributions={m: (va * share).astype(np.float32) for m, share in shares.items()},
        label=label,
        notes=(HOSTILE,) if hostile else ("No face in 30 frames.",),
        facts={"duration_s": n / fps, "real_time_factor": 0.31, "peak_memory_mib": 812.0},
    )


def beside(n: int) -> dict[str, ExtraCurves]:
    """Dominance that rises from -1 to 1, and one of two expressions in the last quarter."""
    rising = np.linspace(-1, 1, n, dtype=np.float32)[:, None]
    happy = np.where(rising > 0.5, np.float32(0.75), np.float32(0.25))
    return {
        "dominance": ExtraCurves(ExtraTarget("dominance", "continuous", ("dominance",)), rising),
        "expr": ExtraCurves(
            ExtraTarget("expr", "classes", ("Calm", "=Happy")),
            np.concatenate([1 - happy, happy], axis=1),
        ),
    }


def without_frames(prediction: VideoPrediction, n: int) -> VideoPrediction:
    """The first n frames of a prediction."""
    first = {
        f.name: value[:n]
        for f in dataclasses.fields(prediction)
        if isinstance(value := getattr(prediction, f.name), np.ndarray)
    }
    by_name = {
        key: {m: values[:n] for m, values in getattr(prediction, key).items()}
        for key in ("observed", "contributions")
    }
    return dataclasses.replace(prediction, **first, **by_name)


def stepped() -> VideoPrediction:
    """240 frames at 24 a second, where valence steps down at a quarter, arousal at three quarters.

    Valence 0.8, then -0.6; arousal 0.3, then -0.9. What each modality adds differs in all six.
    """
    whole, quarter = prediction_of(), np.arange(240) // 60
    va = np.stack([np.where(quarter < 1, 0.8, -0.6), np.where(quarter < 3, 0.3, -0.9)], axis=1)
    added = {"visual": (0.5, -0.2), "audio": (0.25, -0.6), "text": (-0.4, 0.1)}
    return dataclasses.replace(
        whole,
        va=va.astype(np.float32),
        smoothed=None,
        words=(),
        face_found=np.ones(240, bool),
        contributions={
            m: np.tile(np.array(pair, np.float32), (240, 1)) for m, pair in added.items()
        },
    )
