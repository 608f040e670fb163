"""`pytest tests/models --recipe FILE.py`: what all models are tested for, of one's own model."""

from maven_jax import recipes
from tests.support import small_models


def pytest_addoption(parser):
    parser.addoption("--recipe", help="test the model of this recipe, instead of the package's")


def pytest_configure(config):
    name = config.getoption("--recipe", None)
    if name:
        section = recipes.plain(recipes.load(name).model)
        small_models.SMALL = {"own": (section.pop("name"), section)}


def pytest_collection_modifyitems(config, items):
    if config.getoption("--recipe", None):
        items[:] = [
            item for item in items if hasattr(item, "callspec") and "own" in item.callspec.id
        ]
