"""Reads the text of a compiled program: its computations, and how often each line is executed.

The text is XLA's optimised HLO, as `compiled.as_text()` gives it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) ")
_OPCODE = re.compile(r"(?P<opcode>[a-z][\w\-]*)\((?P<operands>[^()]*)\)")
_CALLED = re.compile(r"(?:calls|to_apply|called_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
# Of these the first operand is the value.
_SAME = ("copy", "bitcast", "convert", "copy-done", "reshape")


@dataclasses.dataclass(frozen=True)
class Program:
    """The computations of a program.

    Attributes:
        computations: name -> its lines.
        entry: name of the computation that is executed first.
    """

    computations: Mapping[str, list[str]]
    entry: str

    @classmethod
    def of(cls, text: str) -> Program:
        """The program of a text."""
        computations: dict[str, list[str]] = {}
        entry, lines = "", []
        for line in text.splitlines():
            if match := _COMPUTATION.match(line):
                lines = computations.setdefault(match[2], [])
                entry = match[2] if match[1] else entry
            else:
                lines.append(line)
        return cls(computations, entry)

    def executions(self, *, in_fusions: bool) -> Iterator[tuple[str, int]]:
        """(line, how often it is executed), those in loops as often as the loops run.

        Args:
            in_fusions: also the lines of which a fused operation is made.

        Raises:
            ValueError: a loop does not say how often it runs.
        """
        return self._executions(self.entry, 1, in_fusions)

    def _executions(self, name: str, times: int, in_fusions: bool) -> Iterator[tuple[str, int]]:
        for line in self.computations.get(name, ()):
            yield line, times
            if body := _attribute(line, "body"):
                yield from self._executions(body, times * self.trips(name, line), in_fusions)
                continue
            if " fusion(" in line and not in_fusions:
                continue
            called = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                called += [b.strip().lstrip("%") for b in branches.split(",")]
            for other in called:
                yield from self._executions(other, times, in_fusions)

    def trips(self, computation: str, line: str) -> int:
        """How often the loop of a line runs.

        The compiler for TPUs leaves the number out: it is counted from where the loop's counter
        starts, what is added to it, and with what it is compared.

        Args:
            computation: that the line belongs to.
            line: of a `while`.

        Raises:
            ValueError: the text does not tell.
        """
        if known := _TRIPS.search(line):
            return int(known[1])
        try:
            return self._counted_trips(computation, line)
        except (KeyError, LookupError) as error:
            raise ValueError(f"a loop without a known number of runs: {line[:200]}") from error

    def _counted_trips(self, computation: str, line: str) -> int:
        condition, body = _attribute(line, "condition"), _attribute(line, "body")
        start = self._operands(computation, self._operation(line)[1][0])

        def value(within: str, name: str) -> int:
            """A number, or that of the carried element which stays as it was."""
            constant, element = self._scalar(within, name)
            if element is None:
                return constant
            if self._step(body, element):
                raise LookupError(name)
            return value(computation, start[element]) + constant

        compared, operands = self._comparison(condition)
        offset, counter = self._scalar(*operands[0])
        if counter is None:
            raise LookupError(operands[0][1])
        first = value(computation, start[counter]) + offset
        last, step = value(*operands[1]), self._step(body, counter)
        direction = _attribute(compared, "direction")
        if not step or (direction in ("LT", "LE")) != (step > 0):
            raise LookupError(direction)
        reached = {"LT": 0, "LE": 1, "GT": 0, "GE": 1}[direction]
        return max(math.ceil((last - first) / step + reached / abs(step)), 0)

    def _comparison(self, condition: str) -> tuple[str, list[tuple[str, str]]]:
        """The line of a condition's comparison, and (computation, name) of its operands."""
        line = self._root(condition)
        opcode, operands = self._operation(line)
        if opcode == "compare":
            return line, [(condition, o) for o in operands]
        fused = _attribute(line, "calls")
        line = self._root(fused)
        inner = self._operation(line)[1]
        given = {
            name: operands[int(self._operation(text)[1][0])]
            for name, text in self._lines[fused].items()
            if self._operation(text)[0] == "parameter"
        }
        return line, [(condition, given[o]) if o in given else (fused, o) for o in inner]

    def _step(self, body: str, element: int) -> int:
        """What a turn of a loop adds to an element of what it carries."""
        added, before = self._scalar(body, self._operands_of_root(body)[element])
        if before != element:
            raise LookupError(element)
        return added

    def _scalar(self, computation: str, name: str) -> tuple[int, int | None]:
        """A number as (constant, element): the constant plus that element of the parameter."""
        opcode, operands = self._operation(self._lines[computation][name])
        if opcode == "constant":
            return int(operands[0]), None
        if opcode == "get-tuple-element":
            source = self._operation(self._lines[computation][operands[0]])[0]
            if source != "parameter":
                raise LookupError(name)
            index = _attribute(self._lines[computation][name], "index")
            return 0, int(index)
        if opcode in _SAME:
            return self._scalar(computation, operands[0])
        if opcode in ("add", "subtract"):
            (a, of_a), (b, of_b) = (self._scalar(computation, o) for o in operands)
            if of_b is None:
                return a + b if opcode == "add" else a - b, of_a
            if of_a is None and opcode == "add":
                return a + b, of_b
        raise LookupError(opcode)

    def _operands(self, computation: str, name: str) -> list[str]:
        return self._operation(self._lines[computation][name])[1]

    def _operands_of_root(self, computation: str) -> list[str]:
        return self._operation(self._root(computation))[1]

    def _root(self, computation: str) -> str:
        return next(x for x in self.computations[computation] if x.lstrip().startswith("ROOT "))

    @functools.cached_property
    def _lines(self) -> dict[str, dict[str, str]]:
        """Computation -> name -> line of each instruction."""
        named: dict[str, dict[str, str]] = {}
        for computation, lines in self.computations.items():
            matches = ((_INSTRUCTION.match(line), line) for line in lines)
            named[computation] = {match["name"]: line for match, line in matches if match}
        return named

    @staticmethod
    def _operation(line: str) -> tuple[str, list[str]]:
        """An instruction's opcode and the names of its operands (the value of a constant)."""
        shape = _INSTRUCTION.match(line)
        match = _OPCODE.match(line, shape.end()) if shape else None
        if match is None:
            raise LookupError(line[:100])
        operands = re.sub(r"/\*.*?\*/", "", match["operands"]).split(",")
        # An operand may have its shape before its name.
        return match["opcode"], [o.split()[-1].lstrip("%") for o in operands if o.strip()]


def _attribute(line: str, name: str) -> str:
    """The word behind `name=`; empty, if there is none."""
    match = re.search(rf"\b{name}=%?([\w.\-]+)", line)
    return match[1] if match else ""
