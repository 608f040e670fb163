"""The voice of a synthetic person: harmonics of a gliding pitch, syllables, breath.

Arousal raises pitch, loudness and syllable rate, brightens the spectrum and makes it hoarse;
valence moves a formant a little. Normalising a file's loudness, as speech encoders do, removes only
one of these cues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_prep.synth.curves import Shown

NUM_HARMONICS = 24
HOP_S = 0.005  # the controls' step; they are interpolated linearly between


@dataclass(frozen=True)
class Timbre:
    """What makes a person's voice their own, whatever they feel.

    Attributes:
        pitch_hz: pitch at arousal 0.
        tilt: offset of the spectral slope.
        formant: factor of the formant's frequency.
        breath: level of the noise.
    """

    pitch_hz: float
    tilt: float
    formant: float
    breath: float


def draw_timbre(rng: np.random.Generator, offsets: float = 1.0) -> Timbre:
    """Draws a voice; `offsets` multiplies how far voices differ in what they show."""
    return Timbre(
        pitch_hz=float(170 * np.exp(rng.normal(0, 0.06 * offsets))),
        tilt=float(rng.normal(0, 0.06 * offsets)),
        formant=float(np.exp(rng.normal(0, 0.05 * offsets))),
        breath=float(rng.uniform(0.025, 0.04)),
    )


@dataclass(frozen=True)
class Controls:
    """A voice on its own slow clock: (k,) each, and (k, harmonics) amplitudes."""

    pitch_hz: np.ndarray
    amplitude: np.ndarray
    breath: np.ndarray


def voice_controls(
    timbre: Timbre,
    shown: Shown,
    speaking: Float[np.ndarray, "k"],
    time_s: Float[np.ndarray, "k"],
) -> Controls:
    """What the throat does at `time_s`, given what the voice shows and when it speaks (0 … 1)."""
    valence, arousal = shown.at(time_s).T
    arousal = np.clip(arousal, -1.2, 1.2)
    pitch = timbre.pitch_hz * 2.0 ** (1.05 * arousal)
    rate_hz = 3.6 * 2.0 ** (0.9 * arousal)
    syllable = 0.5 - 0.5 * np.cos(2 * np.pi * np.cumsum(rate_hz) * HOP_S)
    depth = np.clip(0.55 + 0.35 * arousal, 0.1, 0.95)
    envelope = speaking * (1 - depth + depth * syllable)
    loudness = 10.0 ** (0.3 * (arousal - 0.6))
    tilt = 1.6 - 1.3 * arousal + timbre.tilt
    order = np.arange(1, NUM_HARMONICS + 1)
    formant_hz = 1100 * timbre.formant * 2.0 ** (0.2 * np.clip(valence, -1.5, 1.5))
    octaves = np.log2(order * pitch[:, None] / formant_hz[:, None])  # (k, harmonics)
    resonance = 0.5 + 0.8 * np.exp(-0.5 * (octaves / 0.45) ** 2)
    spectrum = order ** -tilt[:, None] * resonance
    spectrum *= (loudness * envelope)[:, None]
    # Excited voices are hoarse: noise, at all frequencies, that overtakes the harmonics.
    hoarse = 6 * np.clip(arousal + 0.3, 0.0, 2.0) ** 1.5
    breath = timbre.breath * (0.25 + speaking * (0.2 + hoarse))
    return Controls(pitch, spectrum, breath)


def speaking_curve(
    turns: list[tuple[float, float]], time_s: Float[np.ndarray, "k"]
) -> Float[np.ndarray, "k"]:
    """1 while someone speaks, 0 otherwise, with soft edges of 40 ms."""
    level = np.zeros(time_s.size)
    for start_s, end_s in turns:
        ramp = np.minimum(time_s - start_s, end_s - time_s) / 0.04
        level = np.maximum(level, np.clip(ramp, 0.0, 1.0))
    return level


def synthesise(
    rng: np.random.Generator,
    voices: list[tuple[Timbre, Shown, list[tuple[float, float]]]],
    seconds: float | int,
    sample_rate_hz: int,
) -> Float[np.ndarray, "samples"]:
    """The sound of a video: the sum of its voices, and a quiet room.

    Args:
        rng: the stream of breath and room noise.
        voices: a timbre, what it shows, and the (start_s, end_s) when it speaks.
        seconds: duration.
        sample_rate_hz: of the result.

    Returns:
        (samples,) float32 within (-1, 1).
    """
    num = round(seconds * sample_rate_hz)
    hop = round(HOP_S * sample_rate_hz)
    hops = -(-num // hop)
    time_s = np.arange(hops + 1) * HOP_S
    controls = [
        voice_controls(timbre, shown, speaking_curve(turns, time_s), time_s)
        for timbre, shown, turns in voices
    ]
    phases = [0.0] * len(voices)
    sound = np.empty(hops * hop, np.float32)
    block = 1000  # hops: 5 s, so that hours of sound need no more memory than seconds
    for start in range(0, hops, block):
        stop = min(start + block, hops)
        mixed = 0.003 * rng.standard_normal((stop - start, hop))
        for i, control in enumerate(controls):
            part = Controls(
                *(c[start : stop + 1] for c in (control.pitch_hz, control.amplitude,
                                                control.breath))
            )  # fmt: skip
            voice, phases[i] = _voice_block(rng, part, phases[i], hop, sample_rate_hz)
            mixed += voice
        sound[start * hop : stop * hop] = np.tanh(mixed).ravel()
    return sound[:num]


def _voice_block(
    rng: np.random.Generator,
    part: Controls,
    phase_start: float | int,
    hop: int,
    sample_rate_hz: int,
) -> tuple[Float[np.ndarray, "hops hop"], float]:
    """A stretch of one voice, and the phase at which the next one goes on."""
    ramp = np.arange(hop) / hop  # (hop,)

    def fill(control: np.ndarray) -> np.ndarray:  # (hops + 1,) -> (hops, hop)
        return control[:-1, None] + np.diff(control)[:, None] * ramp

    pitch = fill(part.pitch_hz)
    phase = phase_start + 2 * np.pi * np.cumsum(pitch.ravel()).reshape(pitch.shape) / sample_rate_hz
    # cos(kx) = 2 cos(x) cos((k-1)x) - cos((k-2)x): one cosine serves all harmonics.
    double = 2 * np.cos(phase)
    before, now = np.ones_like(phase), double / 2
    sound = fill(part.breath) * rng.standard_normal(phase.shape)
    for k in range(NUM_HARMONICS):
        audible = (k + 1) * part.pitch_hz < 0.45 * sample_rate_hz
        sound += 0.12 * fill(part.amplitude[:, k] * audible) * now
        before, now = now, double * now - before
    return sound, float(phase.ravel()[-1] % (2 * np.pi))
