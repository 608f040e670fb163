"""How much of what a synthetic corpus shows each system finds: scores against the planted truth.

    python -m benchmarks.ceiling --corpus runs/synthetic/corpus runs/ridge runs/maven ...

The ceiling is `training.closed_form.solve`, the same ridge with the same choice of its penalty, on
the planted cues themselves instead of features: what face, voice and words show at each frame
before they are drawn, spoken and encoded, and where irony turns the face around, averaged over
boxes of up to 4 s. It is fitted on the training videos and scored on the test videos; no system
sees either the cues or the truth of the test videos. Runs are scored on the test split by
`maven-jax evaluate --split test --labels CORPUS/truth/test_labels`, several seeds of one system as
`runs/maven_seed*`. A system that does not beat ridge on the test split is marked.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.table import Table

from data_prep.synth.command import PARAMETERS
from data_prep.synth.curves import irony_curve
from data_prep.synth.files import frame_times
from data_prep.synth.plan import Media, plan_corpus
from data_prep.synth.scene import direct
from data_prep.synth.words import NEGATIVE, POSITIVE, Utterance
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import box_filter
from maven_jax.evaluation.report import read_scores
from maven_jax.progress import console
from maven_jax.training.closed_form import solve

# Frames, as in configs/ridge.py.
WIDTHS = (1, 15, 45, 121)
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def cues(media: Media, seconds: float, seed: int, words: bool) -> list[tuple[str, np.ndarray]]:
    """What each person of a recording shows at each frame, (t, c), and the truth (t, 2) behind."""
    scene, times = direct(media, seconds, seed), frame_times(media, seconds, seed)
    rows = []
    for i, (member, actor) in enumerate(zip(media.cast, scene.actors)):
        columns = [actor.face.at(times), actor.voice.at(times)]
        if words:
            irony = np.interp(
                times, actor.feeling.time_s, irony_curve(actor.feeling.time_s, scene.irony)
            )
            face = actor.face.at(times)[:, :1]
            columns += [said(scene.utterances, i, times), irony[:, None], irony[:, None] * face]
        rows.append((member.name, np.column_stack([*columns, actor.feeling.at(times)])))
    return rows


def said(
    utterances: Sequence[Utterance], speaker: int, times: Float[np.ndarray, "t"]
) -> Float[np.ndarray, "t 2"]:
    """The valence of the word said at each frame, and 1 for a word that has one; otherwise 0."""
    lexicon = POSITIVE | NEGATIVE
    columns = np.zeros((len(times), 2))
    for utterance in utterances:
        for word in utterance.words if utterance.speaker == speaker else ():
            if word.text in lexicon:
                inside = (times >= word.start_s) & (times < word.end_s)
                columns[inside] = lexicon[word.text], 1
    return columns


def ceiling(corpus: Path, words: bool) -> tuple[float, float]:
    """CCC of valence and arousal on the test videos of a linear model on the planted cues."""
    parameters = json.loads((corpus / PARAMETERS).read_text())
    groups, test = [], []
    seconds, seed = parameters["seconds"], parameters["seed"]
    tracks: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for media in plan_corpus(parameters["videos"], seed, parameters.get("offsets", 1.0)):
        if media.split in tracks:
            tracks[media.split] += [rows for _, rows in cues(media, seconds, seed, words)]
    together = np.concatenate(tracks["train"])[:, :-2]
    mean, std = together.mean(0), together.std(0)
    for split, into in (("train", groups), ("test", test)):
        for rows in tracks[split]:
            x = ((rows[:, :-2] - mean) / std).astype(np.float32)
            boxes = [_averages(x, width) for width in WIDTHS]
            into.append(np.column_stack([*boxes, np.ones(len(x)), rows[:, -2:]]))
    solution = solve(np.stack([z.T @ z for z in groups]), PENALTIES)
    rows = np.concatenate(test)
    predicted = np.clip(rows[:, :-3] @ solution.kernel + solution.bias, -1, 1)
    valence, arousal = (_ccc(predicted[:, k], rows[:, -2 + k]) for k in range(2))
    return valence, arousal


def _averages(x: np.ndarray, width: int) -> np.ndarray:
    columns = x.shape[1]
    padded = np.pad(x, ((0, 0), (0, columns % 2)))
    pairs = [box_filter(padded[:, i : i + 2], (width, width)) for i in range(0, padded.shape[1], 2)]
    return np.concatenate(pairs, 1)[:, :columns]


def _ccc(x: np.ndarray, y: np.ndarray) -> float:
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def grouped(workdirs: list[Path]) -> dict[str, list[Path]]:
    """Runs by what remains of their names without `_seed3`."""
    groups: dict[str, list[Path]] = {}
    for workdir in workdirs:
        groups.setdefault(re.sub(r"_seed\d+$", "", workdir.name), []).append(workdir)
    return groups


def table(corpus: Path, workdirs: list[Path], baseline: str) -> Table:
    """Test and validation scores, and shares of the ceiling."""
    top = ceiling(corpus, words=True)
    result = Table(title="CCC on the test videos, by the planted truth", title_justify="left")
    for name in ("", "valence", "arousal", "mean", "of ceiling", "validation", "parameters"):
        result.add_column(name, justify="left" if not name else "right", no_wrap=True)

    def add(name: str, values: tuple[float, float], *others: str) -> None:
        mean = sum(values) / 2
        share = f"{mean / (sum(top) / 2):.0%}"
        result.add_row(name, *(f"{v:.3f}" for v in values), f"{mean:.3f}", share, *others)

    groups = grouped(workdirs)
    if baseline not in groups:
        raise UserError(f"no run {baseline} among the workdirs: what is there to beat?")
    to_beat = read_scores(groups[baseline][0], "test")["ccc"]
    for name, runs in groups.items():
        scores = [(read_scores(run, "test"), read_scores(run, "validation")) for run in runs]
        means = [
            statistics.mean(test[f"ccc_{d}"] for test, _ in scores) for d in ("valence", "arousal")
        ]
        spread = statistics.pstdev([test["ccc"] for test, _ in scores])
        validation = statistics.mean(v["ccc"] for _, v in scores)
        below = name != baseline and sum(means) / 2 <= to_beat
        label = f"{name}{f' ({len(runs)} seeds ±{spread:.3f})' if len(runs) > 1 else ''}"
        add(
            f"{label}{' ≤ ' + baseline if below else ''}",
            (means[0], means[1]),
            f"{validation:.3f}",
            f"{scores[0][0]['num_parameters']:,}",
        )
    add("planted cues without words", ceiling(corpus, words=False), "", "")
    add("planted cues: the ceiling", top, "", "")
    return result


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, default=Path("runs/synthetic/corpus"))
    parser.add_argument("--baseline", default="ridge", help="name of the run to beat")
    parser.add_argument("workdirs", nargs="*", type=Path, help="runs, scored on both splits")
    args = parser.parse_args()
    console.print(table(args.corpus, args.workdirs, args.baseline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
