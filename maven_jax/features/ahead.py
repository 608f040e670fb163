"""Work that a thread of its own does ahead of the thread that needs its results."""

from __future__ import annotations

import collections
import contextlib
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Iterates over `items` in a thread, which waits when `most` of them have not been taken.

    An error of `items` is raised, with its traceback, where the next of them would have come. As a
    context manager it stops the thread at the end of the block, and what was not taken is lost;
    so it does when nobody refers to it any more, and when the process ends.
    """

    def __init__(self, items: Iterable[T], most: int, name: str) -> None:
        """Begins at once.

        Args:
            items: iterated over in the thread, where it is also closed if it is a generator.
            most: held at a time; one more may be in the making.
            name: of the thread.
        """
        self._held: _Held[T] = _Held(most)
        # A daemon, because a process waits for other threads before it tells anyone to stop.
        thread = threading.Thread(target=_run, args=(items, self._held), name=name, daemon=True)
        self._stop = weakref.finalize(self, _stop, self._held, thread)
        thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self._held.take()

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the thread and waits until it has closed `items`; nothing comes any more."""
        self._stop()


class _Held(Generic[T]):
    """What has been made and not been taken; the thread knows this and not its `Ahead`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: collections.deque[T] = collections.deque()
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Takes an item in when there is room; False if nobody wants it any more."""
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


def _run(items: Iterable[T], held: _Held[T]) -> None:
    error = None
    try:
        for item in items:
            if not held.put(item):
                break
            del item  # nothing here keeps what has been taken
    except BaseException as raised:
        error = raised
    with contextlib.suppress(BaseException):  # it was told to stop: nobody asks how that went
        getattr(items, "close", lambda: None)()
    held.end(error)


def _stop(held: _Held, thread: threading.Thread) -> None:
    held.close()
    if thread is not threading.current_thread():  # where garbage may be collected, too
        thread.join()
