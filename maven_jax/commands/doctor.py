"""`maven-jax doctor`: is this machine fit to train and to predict, and if not, what to do."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table
from rich.text import Text

from maven_jax.command_line import Parser
from maven_jax.errors import disk_refusal
from maven_jax.kernels.check import TOLERANCE, differences
from maven_jax.progress import console, say, silence
from maven_jax.runtime import compilation
from maven_jax.version import __version__

# Space for a bundle, some checkpoints and the corpus of the quickstart.
_NEEDED_BYTES = 2 << 30
# The self-test's features hold its targets under noise of 0.3: a model that learns is far above
# 0.5, one that does not stays near 0.
_LEAST_CCC = 0.5


@dataclass(frozen=True)
class Result:
    """One check's outcome.

    Attributes:
        passed: whether it is as it should be.
        finding: what the check saw.
        advice: what to do; "" if it passed.
    """

    passed: bool
    finding: str
    advice: str = ""


Check = Callable[[Path], Result]

_INSTALL = "pip install -e . -c constraints.txt"
_CUDA = "pip install -e '.[cuda]' -c constraints.txt"
_AV = "pip install --force-reinstall av (the wheel brings its own libav)"
_REPORT = "report it with this line"
# There is no folder for temporary files, or it cannot be written, or it is full.
_NO_PLACE = (errno.ENOENT, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def _line(error: BaseException) -> str:
    """The kind of an error and the first line that it says, if it says any."""
    words = str(error).strip().splitlines()[:1]
    return ": ".join([type(error).__name__, *words])


def check_versions(place: Path) -> Result:
    """Python and the packages that this one requires, against what it asks for."""
    from packaging.requirements import Requirement

    faults = []
    for line in importlib.metadata.requires("maven_jax") or []:
        package = Requirement(line)
        if package.marker is not None and not package.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{package.name} is missing")
            continue
        if not package.specifier.contains(version, prereleases=True):
            faults.append(f"{package.name} {version}, needs {package.specifier}")
    names = ("jax", "flax", "orbax-checkpoint", "av", "opencv-python-headless")
    versions = ", ".join(f"{n} {_version(n)}" for n in names)
    finding = f"maven_jax {__version__}, Python {platform.python_version()}, {versions}"
    if faults:
        return Result(False, "; ".join(faults), _INSTALL)
    return Result(True, finding)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def check_devices(place: Path) -> Result:
    """JAX's devices compute; a graphics card that JAX does not see is a fault."""
    try:
        devices = jax.devices()
    except Exception as error:  # each of its platforms has its own
        chosen = os.environ.get("JAX_PLATFORMS")
        advice = f"unset JAX_PLATFORMS={chosen}, or {_CUDA}" if chosen else _INSTALL
        return Result(False, f"JAX finds no device: {_line(error)}", advice)
    x = jax.random.normal(jax.random.key(0), (256, 256))
    expected = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    with jax.default_matmul_precision("highest"):
        products = [jax.jit(lambda a: a @ a.T)(jax.device_put(x, d)) for d in jax.local_devices()]
    worst = max(float(np.abs(np.asarray(product) - expected).max()) for product in products)
    kinds = ", ".join(sorted({d.device_kind for d in devices}))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    finding = f"{len(devices)} x {jax.default_backend()} ({kinds}), {cores} processor cores"
    if worst > 1e-2:
        return Result(False, f"{finding}: a product is off by {worst:.1e}", "the device is faulty")
    if jax.default_backend() == "cpu" and Path("/proc/driver/nvidia/version").exists():
        return Result(False, f"{finding}; an NVIDIA driver is here, but JAX sees no GPU", _CUDA)
    return Result(True, finding)


