"""Work ahead of its taker: in order, bounded, stopped, and with its errors in their places."""

import gc
import subprocess
import sys
import threading
import traceback

import pytest

from maven_jax.features.prefetch import Prefetch


def test_items_come_in_order_and_from_another_thread():
    threads = set()

    def items():
        for i in range(50):
            threads.add(threading.current_thread().name)
            yield i

    assert list(Prefetch(items(), 3, "ahead")) == list(range(50))
    assert threads == {"ahead"}


def test_it_runs_ahead_as_far_as_it_may_and_waits_there():
    made = threading.Semaphore(0)
    count = 0

    def items():
        nonlocal count
        for i in range(100):
            count += 1
            made.release()
            yield i

    with Prefetch(items(), 3, "ahead") as ahead:
        for _ in range(3 + 1):  # held, and one in the making
            assert made.acquire(timeout=10)
        assert not made.acquire(timeout=0.1)
        assert next(ahead) == 0
        assert made.acquire(timeout=10)
        assert not made.acquire(timeout=0.1)
    assert count == 5


def test_an_error_comes_where_the_next_item_would_have_and_tells_its_place():
    def items():
        yield 1
        yield 2
        raise ValueError("broken")

    ahead = Prefetch(items(), 5, "ahead")
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ValueError, match="broken") as caught:
        next(ahead)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "items"
    with pytest.raises(StopIteration):
        next(ahead)


def test_closing_stops_the_thread_and_closes_what_it_iterates_over():
    closed_in = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed_in.append(threading.current_thread().name)

    made = items()  # kept, or it would be closed for nobody refers to it
    with Prefetch(made, 2, "ahead") as ahead:
        assert next(ahead) == 1
    assert closed_in == ["ahead"]
    assert "ahead" not in [thread.name for thread in threading.enumerate()]
    assert list(ahead) == []


def test_what_nobody_refers_to_stops():
    def items():
        while True:
            yield 1

    ahead = Prefetch(items(), 2, "forgotten")
    assert next(ahead) == 1
    del ahead
    gc.collect()
    assert "forgotten" not in [thread.name for thread in threading.enumerate()]


def test_a_process_that_ends_waits_until_the_thread_has_stopped():
    """Else the interpreter goes while the thread is in a library's code, and the process aborts."""
    program = """
import time
from maven_jax.features.prefetch import Prefetch

def items():
    try:
        yield 1
        yield 2
        yield 3
    finally:
        time.sleep(0.2)
        print("closed", flush=True)

ahead = Prefetch(items(), 1, "ahead")
print(next(ahead), flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\nclosed\n", "")
