from __future__ import annotations

import json

import jax
import pytest
import torch

from benchmarks import gpu, training_steps
from benchmarks.side_by_side import Row, add_growth
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


def test_a_file_of_the_users_is_not_replaced(tmp_path, capsys):
    file = tmp_path / "rows.json"
    file.write_text("mine")
    assert main(["bench", "ccc", "--repeats", "1", "--json", str(file)]) == 2
    assert "rows.json: is there already and not written by `bench`" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_growth_is_that_of_claims_measured_at_several_sizes():
    def row(name: str, size: dict[str, int], ours_s: float, peer_s: float | None) -> dict:
        return Row(name, "", "", ours_s, peer_s, 0.0, size=size).to_json()

    rows = [
        row("step", {"T": 300}, 2 * 300**1.5, 300.0**2),
        row("alone", {"videos": 7}, 1.0, 2.0),
        row("step/150", {"T": 150}, 2 * 150**1.5, 150.0**2),
        row("loader", {"videos": 10}, 0.5, None),
        row("loader/20", {"videos": 20}, 0.5, None),
        row("step/600", {"T": 600}, 2 * 600**1.5, 600.0**2),
    ]
    lines = add_growth(rows)
    assert lines == [
        "step: seconds grow as T^1.50, the peer's as T^2.00 (T = 150, 300, 600)",
        "loader: seconds grow as videos^0.00 (videos = 10, 20)",
    ]
    growth = rows[0]["facts"]["growth"]
    assert growth["ours"] == pytest.approx(1.5)
    assert (growth["of"], growth["sizes"]) == ("T", [300, 150, 600])
    assert rows[3]["facts"]["growth"]["peer"] is None
    assert "growth" not in rows[1]["facts"]


def test_an_unknown_name_is_refused_in_one_line(capsys):
    assert main(["bench", "mavn_paper"]) == 2
    assert "did you mean 'maven_paper'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "batch_size", "frames"),
    [
        pytest.param(training_steps.maven_released, 2, 10, marks=pytest.mark.slow),
        pytest.param(training_steps.maven_paper, 1, 10, marks=pytest.mark.slow),
        pytest.param(training_steps.rjcma, 1, 300, marks=pytest.mark.slow),
        pytest.param(training_steps.rjca, 2, 16, marks=pytest.mark.slow),
    ],
)
def test_both_sides_of_a_training_step_are_the_same_network(make, batch_size, frames):
    ours, peer = make(batch_size, frames)
    before = peer.outputs()
    assert 0 < training_steps.check_equal(ours.outputs(), before, "") < 1e-4
    ours()
    peer()
    assert (peer.outputs() != before).any()
    assert ours.flops > 0


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_measures_a_toy(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert gpu.main(["--toy", "--trace", "--row", "maven_released", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())
    assert row["name"] == "maven_released_bf16"
    assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
    facts = row["facts"]
    assert facts["eager_s"] > 0
    assert 0 < facts["difference_of_float32_outputs"] < 1e-4
    assert min(facts["first_compile_s"], facts["cached_compile_s"], facts["arguments_gb"]) > 0
    assert facts["trace"]["steps"] == 3
    assert len(facts["trace"]["longest"]) == 10
    out = capsys.readouterr().out
    assert "x torch.compile's speed" in out
    assert "XLA's operations on the host's threads" in out


def test_rows_for_which_there_is_no_time_are_left_out(monkeypatch, capsys):
    monkeypatch.setattr(gpu.Bench, "encoder", lambda self, name: 1 / 0)
    assert gpu.main(["--toy", "--row", "maven_epoch", "--row", "roberta", "--budget", "50"]) == 1
    out, err = capsys.readouterr()
    assert "== maven_epoch: no time, " in out
    assert "== roberta\n" in out
    assert "ZeroDivisionError" in err


def test_where_torch_does_not_compile_its_column_stays_empty(monkeypatch, capsys):
    def unsupported(*_: object, **__: object) -> None:
        raise RuntimeError("torch.compile is not supported on this Python")

    monkeypatch.setattr(torch, "compile", unsupported)
    bench = gpu.Bench(toy=True)
    steps = bench.peers.of(torch.nn.Linear(2, 2), lambda network: lambda: network(torch.ones(2)))
    assert list(steps) == ["eager"]
    assert "torch.compile failed (RuntimeError): its column stays empty" in capsys.readouterr().out
    row = bench.row("name", "work", lambda: jax.numpy.ones(2), steps, 1.0)
    assert (row.peer, row.peer_s, row.ratio) == ("", None, None)
    assert row.facts["eager_ratio"] > 0


def test_where_there_is_no_room_for_both_each_is_timed_alone(monkeypatch, capsys):
    bench = gpu.Bench(toy=True, peers="eager")
    peers = bench.peers.of(torch.nn.Linear(2, 2), lambda network: lambda: network(torch.ones(2)))
    monkeypatch.setattr(bench.peers, "free_bytes", lambda: 1e9)
    row = bench.row("n", "w", lambda: jax.numpy.ones(2), peers, 1.0, temporary_gb=2.0)
    assert "no room for both" in capsys.readouterr().out
    assert row.facts["eager_s"] > 0
