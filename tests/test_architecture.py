"""The plan of the house, read from the code's own imports, those inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.root import ROOT

# From the roof to the ground: a floor imports only what lies below it. Rooms of one floor do not
# know each other, but for the ground, where all that stand alone are side by side.
FLOORS = (
    ("__init__", "__main__"),
    ("commands",),
    ("training",),
    ("challenge", "video"),
    ("runs",),
    ("experiment",),
    ("evaluation",),
    ("state",),
    ("data", "models"),
    ("features",),
    ("store", "convert"),
    ("encoders", "media"),
    ("layers",),
    ("runtime",),
    ("kernels",),
)
GROUND = (
    "command_line",
    "concordance",
    "errors",
    "files",
    "inputs",
    "outputs",
    "own_files",
    "progress",
    "recipe_values",
    "recipes",
    "types",
    "version",
)
# The public face hands names on; `train` makes the synthetic store of the quickstart.
DOORS = {("maven_jax.commands.train", "data_prep.synth.store")}
# What a model, a layer or an encoder computes does not depend on where.
PLATFORM_FREE = ("models", "layers", "encoders")
PLATFORM = {
    "default_backend",
    "device_count",
    "devices",
    "get_abstract_mesh",
    "local_device_count",
    "local_devices",
    "platform",
    "device_kind",
    "on_one_processor",
}

Code = Mapping[str, str]  # dotted name of a module -> its source


def read_code() -> dict[str, str]:
    files = [f for p in ("maven_jax", "data_prep") for f in (ROOT / p).rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts): f.read_text() for f in files}


def imports(code: Code, module: str) -> Iterator[str]:
    """The modules of the project that a module imports, wherever it does."""
    for node in ast.walk(ast.parse(code[module])):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in code else node.module for name in names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("maven_jax", "data_prep"):
                yield name if name in code else f"{name}.__init__"


def room(module: str) -> str:
    """The folder of `maven_jax` that a module lies in; its name, if it lies in none."""
    return module.split(".")[1]


def floor(module: str) -> int:
    """Counted from the roof."""
    at = {name: i for i, names in enumerate((*FLOORS, GROUND)) for name in names}
    return at[room(module)]


def breaches(code: Code) -> list[str]:
    """Imports that go up, or sideways to another room."""
    found = []
    for module in code:
        for target in imports(code, module):
            ours, theirs = module.split(".")[0], target.split(".")[0]
            if ours == "data_prep" or (module, target) in DOORS:
                continue
            if theirs == "data_prep":
                found.append(f"{module} imports {target}")
            elif module != "maven_jax.__init__" and room(module) != room(target):
                below = floor(target) > floor(module)
                if not below and not {room(module), room(target)} <= set(GROUND):
                    found.append(f"{module} imports {target}")
    return found


def circles(code: Code) -> list[list[str]]:
    """Modules that import each other in a loop."""
    targets = {m: {t for t in imports(code, m) if t in code and t != m} for m in code}
    while True:
        ends = [m for m, to in targets.items() if not to & targets.keys()]
        if not ends:
            break
        for module in ends:
            del targets[module]
    # What is left leads into a circle: walk until a module comes again.
    found = []
    while targets:
        path = [next(iter(targets))]
        while (step := next(iter(targets[path[-1]] & targets.keys()), None)) is not None:
            if step in path:
                found.append(path[path.index(step) :])
                break
            path.append(step)
        for module in path:
            targets.pop(module, None)
    return found


def platform_questions(code: Code) -> list[str]:
    """Where a model, a layer or an encoder asks what the program runs on."""
    found = []
    for module, source in code.items():
        if module.startswith("maven_jax.") and room(module) in PLATFORM_FREE:
            for node in ast.walk(ast.parse(source)):
                asked = {
                    ast.Attribute: lambda n: n.attr,
                    ast.Name: lambda n: n.id,
                    ast.alias: lambda n: n.name.split(".")[-1],
                }.get(type(node), lambda n: "")(node)
                if asked in PLATFORM:
                    found.append(f"{module}: {asked}")
    return found


def test_every_room_is_on_the_plan():
    planned = {name for names in (*FLOORS, GROUND) for name in names}
    assert {room(m) for m in read_code() if m.startswith("maven_jax.")} == planned


def test_imports_go_one_way():
    assert breaches(read_code()) == []


def test_no_files_import_each_other():
    assert circles(read_code()) == []


def test_no_model_asks_what_it_runs_on():
    assert platform_questions(read_code()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("maven_jax.media.align", "import data_prep.prepare"),
        ("maven_jax.store.reader", "def f():\n    from maven_jax.training import train"),
        ("maven_jax.data.windows", "from maven_jax.models import registry"),
        ("maven_jax.errors", "import maven_jax.kernels.causal_conv"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_noticed(module, line):
    code = read_code()
    code[module] += f"\n{line}\n"
    assert len(breaches(code)) == 1


def test_a_circle_is_noticed_even_in_a_function():
    code = read_code()
    code["maven_jax.errors"] += "\ndef f():\n    from maven_jax.recipes import load\n"
    assert any("maven_jax.errors" in circle for circle in circles(code))


@pytest.mark.parametrize(
    "line", ["import jax\nx = jax.default_backend()", "from jax import devices as d"]
)
def test_a_model_that_asks_is_noticed(line):
    code = read_code()
    code["maven_jax.models.rjca"] += f"\n{line}\n"
    assert len(platform_questions(code)) == 1


def test_few_files_stand_outside_folders_and_none_is_long():
    assert len(list((ROOT / "maven_jax").glob("*.py"))) <= 16
    assert len(list((ROOT / "data_prep").glob("*.py"))) <= 8
    folders = ("maven_jax", "data_prep", "configs", "launch", "benchmarks", "tests")
    files = [f for folder in folders for f in (ROOT / folder).rglob("*.py")]
    long = {str(f.relative_to(ROOT)): n for f in files if (n := _lines(f)) > 500}
    assert long == {}


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines())