def check_kernels(place: Path) -> Result:
    """What a GPU computes its own way is what the formulas say."""
    try:
        compared = dict(differences())
    except Exception as error:  # of a compiler, a driver or one of their libraries
        return Result(False, f"a kernel fails: {_line(error)}", _REPORT)
    if not compared:
        return Result(True, "formulas as they are: this device has no kernels that round")
    finding = ", ".join(f"{name} {value:.1e}" for name, value in compared.items())
    finding = f"bfloat16 kernels and formulas differ by: {finding}"
    # NaN is a fault too.
    faulty = not all(value < TOLERANCE for value in compared.values())
    return Result(not faulty, finding, _REPORT if faulty else "")


def check_decoder(place: Path) -> Result:
    """Encodes a clip of known pictures, times and sound, and decodes it as `prepare` does."""
    path = place / "clip.mp4"
    try:
        from maven_jax.media import sample_clip
        from maven_jax.media.sample_clip import FRAMES, SECONDS, TIMES_S

        sample_clip.write_clip(path)
        times_s, brightness, samples_s = sample_clip.decode_clip(path)
    except Exception as error:  # whatever libav makes of it
        return Result(False, f"a clip cannot be written and read: {_line(error)}", _AV)
    if len(times_s) != FRAMES or np.abs(times_s - TIMES_S).max() > 1e-3:
        return Result(False, f"{len(times_s)} of {FRAMES} frames, or other times", _AV)
    if (np.diff(brightness) < 1).any():
        return Result(False, "pictures come out in another order or shade", _AV)
    if abs(samples_s - SECONDS) > 0.1:
        return Result(False, f"{samples_s:.2f} s of sound instead of {SECONDS:.2f} s", _AV)
    return Result(
        True, f"H.264 and AAC through PyAV {_version('av')}: {FRAMES} frames, times to 1 ms, sound"
    )


def check_faces(place: Path) -> Result:
    """OpenCV's face cascade is there and runs, and so does the detector that is taken."""
    advice = "pip install 'opencv-python-headless>=4.10,<5' (5.0's wheel has no cascades)"
    try:
        import cv2

        from maven_jax.convert.face_detectors import open_detector
        from maven_jax.media.face_search import FaceSearch
    except ImportError as error:
        return Result(False, f"OpenCV cannot be loaded: {_line(error)}", advice)
    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    path = Path(folder) / "haarcascade_frontalface_default.xml"
    if not folder or not path.is_file():
        return Result(False, f"OpenCV {cv2.__version__} without face cascades", advice)
    cascade = cv2.CascadeClassifier(str(path))
    if cascade.empty():
        return Result(False, f"{path.name} cannot be read", advice)
    cascade.detectMultiScale(np.full((240, 320), 127, np.uint8))
    detector = open_detector(FaceSearch(), note=lambda text: None)
    detector(np.full((240, 320, 3), 127, np.uint8), [], True)
    return Result(True, f"OpenCV {cv2.__version__}; faces are found by {detector.name}")


