"""The model card of a bundle: what it is, what it was trained on, how good, under which terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maven_jax.data.centred import made_elsewhere
from maven_jax.errors import printable
from maven_jax.evaluation.calibration import in_words
from maven_jax.evaluation.tables import shown
from maven_jax.runs.trained_model import TrainedModel
from maven_jax.state import count_parameters

# As stated on their pages on the hub in 2026; whoever passes the weights on should read them again.
_LICENCES = {
    "microsoft/swin-base-patch4-window7-224": "Apache-2.0",
    "facebook/hubert-base-ls960": "Apache-2.0",
    "roberta-base": "MIT",
    "FacebookAI/roberta-base": "MIT",
    "bert-base-uncased": "Apache-2.0",
    "google-bert/bert-base-uncased": "Apache-2.0",
    "random": "none: random numbers of a seed, made again where they are needed",
}


def model_card(
    model: TrainedModel,
    digests: Mapping[str, Mapping[str, Any]],
    *,
    licence: str | None,
    platforms: Sequence[str],
    free_batch: bool,
) -> str:
    """The card, as Markdown.

    Args:
        model: what is exported.
        digests: part of the bundle -> `bytes`, `sha256`.
        licence: of the weights, in the words of who exports them; None: not stated.
        platforms: that the program runs on; none without program.
        free_batch: whether the program takes any number of windows.
    """
    config = model.config
    count = count_parameters(model.weights.params)
    sections = [
        f"# {config.model.name}: valence and arousal for every frame",
        *([f"**Means nothing for people: {model.label}.**"] if model.label else []),
        f"{count:,} parameters, {model.step} training steps. Takes windows of "
        f"{config.data.window.length} frames of "
        + ", ".join(f"{m} ({s.dim})" for m, s in model.trained_on.modalities.items())
        + f"; gives {' and '.join(model.dimensions)} in [-1, 1].{_beside(model)}",
        "## Use",
        _use(bool(platforms)),
        "## Data",
        _data(model),
        "## Features",
        _features(model),
        "## Scores",
        _scores(model),
        "## Limits",
        "Numbers describe what raters saw in faces, voices and words of the training corpus; they "
        "are no measurement of what somebody feels. How they fare on other people, cameras and "
        "languages is not known unless a score above says so. Not for decisions about people.",
        "## Licences",
        _licences(model, licence),
        "## Parts",
        _parts(digests, platforms, free_batch),
        "## How it was made",
        _made(model),
    ]
    return "\n\n".join(sections) + "\n"


def _beside(model: TrainedModel) -> str:
    targets = [f"{t.name} ({t.kind}: {', '.join(t.columns)})" for t in model.extra_targets]
    return f" Beside them: {printable('; '.join(targets))}." if targets else ""


def _use(program: bool) -> str:
    text = (
        "    maven-jax predict --checkpoint THIS_FOLDER video.mp4 --out OUT\n\n"
        "`maven_jax.load(THIS_FOLDER)` is the same in Python."
    )
    if program:
        text += (
            " `predictor.stablehlo` needs JAX alone; "
            "maven_jax's page on bundles says how it is called."
        )
    return text


def _data(model: TrainedModel) -> str:
    rows = ["| split | videos | frames | annotated |", "|---|---|---|---|"]
    rows += [
        f"| {split} | {n['videos']:,} | {n['frames']:,} | {n['annotated']:,} |"
        for split, n in model.trained_on.splits.items()
    ]
    data = model.config.data
    if data.synthetic is not None:
        what = "A synthetic corpus (`maven-jax synth`): drawn faces, made voices, no person in it."
    else:
        what = f"A corpus whose feature store was called `{str(data.store).rsplit('/', 1)[-1]}`."
    trained = f"Trained on `{data.train_split}`"
    fold = f" of fold {data.fold}" if data.fold is not None else ""
    chosen = f"{trained}{fold}, this step chosen by the score on `{data.eval_split}`."
    return "\n".join([f"{what} {chosen}", "", *rows])


def _features(model: TrainedModel) -> str:
    rows = ["| modality | width | encoder | source | weights, sha256 |", "|---|---|---|---|---|"]
    for name, modality in model.trained_on.modalities.items():
        spec = modality.spec
        untrained = " (untrained)" if modality.untrained else ""
        rows.append(
            f"| {name} | {modality.dim} | {spec.get('encoder')}{untrained} | "
            f"{spec.get('source', 'imported')} | {str(spec.get('sha256', ''))[:16]} |"
        )
    encoders = "The encoders are not in this folder; `bundle.json` holds their recipe."
    if not model.trained_on.encoders:
        encoders = "They were made by another program: features have to come from there."
    names = made_elsewhere(model.trained_on.modalities, model.config.data.single_vector)
    if names and (share := model.config.data.centre[0]):
        encoders += (
            f" Before they go in, {share:.0%} of each recording's mean is taken from "
            f"{', '.join(map(printable, names))}."
        )
    return "\n".join([*rows, "", encoders])


def _scores(model: TrainedModel) -> str:
    if not model.scores:
        return "None: this step was not evaluated."
    keys = ("ccc_valence", "ccc_arousal", "ccc", "ccc_video_mean")
    rows = [
        "| split | valence | arousal | mean | mean over videos | frames |",
        "|---|---|---|---|---|---|",
    ]
    for split, scores in model.scores.items():
        cells = " | ".join(shown(scores.get(k)) for k in keys)
        rows.append(f"| {split} | {cells} | {scores.get('num_frames', 0):,} |")
    note = "CCC over all annotated frames of the split, concatenated."
    if model.config.data.eval_split in model.scores:
        note += f" `{model.config.data.eval_split}` chose the step, so its score flatters."
    if model.calibration is not None:
        note += (
            f" Without the calibration that was tuned on `{model.calibration.split}` "
            f"({in_words(model.calibration.adjustments)}): `predict --calibrated` takes it."
        )
    return "\n".join([*rows, "", note])


def _licences(model: TrainedModel, licence: str | None) -> str:
    lines = [f"* These weights: {licence or 'not stated by who exported them'}."]
    if model.config.data.synthetic is None:
        lines.append(
            "* The corpus: whoever gave it says what may be done with weights that were trained "
            "on it. Aff-Wild2, for one, is for non-commercial research and may not be passed on."
        )
    for name, modality in model.trained_on.modalities.items():
        source = str(modality.spec.get("source", "imported features"))
        terms = _LICENCES.get(source, "unknown, ask its source")
        lines.append(f"* Encoder of {name}, {source}: {terms}.")
    converted = model.record.get("converted")
    if converted:
        lines.append(f"* Converted from `{converted.get('file')}`: the terms of its authors.")
    lines.append("* The program that made and reads them, maven_jax: Apache-2.0.")
    return "\n".join(lines)


def _parts(
    digests: Mapping[str, Mapping[str, Any]], platforms: Sequence[str], free_batch: bool
) -> str:
    rows = ["| file | bytes | sha256 |", "|---|---|---|"]
    rows += [f"| {name} | {d['bytes']:,} | {d['sha256']} |" for name, d in digests.items()]
    if platforms:
        windows = "any number of windows" if free_batch else "one window"
        rows += ["", f"The program takes {windows} at a time and runs on {', '.join(platforms)}."]
    return "\n".join(rows)


def _made(model: TrainedModel) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in (model.record.get("versions") or {}).items())
    lines = [f"* recipe: `config.json`; seed {model.config.seed}"]
    if model.record.get("overrides"):
        lines.append(f"* overridden: {', '.join(map(str, model.record['overrides']))}")
    if versions:
        lines.append(f"* trained with {versions}")
    if model.record.get("commit"):
        lines.append(f"* commit {model.record['commit']}")
    return "\n".join(lines)
