"""Values that a recipe cannot have are refused in one line before anything is compiled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maven_jax import recipes
from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.recipes import check_sections
from maven_jax.store.reader import Store
from maven_jax.training.stages import StageBuilder
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=2, frames=120)


WRONG = {
    "eval.batch_size=None": "expected a whole number from 1",
    "train.batch_size=0": "expected a whole number from 1",
    "train.batch_size=1000000000000000000": "expected a whole number from 1 to 65,536",
    "train.batch_size=x": "expected int",
    "train.batch_size=3,4": "expected int",
    "train.num_epochs=-1": "expected a number above 0",
    "train.num_epochs=nan": "expected",
    "train.num_epochs=1e999": "expected a number above 0",
    "train.stages=(": "expected regular expressions",
    "optimizer.learning_rate=-1": "expected a number from 0",
    "optimizer.name=sgdd": "sgdd",
    "optimizer.schedule_kind=cosin": "cosin",
    "model.embed_dim=65": "num_heads 2 does not divide the width 65",
    "model.num_heads=3": "num_heads 3 does not divide the width 16",
    "model.num_heads=0": "expected a whole number from 1",
    "model.dropout_rate=1.5": "expected a number from 0 and below 1",
    "model.readout=x": "expected 'frame' or 'pooled'",
    "model.beit_layers=1000000000000000000": "expected a whole number from 1 to 1,000",
    "model.embed_dim=65536": "config.model: .* parameters; at most",
    "model.dtype=floot": "config.model",
    "model.head_dims=0,x": "expected a list, each a whole number",
    "data.window.length=0": "expected a whole number from 1",
    "data.single_vector=None": "expected a section",
    "seed=-1": "expected a whole number from 0",
    "mesh.data=0.5": "expected int",
    "eval.smooth_frames=1,2,3": "expected two numbers of frames",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_on_the_command_line_is_one_line(override, store, tmp_path, capsys):
    narrow = small_recipe(store.path).model
    words = [f"--config.model.{k}={narrow[k]}" for k in ("embed_dim", "refine_dim")]
    words += ["--config.model.head_dims=8", "--config.data.synthetic=None"]
    words += [f"--config.data.store={store.path}", f"--config.{override}"]
    words += [f"--workdir={tmp_path}/run", "--config=quickstart"]
    assert main(["train", *words]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert override.partition("=")[0].split(".")[0] in said.err
    assert re.search(WRONG[override], said.err)
    assert "compiling" not in said.out


def leaves(section, path=()):
    for key, value in section.items():
        yield (*path, key)
        if hasattr(value, "items"):
            yield from leaves(value, (*path, key))


BAD = [None, "x", -1, 0, 10**18, 1.5, float("nan"), float("inf"), True, (), {"a": 1}]


def tried(name: str, store: Store, only: str = "") -> list[str]:
    """What other errors than UserError come of bad values, tried at every key of a recipe."""
    base = recipes.load(name)
    base.data.synthetic, base.data.store = None, str(store.path)
    surprises = []
    for path in leaves(base):
        if not ".".join(path).startswith(only):
            continue
        for value in BAD:
            config = recipes.from_json(base.to_dict())
            node = config
            for key in path[:-1]:
                node = node[key]
            with node.ignore_type():
                node[path[-1]] = value
            try:
                check_sections(config)
                experiment = Experiment(config, store)
                experiment.windows("train", train=True)
                StageBuilder(experiment, steps_per_epoch=3, total_steps=9).build(0, 0)
            except UserError as error:
                if "\n" in str(error):
                    surprises.append(f"{path} {value}: {error}")
            except Exception as error:
                surprises.append(f"{path} {value}: {type(error).__name__} {error}")
    return surprises


SECTIONS = {
    "quickstart:concat": ("data", "train.plateau", "optimizer", "mesh", "inputs"),
    "features": ("model.ridge",),
    "ras_reliability": ("model.num_layers",),
}


@pytest.mark.parametrize(
    ("name", "section"), [(name, s) for name, sections in SECTIONS.items() for s in sections]
)
def test_no_value_of_a_section_ends_in_a_traceback(name, section, store):
    assert tried(name, store, section) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.names())
def test_no_value_of_any_recipe_ends_in_a_traceback(name, store):
    assert tried(name, store) == []


RECIPES = {
    "import nothing_there": "recipe.py:1: ModuleNotFoundError",
    "x = 1\ny = z": "recipe.py:2: NameError: name 'z' is not defined",
    "def get_config(arg=''):\n    return 1 + 'a'": "recipe.py:2: TypeError",
    "def get_config(arg=''):\n    return {}": "returned dict, not a ConfigDict",
    "def get_config():\n    return 1": "recipe.py: TypeError",
    "def get_config(arg=''):\n  return (": "recipe.py:2: SyntaxError",
    "x = {}['key']": "recipe.py:1: KeyError",
    "1 / 0": "recipe.py:1: ZeroDivisionError",
    "def f(): f()\nf()": "recipe.py:1: RecursionError",
    "y = 1": "has no get_config",
    "raise MemoryError": "recipe.py:1: MemoryError",
    "from maven_jax.recipes import load\ndef get_config(arg=''):\n  return load('nothing')": (
        "recipe.py: no recipe 'nothing'"
    ),
}


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_that_fails_is_one_line_that_names_file_and_line(text, tmp_path):
    file: Path = tmp_path / "recipe.py"
    file.write_text(text)
    with pytest.raises(UserError, match=RECIPES[text]) as caught:
        recipes.load(str(file))
    assert "\n" not in str(caught.value)
