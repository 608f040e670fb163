"""How often the lines of a compiled program are executed, and the estimates made of them.

`tpu_program.txt` is what the TPU's compiler made of a scan over 5 frames, last first, and a
`fori_loop(2, 9, …)` behind it, without names of origins.
"""

import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import tpu
from benchmarks.program_text import Program
from maven_jax.errors import UserError
from tests.support.root import ROOT

TEXT = (ROOT / "tests" / "benchmarks" / "tpu_program.txt").read_text()
LOOP = """
%body (b: (s32[], f32[])) -> (s32[], f32[]) {
  %b = (s32[], f32[]) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %x = f32[] get-tuple-element(%b), index=1
  %step = s32[] constant(STEP)
  %next = s32[] add(%i, %step)
  ROOT %out = (s32[], f32[]) tuple(%next, %x)
}

%condition (c: (s32[], f32[])) -> pred[] {
  %c = (s32[], f32[]) parameter(0)
  %j = s32[] get-tuple-element(%c), index=0
  %end = s32[] constant(END)
  ROOT %test = pred[] compare(%j, %end), direction=DIRECTION
}

ENTRY %main (y: f32[]) -> (s32[], f32[]) {
  %y = f32[] parameter(0)
  %start = s32[] constant(START)
  %first = (s32[], f32[]) tuple(%start, %y)
  ROOT %loop = (s32[], f32[]) while(%first), condition=%condition, body=%body
}
"""


def trips(text: str) -> list[int]:
    program = Program.of(text)
    return [
        program.trips(name, line)
        for name, lines in program.computations.items()
        for line in lines
        if " while(" in line
    ]


def test_loops_of_the_tpus_compiler_say_how_often_they_run():
    assert trips(TEXT) == [5, 7]


@pytest.mark.parametrize(
    ("start", "end", "step", "direction", "expected"),
    [
        (0, 7, 1, "LT", 7),
        (2, 7, 2, "LT", 3),
        (2, 6, 2, "LE", 3),
        (6, 0, -1, "GT", 6),
        (6, 0, -1, "GE", 7),
        (3, 3, 1, "LT", 0),
    ],
)
def test_runs_are_counted_from_start_step_and_end(start, end, step, direction, expected):
    text = LOOP.replace("START", str(start)).replace("END", str(end))
    text = text.replace("STEP", str(step)).replace("DIRECTION", direction)
    assert trips(text) == [expected]


@pytest.mark.parametrize(
    ("part", "unknown"),
    [
        ("%start = s32[] constant(0)", "%start = s32[] custom-call(%y)"),
        ("%next = s32[] add(%i, %step)", "%next = s32[] multiply(%i, %step)"),
        ("direction=LT", "direction=NE"),
    ],
)
def test_a_loop_that_does_not_tell_is_an_error(part, unknown):
    text = LOOP.replace("START", "0").replace("END", "7")
    text = text.replace("STEP", "1").replace("DIRECTION", "LT")
    assert part in text
    with pytest.raises(ValueError, match="a loop without a known number of runs"):
        trips(text.replace(part, unknown))


def test_known_runs_of_the_cpus_compiler_agree_with_those_counted():
    def run(x):
        return jax.lax.scan(lambda c, row: (jnp.tanh(c @ row), None), x[0], x[1:])[0]

    text = jax.jit(run).lower(jnp.ones((6, 4, 4))).compile().as_text() or ""
    assert '"known_trip_count":{"n":"5"}' in text
    assert trips(text) == [5]


def test_cycles_count_operations_in_loops_as_often_as_those_run():
    cycles = tpu.estimate(Program.of(TEXT))
    assert cycles.total() == 2094 + 1965 + 5 * (20 + 2221) + 7 * (20 + 288)
    assert next(iter(cycles)) == ("bitcast_add_fusion.2", "f32[128,128]", 5)


def test_a_step_that_does_not_fit_names_the_next_mesh():
    chip = tpu.Chip("v5e", 1.0, 16.0, 1.0)
    assert tpu.memory_verdict(16.0, chip, 4, 1) == "fits"
    assert tpu.memory_verdict(17.0, chip, 4, 1) == "needs mesh 2x2"
    assert tpu.memory_verdict(17.0, chip, 1, 4) == "needs more chips"


def test_without_the_tpus_compiler_one_line_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="the TPU's compiler is missing: pip install"):
        tpu.main(["--recipe", "quickstart"])


def test_a_recipe_without_features_is_refused():
    with pytest.raises(UserError, match="no recipe 'rjcam' on features; did you mean"):
        tpu.main(["--recipe", "rjcam"])


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU's compiler, libtpu, is not here"
)
def test_a_small_model_is_compiled_for_four_chips(tmp_path):
    file = tmp_path / "rows.json"
    assert tpu.main(["--recipe", "quickstart", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())
    assert (row["topology"], row["mesh"], row["memory"]) == ("v5e:2x2", "4x1", "fits")
    assert 0 < row["products_ms"] < row["ms"] < 20
    assert row["collectives"] > 0
    # The gradients, once around the ring.
    assert row["sent_bytes"] > 1e6
