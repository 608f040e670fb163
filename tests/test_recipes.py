from __future__ import annotations

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.recipes import check_sections
from tests.support.root import ROOT


def config() -> ConfigDict:
    return ConfigDict(
        {"a": {"number": 1, "rate": 0.5, "on": True, "name": "x", "pair": ("p", "q"), "no": None}}
    )


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("--config.a.number=3", "number", 3),
        ("--config.a.rate=1", "rate", 1.0),
        ("--config.a.rate=1e-3", "rate", 1e-3),
        ("--config.a.on=false", "on", False),
        ("--config.a.name=7", "name", "7"),
        ("--config.a.pair=r,s,t", "pair", ("r", "s", "t")),
        ("--config.a.pair=r", "pair", ("r",)),
        ("--config.a.pair=(1, 2)", "pair", (1, 2)),
        ("--config.a.no=4", "no", 4),
        ("--config.a.number=None", "number", None),
    ],
)
def test_a_value_takes_the_type_of_the_one_it_replaces(argument, key, value):
    c = config()
    recipes.override(c, [argument])
    assert c.a[key] == value
    assert type(c.a[key]) is type(value)


def test_a_value_may_stand_apart_from_its_key():
    c = config()
    assert recipes.override(c, ["--config.a.number", "3"]) == ["a.number=3"]
    assert c.a.number == 3


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.a.numbr=3", "did you mean 'number'"),
        ("--config.b.number=3", "no 'b'"),
        ("--config.a.number=many", "expected int"),
        ("--config.a.number=2.5", "expected int"),
        ("--config.a.on=perhaps", "true or false"),
        ("--config.a=3", "section"),
        ("--config.a.number.x=3", "no 'x'"),
        ("--cfg.a.number=3", "unknown argument"),
        ("--config.a.number", "no value"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(argument, message):
    with pytest.raises(UserError, match=message) as caught:
        recipes.override(config(), [argument])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["quickstart", "quickstart.py", "configs/quickstart.py"])
def test_a_recipe_is_found_by_name_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, arg = recipes.find(f"{name}:visual")
    assert (file.name, arg) == ("quickstart.py", "visual")


def test_a_recipe_of_a_group_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipes.find("tiny", "encoders")[0].name == "tiny.py"
    assert recipes.find("configs/encoders/tiny.py", "encoders")[0].name == "tiny.py"


def test_an_unknown_recipe_or_variant_says_what_there_is():
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        recipes.find("quikstart")
    with pytest.raises(UserError, match="did you mean 'visual'"):
        recipes.load("quickstart:visaul")


@pytest.mark.parametrize("name", ["common", "configs/common.py"])
def test_what_recipes_share_is_no_recipe(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert name not in recipes.names()
    with pytest.raises(UserError, match="no recipe"):
        recipes.load(name)
    with pytest.raises(UserError, match="the recipe lacks model"):
        check_sections(recipes.common())


def test_ones_own_recipe_is_read_from_its_path_and_begins_from_the_common_values(
    tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(
        "from maven_jax import recipes\n"
        "def get_config(arg=''):\n    c = recipes.common()\n    c.arg = arg\n    return c\n"
    )
    assert recipes.load(f"{file}:x") == ConfigDict({**recipes.common(), "arg": "x"})
    file.write_text("x = (")
    with pytest.raises(UserError, match=r"mine\.py"):
        recipes.load(str(file))


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_has_all_sections_and_says_how_to_run_it(name):
    check_sections(recipes.load(name))
    assert "maven-jax train --config" in recipes.find(name)[0].read_text().split('"""')[1]


def test_a_stray_and_a_missing_key_are_named():
    def function(*, width: int, depth: int = 2) -> int:
        return width * depth

    assert recipes.call(function, {"width": 3}, "model") == 6
    with pytest.raises(UserError, match=r"config\.model has a key 'widht'; did you mean 'width'"):
        recipes.call(function, {"widht": 3}, "model")
    with pytest.raises(UserError, match=r"config\.model lacks width"):
        recipes.call(function, {}, "model")
    with pytest.raises(UserError, match="has a key 'depth'"):
        recipes.call(function, {"width": 3, "depth": 1}, "model", depth=4)


def test_a_model_recorded_before_a_key_came_keeps_what_it_did():
    def recorded(name: str) -> ConfigDict:
        return recipes.from_record({"model": {"name": name}, "eval": {}})

    assert recorded("grjca").model.unit_length is False
    assert "unit_length" not in recorded("rjcma").model
    assert recorded("rjcma").eval.blend == "mean"
