from __future__ import annotations

import json

import pytest

from benchmarks import training_steps
from maven_jax.__main__ import main


def test_a_row_says_what_was_measured_where(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert main(["bench", "ccc", "--repeats", "1", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())
    assert row["name"] == "ccc"
    assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
    assert row["facts"]["difference_of_outputs"] < 1e-6
    assert "cores" in row["machine"]
    assert "jax" in row["versions"]
    assert "ccc of 3,000,000 frames x 2" in capsys.readouterr().out


def test_an_unknown_name_is_refused_in_one_line(capsys):
    assert main(["bench", "mavn_paper"]) == 2
    assert "did you mean 'maven_paper'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "batch_size", "frames"),
    [
        (training_steps.maven_released, 2, 10),
        pytest.param(training_steps.maven_paper, 1, 10, marks=pytest.mark.slow),
        pytest.param(training_steps.rjcma, 1, 300, marks=pytest.mark.slow),
        pytest.param(training_steps.rjca, 2, 16, marks=pytest.mark.slow),
    ],
)
def test_both_sides_of_a_training_step_are_the_same_network(make, batch_size, frames):
    ours, peer, difference = make(batch_size, frames)
    assert 0 < difference < 1e-4
    before = peer.outputs()
    ours()
    peer()
    assert (peer.outputs() != before).any()
    assert ours.flops > 0
