"""Time and memory of `maven-jax predict` on clips of several lengths and sizes of picture.

    python -m benchmarks.predict_times --clip CLIP --out runs/predict_times -- [OPTIONS OF PREDICT]

Plays a recording again and again, scaled, until a clip has the length; then runs the whole command
as a user does, twice: the first time compiles what the cache lacks, the second is measured, wall
time with everything in it. What stands behind `--` goes to `predict`, for instance a run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av

from benchmarks.systems import machine
from maven_jax.errors import UserError

MINUTES = (1.0, 10.0, 60.0)
HEIGHTS = (360, 720, 1080)
_RATE_HZ = 16000


def loop(source: Path, target: Path, seconds: float, height: int) -> None:
    """A clip of H.264 and AAC that plays a recording again and again, so long and so high."""
    with av.open(str(source)) as read, av.open(str(target), "w") as out:
        stream = read.streams.video[0]
        fps = stream.average_rate or Fraction(25)
        width = round(stream.width * height / stream.height / 2) * 2
        video = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        pictures = [f.reformat(width, height, "yuv420p") for f in read.decode(stream)]
        sound, frames = None, []
        if read.streams.audio:
            read.seek(0)
            resampler = av.AudioResampler("fltp", "mono", _RATE_HZ)
            frames = [r for f in read.decode(audio=0) for r in resampler.resample(f)]
            sound = out.add_stream("aac", rate=_RATE_HZ, layout="mono")
        wanted, pts = round(seconds * fps), 0
        for i in range(wanted):
            picture = pictures[i % len(pictures)]
            picture.pts, picture.time_base = i, 1 / fps
            picture.pict_type = av.video.frame.PictureType.NONE
            out.mux(video.encode(picture))
            while sound is not None and pts < (i + 1) / fps * _RATE_HZ:
                for frame in frames:
                    frame.pts, frame.time_base = pts, Fraction(1, _RATE_HZ)
                    pts += frame.samples
                    out.mux(sound.encode(frame))
        out.mux(video.encode())
        if sound is not None:
            out.mux(sound.encode())


def run(clip: Path, out: Path, options: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak MiB of one command."""
    command = [sys.executable, "-m", "maven_jax", "predict", str(clip), "--out", str(out)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise UserError(f"{clip}: {(told.strip() or 'predict failed').splitlines()[-1]}")
    scale = 1 if sys.platform == "darwin" else 1024
    return (
        time.perf_counter() - began,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss * scale / (1 << 20),
    )


def main() -> int:
    """Prints a row for each clip."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--clip", type=Path, required=True, help="recording to play again and again")
    p.add_argument("--out", type=Path, default=Path("runs/predict_times"))
    p.add_argument("--minutes", default=",".join(f"{m:g}" for m in MINUTES))
    p.add_argument("--heights", default=",".join(map(str, HEIGHTS)), help="of the pictures")
    p.add_argument("options", nargs="*", help="of predict, behind --")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}; predict {' '.join(args.options)}")
    print("minutes  height    wall s  processor s  peak MiB  clip s per wall s", flush=True)
    warm = False
    for minutes in map(float, args.minutes.split(",")):
        for height in map(int, args.heights.split(",")):
            clip = args.out / f"{minutes:g}min_{height}p.mp4"
            if not clip.exists():
                partial = clip.with_suffix(".partial.mp4")
                loop(args.clip, partial, 60 * minutes, height)
                partial.rename(clip)
            out = args.out / clip.stem
            if not warm:
                run(clip, out, args.options)
                warm = True
            wall, cpu, peak = run(clip, out, args.options)
            faster = 60 * minutes / wall
            print(f"{minutes:7g}{height:8d}{wall:10.1f}{cpu:13.1f}{peak:10.0f}{faster:19.2f}")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
