"""What is read from recordings: a real one of this processor, and what accelerators write."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from maven_jax.runtime import trace


def plane(name, **lines):
    """Lines by name: events as (name, start, end) in milliseconds."""
    return SimpleNamespace(
        name=name,
        lines=[
            SimpleNamespace(
                name=line.replace("_", " "),
                events=[
                    SimpleNamespace(name=n, start_ns=a * 1e6, duration_ns=(b - a) * 1e6, stats=[])
                    for n, a, b in events
                ],
            )
            for line, events in lines.items()
        ],
    )


def test_operations_of_a_processor_are_counted_by_step(tmp_path):
    @jax.jit
    def step(x):
        return jnp.sort(x) @ x

    x = jnp.ones((200, 200))
    jax.block_until_ready(step(x))
    with trace.recorded(tmp_path):
        for _ in range(4):
            y = step(x)
        jax.block_until_ready(y)
    summary = trace.summarize(tmp_path, 4)
    assert summary.devices == 0
    assert "no device in the trace" in summary.lines()[0]
    assert any("sort" in o.name for o in summary.longest)
    assert all(o.ms > 0 and o.times == round(o.times) for o in summary.longest)
    assert summary.busy_ms == pytest.approx(sum(o.ms for o in summary.longest))
    assert list(tmp_path.rglob("*.trace.json.gz"))


def test_streams_of_a_gpu_overlap():
    gpu = plane(
        "/device:GPU:0",
        Stream_13=[("product", 0, 4), ("sum", 5, 6), ("product", 10, 14)],
        Stream_20=[("copy", 3, 5)],
        XLA_Ops=[("the same again", 0, 100)],
    )
    host = plane("/host:CPU", python=[("a call", 0, 1000)])
    summary = trace.summary_of([host, gpu], steps=2, longest=2)
    assert summary.busy_ms == pytest.approx((6 + 4) / 2)
    assert summary.kernels == 2
    assert summary.longest == (
        trace.Operation("product", 4.0, 1.0),
        trace.Operation("copy", 1.0, 0.5),
    )
    assert summary.lines()[0] == "2 steps: device busy 5.000 ms a step, 2 kernels a step"


def test_numbers_are_those_of_one_device():
    gpus = [plane(f"/device:GPU:{i}", Stream_1=[("product", 0, 4)]) for i in range(2)]
    summary = trace.summary_of(gpus, steps=1)
    assert (summary.busy_ms, summary.kernels, summary.devices) == (4.0, 1.0, 2)
    assert summary.longest == (trace.Operation("product", 4.0, 1.0),)
    assert summary.lines()[0].endswith("(mean of 2 devices)")


def test_what_runs_inside_a_loop_is_not_counted_twice():
    inside = [("dot", 1, 4), ("add", 4, 5), ("dot", 6, 9)]
    tpu = plane("/device:TPU:0", XLA_Ops=[("while", 0, 10), *inside, ("copy", 10, 11)])
    summary = trace.summary_of([tpu], steps=1)
    assert summary.busy_ms == pytest.approx(11)
    assert {o.name: o.ms for o in summary.longest} == {"dot": 6, "while": 3, "add": 1, "copy": 1}


def test_a_folder_without_a_recording_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recording"):
        trace.summarize(tmp_path, 1)
