"""openSMILE's low-level descriptors of a sound (kind `opensmile`), by audEERING's own package.

The package is an extra: `pip install 'maven_jax[opensmile]'`. Its licence allows private, research
and teaching use; commercial use needs audEERING's permission.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import numpy as np

from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.model_files import plain_identity
from maven_jax.media.align import AlignedStream
from maven_jax.media.sound import Sound

_RATE_HZ = 16000
_STEP_S = 0.01
# A descriptor's nominal window; the package gives its start.
_WINDOW_S = 0.02


class OpenSmile:
    """Descriptors at 100 Hz, interpolated to the frames' times.

    Attributes:
        dim: channels of a feature.
        spec: identity of the features, for the store; names the channels.
        stored_dtype: of the features in the store.
    """

    # Frequencies and their slopes differ by many orders of magnitude.
    stored_dtype = "float32"

    def __init__(self, *, feature_set: str) -> None:
        """Takes the name of one of openSMILE's feature sets, e.g. "eGeMAPSv02" (25 channels).

        Raises:
            UserError: the package is not installed, or has no such set.
        """
        try:
            import opensmile
        except ImportError:
            raise UserError(
                "encoders.audio.kind opensmile needs the package of that name: pip install "
                "opensmile (audEERING's licence: private, research and teaching use)"
            ) from None
        sets = {s.value.rpartition("/")[2]: s for s in opensmile.FeatureSet}
        if feature_set not in sets:
            raise UserError(
                f"encoders.audio.feature_set {feature_set!r}: expected one of {', '.join(sets)}"
            )
        self._smile = opensmile.Smile(
            feature_set=sets[feature_set],
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )
        self.dim = len(self._smile.feature_names)
        settings = {
            "feature_set": feature_set,
            "sample_rate_hz": _RATE_HZ,
            "channels": list(self._smile.feature_names),
        }
        spec = plain_identity("opensmile", f"low-level descriptors of {feature_set}", settings)
        versions = spec["versions"] | {"opensmile": importlib.metadata.version("opensmile")}
        self.spec = spec | {"versions": versions}

    def stream(self, sound: Sound | None, times_s: np.ndarray, clock: Clock) -> AlignedStream:
        """Features to be read at frames of the times (t,), masked where there is no sound."""
        blocks = iter(()) if sound is None else self._encode(sound, clock)
        return AlignedStream(blocks, dim=self.dim, step_s=_STEP_S)

    def _encode(self, sound: Sound, clock: Clock) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Times of the windows' middles and descriptors; smoothing needs the sound as a whole."""
        with clock("decode"):
            samples = np.concatenate([np.zeros(0, np.float32), *sound.blocks(_RATE_HZ)])
            if len(samples) < _RATE_HZ // 10:  # openSMILE makes nothing of so little
                return
            table = self._smile.process_signal(samples, _RATE_HZ)
            starts = table.index.get_level_values("start").total_seconds().to_numpy()
            values = np.nan_to_num(table.to_numpy(np.float32))
        yield sound.start_s + starts + _WINDOW_S / 2, values
