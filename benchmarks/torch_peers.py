"""PyTorch's side of the benchmark of a GPU: where it runs, eagerly and by `torch.compile`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from maven_jax.progress import say, timed

# Begins a step or a forward pass, and returns what is there when it is done.
Begin = Callable[[], Any]
KINDS = ("none", "eager", "compile")


class Peers:
    """Networks in bfloat16 on PyTorch's device.

    Args:
        kind: one of `KINDS`: no peers, eager ones, or `torch.compile` too.
        toy: peers on whatever PyTorch has.

    Attributes:
        kind: what is to be had here of it.
        device: where the networks run.
        peak_bytes: the most memory that the last peers took beyond what they take between steps.
    """

    def __init__(self, kind: str, toy: bool):
        self._cuda, self._toy = torch.cuda.is_available(), toy
        if kind != "none" and not (self._cuda or toy):
            say("PyTorch sees no GPU (its CUDA build is missing?): the peers' columns stay empty")
            kind = "none"
        self.kind, self.peak_bytes = kind, 0
        self.device = torch.device("cuda" if self._cuda else "cpu")
        if toy:
            torch.set_num_threads(1)  # two that wait for each other are slow on a busy machine

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU; processors take many times as long with it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._cuda)

    def of(self, module: torch.nn.Module, step: Callable[[Any], Begin]) -> dict[str, Begin]:
        """The network's steps, as far as they are to be had here; each was taken once.

        Args:
            module: already on the peers' device.
            step: what makes a step of it, or of the compiled module.
        """
        self.peak_bytes = 0
        works = {}
        # The compiled network first: its compiler works on the host for long, beside ours.
        if self.kind == "compile":
            # A toy leaves out the code generator: minutes on a processor, and not the GPU's.
            backend = "eager" if self._toy else "inductor"
            with timed("torch.compile"):
                self._add(works, "compiled", lambda: step(torch.compile(module, backend=backend)))
        if self.kind != "none":
            self._add(works, "eager", lambda: step(module))
        return works

    def _add(self, works: dict[str, Begin], name: str, make: Callable[[], Begin]) -> None:
        """Adds a step that works, with its first call behind it."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            begin = make()
            begin()
            self.wait()
        except Exception as error:  # whatever its many parts raise, the others are measured
            what = "torch.compile" if name == "compiled" else "PyTorch's step"
            say(f"{what} failed ({type(error).__name__}): its column stays empty")
        else:
            works[name] = begin
        if self._cuda:
            extra = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
            self.peak_bytes = max(self.peak_bytes, extra)
        self.free()

    def wait(self) -> None:
        """Until the device is idle."""
        if self._cuda:
            torch.cuda.synchronize()

    def free(self) -> None:
        """Gives memory that is not in use back to the device."""
        with contextlib.suppress(AttributeError):  # absent from builds without CUDA
            torch.cuda.empty_cache()

    def free_bytes(self) -> float:
        """Of the device, for PyTorch and JAX together; infinite for a processor."""
        return torch.cuda.mem_get_info()[0] if self._cuda else float("inf")