def check_disk(place: Path) -> Result:
    """Free space, and that what is written is read again."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    finding = f"{free / 2**30:,.1f} GiB free in {here}"
    try:
        with tempfile.NamedTemporaryFile(dir=here, prefix=".maven-jax-doctor-") as file:
            block = os.urandom(1 << 20)
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            same = file.read() == block
    except OSError as error:
        reason = disk_refusal(error) or error.strerror
        return Result(False, f"{here}: {reason}", "make room, or work in another folder")
    if not same:
        return Result(False, f"{here}: other bytes come back than were written", "another disk")
    if free < _NEEDED_BYTES:
        return Result(False, finding, f"make room: {_NEEDED_BYTES >> 30} GiB are needed")
    return Result(True, finding)


def check_cache(place: Path) -> Result:
    """The folder of compiled programs can be written, so that a second start is fast."""
    if not jax.config.jax_enable_compilation_cache:
        return Result(True, "switched off (JAX_ENABLE_COMPILATION_CACHE)")
    folder = Path(_cache_in_use() or compilation.cache_folder())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        advice = "JAX_COMPILATION_CACHE_DIR=FOLDER names one that can be written"
        return Result(False, f"{folder}: {error.strerror}: every start compiles anew", advice)
    count = sum(1 for p in folder.iterdir() if p.is_file())
    return Result(True, f"{folder}, {count} files")


def _cache_in_use() -> str | None:
    """What the user, or an earlier command in this process, has set."""
    return jax.config.jax_compilation_cache_dir


def check_training(place: Path) -> Result:
    """Writes a store, trains on it, saves, restores and evaluates: with the network barred."""
    # Training takes seconds to import; --quick leaves it out.
    from maven_jax.training import self_test

    began, addresses = time.monotonic(), []
    with _no_network(addresses):
        try:
            before, after = self_test.train_and_score(place)
        except Exception as error:
            advice = "mend what fails above, if anything does; otherwise report this line"
            return Result(False, f"training a tiny model: {_line(error)}", advice)
    took = time.monotonic() - began
    finding = f"a tiny model learns: CCC {before:.2f} -> {after:.2f} in {took:.0f} s"
    if addresses:
        return Result(False, f"{finding}; it asked the network for {addresses[0]}", "report it")
    if not after > _LEAST_CCC:
        return Result(
            False, f"{finding}, expected more than {_LEAST_CCC}", "the device or JAX is faulty"
        )
    return Result(True, f"{finding}; saved, restored, evaluated; no network asked for")


@contextmanager
def _no_network(addresses: list[str]) -> Iterator[None]:
    """Refuses, and notes, every connection to another machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        local = not isinstance(address, tuple) or str(address[0]) in ("127.0.0.1", "::1")
        if local:
            return connect(self, address)
        addresses.append(str(address[0]))
        raise OSError("the network is barred")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]


CHECKS: dict[str, Check] = {
    "versions": check_versions,
    "devices": check_devices,
    "kernels": check_kernels,
    "decoder": check_decoder,
    "faces": check_faces,
    "disk": check_disk,
    "compilation cache": check_cache,
    "self-test": check_training,
}


def run_checks(checks: dict[str, Check]) -> dict[str, Result]:
    """The checks' results; one that breaks has failed."""
    results = {}
    for name, check in checks.items():
        try:
            with tempfile.TemporaryDirectory(prefix="maven-jax-doctor-") as place:
                results[name] = check(Path(place))
        except Exception as error:
            refusal = isinstance(error, OSError) and error.errno in _NO_PLACE
            advice = "TMPDIR=FOLDER names one with room that can be written" if refusal else _REPORT
            results[name] = Result(False, _line(error), advice)
    return results


def show(results: dict[str, Result]) -> None:
    """Prints a row for each check and what to do about those that failed."""
    table = Table(show_header=False, show_edge=False, box=None, padding=(0, 2, 0, 0))
    for name, result in results.items():
        # Text: in a plain string [cuda] would be read as a style and not be shown.
        table.add_row("PASS" if result.passed else "FAIL", name, Text(result.finding))
        if not result.passed:
            table.add_row("", "", Text(f"-> {result.advice}"))
    console.print(table)
    failed = [name for name, result in results.items() if not result.passed]
    say(f"{len(failed)} of {len(results)} failed: {', '.join(failed)}" if failed else "all is well")


def main(argv: list[str]) -> int:
    """`maven-jax doctor`."""
    p = Parser(
        prog="maven-jax doctor",
        description="Check devices, versions, video decoding, face detection, disk and cache, and "
        "train a tiny model, within half a minute on two cores. Exit code 1 if anything fails.",
    )
    p.add_argument("--quick", action="store_true", help="without the training")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = p.parse_args(argv)
    if args.json:
        silence()
    checks = {k: v for k, v in CHECKS.items() if not (args.quick and v is check_training)}
    results = run_checks(checks)
    if args.json:
        print(json.dumps({k: asdict(r) for k, r in results.items()}, indent=2, ensure_ascii=False))
    show(results)
    sys.stdout.flush()
    return 0 if all(r.passed for r in results.values()) else 1
