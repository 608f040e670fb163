from __future__ import annotations

import json

import pytest

from maven_jax.__main__ import main
from maven_jax.progress import console


def write_scores(workdir, model: str, ccc: float):
    """An evaluation, as far as `compare` reads it."""
    scores = {
        f"ccc{d}{end}": ccc for d in ("", "_valence", "_arousal") for end in ("", "_video_mean")
    }
    scores |= dict(dimensions=["valence", "arousal"], fold=None, step=3, model=model)
    scores |= dict(modalities=["visual"], num_frames=9, num_videos=1, num_parameters=2)
    scores |= dict(untrained_encoders=[], videos={"a": {"ccc_valence": ccc, "ccc_arousal": ccc}})
    (workdir / "eval").mkdir(parents=True)
    (workdir / "eval/validation.json").write_text(json.dumps(scores))
    return str(workdir)


@pytest.fixture
def runs(tmp_path):
    names = {"ridge": ("ridge", 0.7), "good": ("maven", 0.75), "poor": ("rjcma", 0.7)}
    return {n: write_scores(tmp_path / n, *values) for n, values in names.items()}


def test_what_does_not_beat_ridge_is_marked(runs, capsys):
    assert main(["compare", *runs.values()]) == 0
    rows = {
        line.strip("│").split()[0]: line
        for line in capsys.readouterr().out.splitlines()
        if "│" in line
    }
    assert "vs ridge" not in rows
    assert rows["good"].rstrip(" │").endswith("+0.050")
    assert rows["poor"].rstrip(" │").endswith("+0.000 ✗")
    assert rows["ridge"].rstrip(" │").endswith("–")


def test_without_ridge_a_line_says_what_to_beat(runs, capsys):
    assert main(["compare", runs["good"], runs["poor"]]) == 0
    out = capsys.readouterr().out
    assert "vs ridge" not in out
    assert "no ridge among them" in out


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_table_leaves_out_columns_and_says_so(width, runs, capsys, monkeypatch):
    monkeypatch.setattr(console, "_width", width)
    assert main(["compare", *runs.values()]) == 0
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if "┃" in line or "│" in line]
    assert max(map(len, table)) <= width
    assert "…" not in "".join(table)
    assert "mean" in table[0]
    assert ("note: no room for parameters" in out) == (width == 60)


def test_json_has_all(runs, capsys):
    assert main(["compare", *runs.values(), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["workdir"] for row in rows] == list(runs.values())
    assert [row["ccc"] for row in rows] == [0.7, 0.75, 0.7]
    assert "videos" not in rows[0]
