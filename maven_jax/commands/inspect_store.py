"""`maven-jax inspect STORE`: what a feature store holds, and what is odd about it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from rich.table import Table

from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError, listing
from maven_jax.progress import console, say
from maven_jax.store.reader import Store
from maven_jax.store.schema import TARGETS, Frames, VideoEntry

# A modality that is observed in less than this share of a split's frames is worth a line.
LITTLE_OBSERVED = 0.5


def summarize(store: Store) -> dict[str, Any]:
    """Everything that `inspect` shows, as JSON."""
    return {
        "path": str(store.path),
        "fingerprint": store.fingerprint,
        "chunk_frames": store.chunk_frames,
        "untrained": store.untrained,
        "modalities": {
            name: {"dim": m.dim, "dtype": m.dtype, "untrained": m.untrained, "spec": m.spec}
            for name, m in store.modalities.items()
        },
        "extra_targets": {
            name: {"kind": t.kind, "labels": t.labels} for name, t in store.extra_targets.items()
        },
        "splits": {split: _split(store, split) for split in store.splits},
        "statistics": {name: _moments(store, name) for name in store.statistics},
        "dropped": [{"video": video, "reason": reason} for video, reason in store.dropped],
        "problems": problems(store),
        "provenance": store.provenance,
    }


def _split(store: Store, split: str) -> dict[str, Any]:
    entries, shards = store.videos(split), store.shards(split)
    frames = sum(e.num_frames for e in entries)
    return {
        "videos": len(entries),
        "frames": frames,
        "hours": sum(e.duration_s for e in entries) / 3600,
        "fps": sorted({round(e.fps, 2) for e in entries}),
        "annotated": sum(e.num_annotated for e in entries) / frames,
        "observed": {m: sum(e.observed[m] for e in entries) / frames for m in store.stored},
        "nonfinite": {m: sum(e.nonfinite[m] for e in entries) for m in store.modalities},
        "shards": len(shards),
        "records": sum(s["records"] for s in shards),
        "bytes": sum(s["bytes"] for s in shards),
    }


def _moments(store: Store, name: str) -> dict[str, Any]:
    moments = store.statistics[name]
    summary: dict[str, Any] = {"count": moments.count}
    if moments.count:
        summary |= {
            "mean_min": float(moments.mean.min()),
            "mean_max": float(moments.mean.max()),
            "std_min": float(moments.std.min()),
            "std_median": float(np.median(moments.std)),
            "std_max": float(moments.std.max()),
            "constant": int((moments.std == 0).sum()),
        }
    if name == TARGETS:
        summary |= {"mean": moments.mean.tolist(), "std": moments.std.tolist()}
    return summary


def problems(store: Store) -> list[str]:
    """What a user should know before training on the store, in one line each."""
    lines = []
    names = [m.name for m in store.modalities.values() if m.untrained]
    if names:
        lines.append(f"encoders with random weights: {', '.join(names)}; for trying out only")
    lines += [
        f"{split}: no videos" for split in ("train", "validation") if split not in store.splits
    ]
    for split in store.splits:
        entries = store.videos(split)
        frames = sum(e.num_frames for e in entries)
        if split != "test":
            bare = [e.video for e in entries if e.num_annotated == 0]
            lines += [f"{split}: no frame of {video} is annotated" for video in bare]
        for m in store.modalities:
            blind = [e.video for e in entries if e.observed[m] == 0]
            if blind:
                lines.append(f"{split}: {m} is never observed in {listing(blind, 3)}")
            share = sum(e.observed[m] for e in entries) / frames
            if share < LITTLE_OBSERVED:
                lines.append(f"{split}: {m} is observed in {share:.1%} of the frames")
            nonfinite = sum(e.nonfinite[m] for e in entries)
            if nonfinite:
                lines.append(f"{split}: {nonfinite:,} frames of {m} held NaN or infinity: masked")
    for name, moments in store.statistics.items():
        constant = int((moments.std == 0).sum())
        if moments.count and constant:
            lines.append(
                f"{name}: {constant} of {len(moments.std)} never change in the training set"
            )
    if store.dropped:
        lines.append(f"{len(store.dropped)} videos could not be stored")
    return lines


def show(store: Store, summary: dict[str, Any]) -> None:
    """Prints the summary as tables."""
    say(f"{store.path}: chunks of {store.chunk_frames} frames, {store.fingerprint[:12]}")
    table = Table("modality", "features", "dtype", "encoder", "source", "weights")
    for name, m in store.modalities.items():
        weights = "untrained" if m.untrained else str(m.spec.get("sha256") or "–")[:12]
        cells = [m.dim, m.dtype, m.spec.get("encoder", "–"), m.spec.get("source") or "–", weights]
        table.add_row(name, *(str(cell) for cell in cells))
    console.print(table)

    table = Table("", *store.splits)
    splits = list(summary["splits"].values())
    for key in ("videos", "frames", "shards", "records"):
        table.add_row(key, *(f"{s[key]:,}" for s in splits))
    table.add_row("hours", *(f"{s['hours']:.2f}" for s in splits))
    table.add_row("fps", *(_range(s["fps"]) for s in splits))
    table.add_row("MB", *(f"{s['bytes'] / 1e6:,.1f}" for s in splits))
    table.add_row("annotated", *(f"{s['annotated']:.1%}" for s in splits))
    for m in store.modalities:
        table.add_row(f"{m} observed", *(f"{s['observed'][m]:.1%}" for s in splits))
    for m in store.extra_targets:
        table.add_row(f"{m} annotated", *(f"{s['observed'][m]:.1%}" for s in splits))
    console.print(table)

    table = Table("training statistics", "frames", "mean", "std (median)")
    for name, s in summary["statistics"].items():
        if s["count"]:
            mean = f"{s['mean_min']:.3g} to {s['mean_max']:.3g}"
            std = f"{s['std_min']:.3g} to {s['std_max']:.3g} ({s['std_median']:.3g})"
            table.add_row(name, f"{s['count']:,}", mean, std)
    console.print(table)
    for search in store.face_searches:
        say(
            f"faces of {search['videos']:,} videos: {search['face']} by {search['detector']}, "
            f"smallest {search['smallest']:g}, threshold {search['threshold'] or 'its own'}, "
            f"most {search['most']}, every {search['every']}"
        )
    for video, reason in store.dropped:
        say(f"dropped: {video} ({reason})")
    for problem in summary["problems"]:
        say(f"note: {problem}")


def _range(values: list[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def find_video(store: Store, name: str) -> VideoEntry:
    """The entry of a video, whatever split it is in.

    Raises:
        UserError: the store has no such video.
    """
    for split in store.splits:
        for entry in store.videos(split):
            if entry.video == name:
                return entry
    reason = dict(store.dropped).get(name)
    raise UserError(f"{store.path}: no video {name!r}" + (f": dropped, {reason}" if reason else ""))


def video_summary(store: Store, entry: VideoEntry) -> dict[str, Any]:
    """One video, read chunk by chunk: its index entry, and ranges of what it holds."""
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    segments, mask = set(), 0
    first = last = 0.0
    for start in range(0, entry.num_frames, store.chunk_frames):
        frames = store.read(entry, start, min(start + store.chunk_frames, entry.num_frames))
        first = float(frames.time_s[0]) if start == 0 else first
        last = float(frames.time_s[-1])
        segments |= set(frames.segment_id[frames.segment_id >= 0].tolist())
        mask += int(frames.target_mask.sum())
        for name, values in _observed(frames):
            if values.size:
                low[name] = min(low.get(name, np.inf), float(values.min()))
                high[name] = max(high.get(name, -np.inf), float(values.max()))
    return {
        "video": entry.video,
        "split": entry.split,
        "stem": entry.stem,
        "frames": entry.num_frames,
        "annotated": mask,
        "fps": entry.fps,
        "first_time_s": first,
        "last_time_s": last,
        "duration_s": entry.duration_s,
        "first_record": entry.first_record,
        "segments": len(segments),
        "observed": entry.observed,
        "nonfinite": entry.nonfinite,
        "range": {name: [low[name], high[name]] for name in low},
    }


def _observed(frames: Frames) -> list[tuple[str, np.ndarray]]:
    """Values that count: of annotated and of observed frames."""
    targets = frames.targets[frames.target_mask]
    features = [(m, values[frames.masks[m]]) for m, values in frames.features.items()]
    return [("valence", targets[:, 0]), ("arousal", targets[:, 1]), *features]


def show_video(summary: dict[str, Any]) -> None:
    """Prints one video's summary as a table."""
    table = Table(summary["video"], "")
    for key, value in summary.items():
        if key in ("video", "observed", "nonfinite", "range"):
            continue
        table.add_row(key, f"{value:.3f}" if isinstance(value, float) else str(value))
    for name, count in summary["observed"].items():
        table.add_row(f"{name} observed", f"{count:,} frames")
    for name, (low, high) in summary["range"].items():
        table.add_row(f"{name} range", f"{low:.4g} to {high:.4g}")
    console.print(table)


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(prog="maven-jax inspect", description=__doc__)
    parser.add_argument(
        "store", type=local_path, metavar="STORE", help="folder that `prepare` made"
    )
    parser.add_argument("--video", metavar="NAME", help="show this video; reads all of its frames")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args(argv)
    store = Store(args.store)
    if args.video is not None:
        summary = video_summary(store, find_video(store, args.video))
    else:
        summary = summarize(store)
    if args.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    elif args.video is not None:
        show_video(summary)
    else:
        show(store, summary)
    return 0
