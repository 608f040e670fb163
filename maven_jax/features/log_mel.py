"""Log-mel spectrograms of sound that is read as a stream.

Two kinds, each as the network behind it was trained on:

* `VggishMel`: AudioSet's definition (Hershey et al., ICASSP 2017). Magnitudes, 25 ms every 10 ms,
  HTK's mel scale, natural logarithm. No padding of the window: a column begins at its time.
* `TsavMel`: that of TSAV (Kuhnke et al., FG 2020), which RJCA takes over. Powers, 20 ms every
  10 ms, HTK's mel scale without area normalisation, decibels, standardised. A column's time is the
  middle of its window.

A column is computed once, however many examples hold it, and kept as long as one may need it.
Outside the sound everything is silence.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import ClassVar

import librosa
import numpy as np


class Mel(abc.ABC):
    """A kind of spectrogram.

    Attributes:
        sample_rate_hz: of the sound.
        hop: samples between columns; column k is the one of sample k * hop.
        before: how many samples ahead of its own a column's window begins.
        reach: samples in a column's window.
        bands: values of a column.
    """

    sample_rate_hz: ClassVar[int]
    hop: ClassVar[int]
    before: ClassVar[int]
    reach: ClassVar[int]
    bands: ClassVar[int]

    @abc.abstractmethod
    def columns(self, samples: np.ndarray) -> np.ndarray:
        """The columns whose whole windows lie in `samples` (m,): (n, bands) float32, unfinished."""

    def finish(self, examples: np.ndarray) -> np.ndarray:
        """The last step, on whole examples (n, columns, bands)."""
        return examples


def periodic_hann(length: int) -> np.ndarray:
    """One period of a raised cosine, without the zero at its end."""
    return 0.5 - 0.5 * np.cos(2 * np.pi / length * np.arange(length))


def vggish_mel_matrix() -> np.ndarray:
    """(257, 64) weights of the bins of a 512-sample transform at 16 kHz in 64 mel bands.

    Triangles of height 1, linear in mel (not in Hz), with centres evenly spaced in mel from 125 to
    7500 Hz. The constant part of the signal counts in none.
    """

    def mel(hz: np.ndarray) -> np.ndarray:
        return 1127.0 * np.log1p(hz / 700.0)

    low, high = mel(np.array([125.0, 7500.0]))
    edges = np.linspace(low, high, 64 + 2)
    bins = mel(np.linspace(0.0, 8000.0, 257))[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    weights = np.maximum(weights, 0.0)
    weights[0] = 0.0
    return weights


class VggishMel(Mel):
    """VGGish's: log(mel magnitude + 0.01) of 16 kHz sound."""

    sample_rate_hz = 16000
    hop = 160
    before = 0
    reach = 400
    bands = 64
    transform = 512
    offset = 0.01

    def __init__(self) -> None:
        self._window = periodic_hann(self.reach)
        self._weights = vggish_mel_matrix()

    def columns(self, samples: np.ndarray) -> np.ndarray:
        """(m,) samples from a column's first on → (n, 64) float32."""
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.reach)[:: self.hop]
        magnitudes = np.abs(np.fft.rfft(windows * self._window, self.transform))
        return np.log(magnitudes @ self._weights + self.offset).astype(np.float32)


class TsavMel(Mel):
    """TSAV's: decibels of mel powers of 44.1 kHz sound.

    The network was trained on examples in which nothing is more than 80 dB below the loudest value.
    So values are limited per example, then standardised by the release's mean and deviation.
    """

    sample_rate_hz = 44100
    hop = 441
    before = 512
    reach = 1024
    bands = 64
    window = 882
    floor = 1e-10
    top_db = 80.0
    mean_db = -14.8
    std_db = 19.895

    def __init__(self) -> None:
        self._weights = librosa.filters.mel(
            sr=self.sample_rate_hz, n_fft=self.reach, n_mels=self.bands, htk=True, norm=None
        )

    def columns(self, samples: np.ndarray) -> np.ndarray:
        """(m,) samples from a column's first on → (n, 64) float32 dB."""
        spectra = librosa.stft(
            samples,
            n_fft=self.reach,
            hop_length=self.hop,
            win_length=self.window,
            window="hann",
            center=False,
        )
        power = self._weights @ np.square(np.abs(spectra))
        return librosa.power_to_db(power, ref=1.0, amin=self.floor, top_db=None).T

    def finish(self, examples: np.ndarray) -> np.ndarray:
        """Limits values far below each example's loudest one, and standardises."""
        loudest = examples.max(axis=(1, 2), keepdims=True)
        limited = np.maximum(examples, loudest - np.float32(self.top_db))
        return (limited - np.float32(self.mean_db)) / np.float32(self.std_db)


class MelStream:
    """The columns of a sound, read forwards.

    Attributes:
        num_samples: of the sound; None until its end has been read.
    """

    # Columns are computed in groups of so many, whatever the lengths of the sound's blocks, so that
    # their bits depend on the sound alone.
    _GROUP = 256

    def __init__(self, mel: Mel, blocks: Iterator[np.ndarray]) -> None:
        """Reads nothing yet.

        Args:
            mel: the kind of spectrogram.
            blocks: mono float32 blocks of any lengths at `mel.sample_rate_hz`.
        """
        self._mel = mel
        self.num_samples: int | None = None
        # The first column whose window reaches into the sound.
        self._start = self._stop = (mel.before - mel.reach) // mel.hop + 1
        self._kept: list[np.ndarray] = []
        self._groups = self._computed(blocks)
        self._silence = mel.columns(np.zeros(mel.reach, np.float32))[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """The columns `start … stop - 1`, (stop - start, bands) float32; drops those before."""
        while self._stop < stop and (group := next(self._groups, None)) is not None:
            self._kept.append(group)
            self._stop += len(group)
            self._drop_before(start)
        self._drop_before(start)
        out = np.tile(self._silence, (stop - start, 1))
        first = self._start
        for group in self._kept:
            a, b = max(first, start), min(first + len(group), stop)
            if a < b:
                out[a - start : b - start] = group[a - first : b - first]
            first += len(group)
        return out

    def _drop_before(self, start: int) -> None:
        while self._kept and self._start + len(self._kept[0]) <= start:
            self._start += len(self._kept.pop(0))

    def _computed(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Groups of all columns that reach into the sound; sets `num_samples` at the end."""
        mel = self._mel
        advance = self._GROUP * mel.hop
        needed = advance - mel.hop + mel.reach
        lead = mel.before - self._start * mel.hop
        pending, count = np.zeros(lead, np.float32), 0
        for block in blocks:
            count += len(block)
            pending = np.concatenate([pending, block.astype(np.float32, copy=False)])
            while len(pending) >= needed:
                yield mel.columns(pending[:needed])
                pending = pending[advance:]
        self.num_samples = count
        # Behind the end, too, columns count as long as their windows reach into the sound.
        rest = -(-len(pending) // mel.hop) if count else 0
        for first in range(0, rest, self._GROUP):
            part = pending[first * mel.hop :][:needed]
            group = mel.columns(np.concatenate([part, np.zeros(needed - len(part), np.float32)]))
            yield group[: rest - first]
