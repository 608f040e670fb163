"""Words from speech: a Whisper model in a local folder, run by transformers and torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.errors import UserError
from maven_jax.media.sound import Sound
from maven_jax.media.transcripts import Segment
from maven_jax.progress import say

_RATE_HZ = 16000
_WINDOW_S = 30.0


def transcribe(sound: Sound, folder: Path) -> tuple[Segment, ...]:
    """What is said, in segments with times on the clock of the video's frames.

    The sound is heard half a minute at a time, so memory does not grow with its length.

    Args:
        sound: of the video.
        folder: a Whisper model as `transformers` saves it (weights, config, tokenizer).

    Raises:
        UserError: torch is not installed, or the folder holds no such model.
    """
    processor, model = _open(folder)
    segments = in_windows(sound, lambda samples: _listen(processor, model, samples))
    say(f"speech recognised: {len(segments)} segments")
    return segments


def in_windows(sound: Sound, listen: Callable[[np.ndarray], list[Segment]]) -> tuple[Segment, ...]:
    """The segments of a whole sound, heard window by window.

    Args:
        sound: of any length.
        listen: takes samples (n,), at most half a minute at 16 kHz, to the segments in them, with
            times in seconds from the first sample. A last segment that reaches the end of the
            window and begins in its last third is heard again from its own beginning.
    """
    size = round(_WINDOW_S * _RATE_HZ)
    pending, first, blocks = np.zeros(0, np.float32), 0, sound.blocks(_RATE_HZ)
    ended, segments = False, []
    while True:
        while len(pending) < size and not ended:
            block = next(blocks, None)
            ended = block is None
            pending = pending if block is None else np.concatenate([pending, block])
        if not len(pending):
            return tuple(s for s in segments if s.text)
        heard = listen(pending[:size])
        step = min(size, len(pending))
        if (len(pending) > size or not ended) and len(heard) > 1:
            begun = round(heard[-1].start_s * _RATE_HZ)
            if heard[-1].end_s >= _WINDOW_S - 1 and begun > size * 2 // 3:
                heard, step = heard[:-1], begun
        at_s = sound.start_s + first / _RATE_HZ
        segments += [Segment(at_s + s.start_s, at_s + s.end_s, s.text) for s in heard]
        pending, first = pending[step:], first + step


def _open(folder: Path) -> tuple[Any, Any]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --asr takes a folder with a Whisper model")
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "--asr needs torch, which is not installed: pip install torch (or write a transcript "
            "with another tool and give it by --transcript)"
        )
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    try:
        processor = WhisperProcessor.from_pretrained(folder, local_files_only=True)
        model = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever transformers makes of missing or damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: no Whisper model: {reason}") from None
    return processor, model.eval()


def _listen(processor: Any, model: Any, samples: np.ndarray) -> list[Segment]:
    """The segments of one window."""
    inputs = processor(samples, sampling_rate=_RATE_HZ, return_tensors="pt")
    tokens = model.generate(inputs.input_features, return_timestamps=True)
    text = processor.tokenizer.decode(tokens[0], output_offsets=True, skip_special_tokens=True)
    length_s, segments = len(samples) / _RATE_HZ, []
    for part in text["offsets"]:
        a, b = part["timestamp"]
        a = min(max(float(a), 0.0), length_s)
        b = length_s if b is None else min(max(float(b), a), length_s)
        if b > a:  # else imagined in the silence behind a short sound
            segments.append(Segment(a, b, part["text"].strip()))
    return segments
