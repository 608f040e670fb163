"""Iterators that a thread of their own runs ahead of the thread that needs the results."""

from __future__ import annotations

import collections
import contextlib
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterates over `items` in a thread, which waits while `most` of them have not been taken.

    An error of `items` is raised, with its traceback, where the next item would have come. As a
    context manager it stops the thread at the end of the block, and items not yet taken are lost.
    The thread also stops when nobody refers to this object any more, and when the process ends.
    """

    def __init__(self, items: Iterable[T], most: int, name: str) -> None:
        """Begins at once.

        Args:
            items: iterated over in the thread, which also closes it if it is a generator.
            most: items that wait at a time; one more may be in the making.
            name: of the thread.
        """
        self._queue: _Queue[T] = _Queue(most)
        # A daemon: an exiting process waits for all other threads before finalizers run.
        thread = threading.Thread(target=_run, args=(items, self._queue), name=name, daemon=True)
        self._stop = weakref.finalize(self, _stop, self._queue, thread)
        thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self._queue.take()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the thread and waits until it has closed `items`; nothing comes any more."""
        self._stop()


class _Queue(Generic[T]):
    """Items made and not yet taken; the thread refers to this and not to its `Prefetch`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: collections.deque[T] = collections.deque()
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Adds an item as soon as there is room; False once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._most)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def take(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended)
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


def _run(items: Iterable[T], queue: _Queue[T]) -> None:
    error = None
    try:
        for item in items:
            if not queue.put(item):
                break
            del item  # do not keep alive what the other side has taken
    except BaseException as raised:
        error = raised
    with contextlib.suppress(
        BaseException
    ):  # it was told to stop: errors on the way interest nobody
        getattr(items, "close", lambda: None)()
    queue.end(error)


def _stop(queue: _Queue, thread: threading.Thread) -> None:
    queue.close()
    if thread is not threading.current_thread():  # garbage may be collected in the thread itself
        thread.join()
