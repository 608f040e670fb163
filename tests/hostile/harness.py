"""Runs cases in a child process, which may crash, hang or fill the memory without harm.

A case is (kind, seed, number), nothing else: the same three give the same input again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import re
import shutil
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from tests.hostile.watch import Watch

# Commands that compile take three times as long beside other work.
SLOW_PATIENCE = 3
LIMIT_S = 20.0
# Commands that compile take longer beside other work.
SLOW_PATIENCE = 3
LIMIT_MIB = 2048
_STARTING_S = 300.0
# Lines that are never the same twice.
_TIMES = re.compile(r".*( in [\d:]+ \(| took [\d.]+ s).*\n")
# What lies around inputs.
_OUTSIDE = {"secret.txt": b"untouched", "evil.py": b"import os\nos.mkdir('ran')\nclass Own: pass\n"}
# What ends a case, the good ends first.
OUTCOMES = ("refused", "right", "traceback", "hang", "memory", "silent", "outside")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        what: one of `OUTCOMES`.
        case: what was changed, in words.
        said: why it is a fault, or what the reader said of it.
        seconds: it took.
        mib: of memory that it took at most.
    """

    what: str
    case: str
    said: str
    seconds: float = 0.0
    mib: int = 0


class _Child:
    """What runs in the process: cases one after the other in a folder of its own."""

    def __init__(self, scratch: Path):
        self.scratch, self.outside = scratch, scratch / "outside"
        for name in ("outside", "tmp", "good"):
            (scratch / name).mkdir()
        self._lay_out()
        os.environ["HOSTILE_OUTSIDE"] = str(self.outside)
        os.environ["MPLCONFIGDIR"] = os.environ["TMPDIR"] = str(scratch / "tmp")
        os.chdir(self.outside)
        sys.dont_write_bytecode = True
        self._log = (scratch / "log").open("w+b")
        for number in (1, 2):
            os.dup2(os.open(scratch / str(number), os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        allowed = [scratch / name for name in ("case", "tmp", "good")]
        cache = Path(os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(scratch / "tmp")))
        self.watch = Watch([*allowed, cache], scratch)
        for library in ("absl", "asyncio"):  # as in `maven_jax.__main__`
            logging.getLogger(library).setLevel(logging.CRITICAL)
        # Here, where output is caught and the environment is right.
        from tests.hostile.kinds import KINDS
        from tests.hostile.offences import OFFENCES
        from tests.hostile.readers import RefusedError

        self.kinds, self.refused = KINDS | OFFENCES, RefusedError
        self.good: dict[str, tuple[Any, str]] = {}

    def _lay_out(self) -> None:
        """Fills the folder that nobody may touch."""
        for path in self.outside.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, content in _OUTSIDE.items():
            (self.outside / name).write_bytes(content)

    def prepare(self, kind: str) -> None:
        """Makes the healthy example, and notes what is read and said of it."""
        good = self.scratch / "good" / kind
        self.watch.learning = True
        self.kinds[kind].make(good)
        case = self._fresh(kind)
        for _ in range(2):  # what is said once, such as the time of compiling, is no difference
            self._caught()
            numbers = self.kinds[kind].read(case)
            case = self._fresh(kind)
        self.good[kind] = numbers, self._caught()[0]

    def _fresh(self, kind: str) -> Path:
        case = self.scratch / "case"
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        shutil.copytree(self.scratch / "good" / kind, case / "input")
        return case / "input"

    def change(self, kind: str, seed: int, number: int) -> str:
        """Makes the input of one case; says how."""
        self._fresh(kind)
        rng = Random(f"{kind} {seed} {number}")
        return mutate(self.kinds[kind], self.scratch / "case" / "input", rng)

    def run(self, kind: str, case: str) -> Outcome:
        """Reads the input."""
        folder = self.scratch / "case" / "input"
        self._caught()
        self.watch.noted.clear()
        self.watch.learning = False
        before = _status_mib("self", "VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        began, numbers, what = time.monotonic(), None, "right"
        try:
            numbers = self.kinds[kind].read(folder)
        except self.refused:
            what = "refused"
        except BaseException as error:
            from maven_jax.errors import explain
            from maven_jax.progress import complain

            line = explain(error)
            what = "traceback" if line is None else "refused"
            complain("read", line or "")
            said = "".join(traceback.format_exception(error)[-3:]) if line is None else line
        seconds = time.monotonic() - began
        self.watch.learning = True
        out, err = self._caught()
        if what != "traceback":
            said = err or out
            what, said = self._judged(kind, what, numbers, out, err) or (what, said)
        if noted := self._outside():
            what, said = "outside", noted
        mib = _status_mib("self", "VmHWM") - before
        what = "memory" if mib > LIMIT_MIB else what
        return Outcome(what, case, said[-2000:], seconds, mib)

    def _judged(
        self, kind: str, what: str, numbers: Any, out: str, err: str
    ) -> tuple[str, str] | None:
        """A fault of what was said: not one line, control characters, or nothing at all."""
        if any(not c.isprintable() and c not in "\n\u200c\u200d" for c in out + err):
            return "traceback", f"control characters: {out + err!r}"
        is_line = err.count("\n") <= 1 and len(err) < 5000 and (out + err).strip()
        if what == "refused" and not is_line:
            return "traceback", f"refused, but not in one line: {err[:2000]!r}"
        same, before = self.good[kind]
        if what == "right" and numbers != same and out == before:
            return "silent", f"{numbers} instead of {same}, and nothing is said"
        return None

    def _outside(self) -> str:
        """What was done outside of the case's folder."""
        files = {p.name: p.read_bytes() for p in self.outside.iterdir() if p.is_file()}
        if files != _OUTSIDE or len(os.listdir(self.outside)) != len(_OUTSIDE):
            self.watch.noted[f"changed outside: {sorted(os.listdir(self.outside))}"] = None
            self._lay_out()
        return "; ".join(self.watch.noted)

    def _caught(self) -> tuple[str, str]:
        """What was written to stdout and stderr since, without lines that tell times."""
        texts = []
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            text = (self.scratch / str(number)).read_bytes().decode("utf-8", "replace")
            os.ftruncate(number, 0)
            texts.append(_TIMES.sub("", text))
        return texts[0], texts[1]


def mutate(kind: Any, folder: Path, rng: Random) -> str:
    """Changes one file of an example, now and then two; says how."""
    from tests.hostile.formats import mutators
    from tests.hostile.mutations import PLACES, flipped

    done = []
    for _ in range(rng.choice([1, 1, 1, 1, 2])):
        path = kind.chosen(folder, rng)
        if rng.random() < 0.12:
            name = rng.choice(list(PLACES))
            PLACES[name](path, rng)
        else:
            mutator = rng.choice(mutators(path))
            name, data = mutator.__name__, path.read_bytes()
            try:
                path.write_bytes(mutator(data, rng))
            except (ValueError, LookupError, struct.error, zipfile.BadZipFile):
                # One that knows the format, in a file that is damaged already.
                path.write_bytes(flipped(data, rng))
        done.append(f"{name} of {path.relative_to(folder)}")
        if not kind.files(folder):
            break
    kind.after(folder)
    return ", ".join(done)


def _status_mib(process: int | str, field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) >> 10
    return 0


def _serve(pipe: Connection, scratch: Path) -> None:
    child = _Child(scratch)
    pipe.send("ready")
    while True:
        kind, *case = pipe.recv()
        if kind not in child.good:
            child.prepare(kind)
        changed = child.change(kind, *case)
        pipe.send((changed,))
        pipe.send(child.run(kind, changed))


class Harness:
    """The parent's side: it has the clock, and begins a new process when one is lost."""

    def __init__(self) -> None:
        self._process: Any = None

    def run(self, kind: str, seed: int, number: int, patience: int = 1) -> Outcome:
        """One case, whatever it does; `patience` times as long as `LIMIT_S` at most."""
        if self._process is None:
            self._start()
        self._pipe.send((kind, seed, number))
        began = self._receive(_STARTING_S)
        if not isinstance(began, tuple):
            self.close()
            raise RuntimeError(f"the healthy example of {kind} was not read: {began}")
        outcome = self._receive(LIMIT_S * patience)
        if isinstance(outcome, Outcome):
            return outcome
        self.close()
        late, large = f"no end after {LIMIT_S * patience:g} s", f"more than {2 * LIMIT_MIB} MiB"
        ends = {"hang": late, "memory": large}
        what = outcome if outcome in ends else "traceback"
        return Outcome(what, began[0], ends.get(outcome, outcome))

    def _start(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="hostile-"))
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self._scratch), daemon=False)
        self._process.start()
        other.close()
        assert self._receive(_STARTING_S) == "ready"

    def _receive(self, limit_s: float) -> Any:
        """What the child sends; else how it failed, in a word."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if self._pipe.poll(0.2):
                try:
                    return self._pipe.recv()
                except EOFError:
                    self._process.join()
                    log = (self._scratch / "2").read_text(errors="replace")[-1500:]
                    return f"the process died ({self._process.exitcode}): {log}"
            if _status_mib(self._process.pid, "VmRSS") > 2 * LIMIT_MIB:
                return "memory"
        return "hang"

    def close(self) -> None:
        """Ends the process, whatever it does, and removes what it left."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._process = None


@contextlib.contextmanager
def harness() -> Iterator[Harness]:
    one = Harness()
    try:
        yield one
    finally:
        one.close()
