"""Which values the keys of a recipe may have: checked before anything is built or compiled."""

from __future__ import annotations

import fnmatch
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from maven_jax.errors import UserError

# Bounds of what no machine computes: they stop typing errors and forged files.
MOST_FRAMES = 100_000
MOST_ROWS = 65_536
# Widths, layers and steps of a model.
MOST_UNITS = 65_536
MOST_LAYERS = 1_000


@dataclass(frozen=True)
class Number:
    """A number in a range.

    Attributes:
        low: the least.
        high: the most.
        whole: no fractions.
        above: `low` itself is too little.
        below: `high` itself is too much.
    """

    low: float | int
    high: float | int
    whole: bool = False
    above: bool = False
    below: bool = False

    def fits(self, value: Any) -> bool:
        kinds = int if self.whole else int | float
        if not isinstance(value, kinds) or isinstance(value, bool) or not -1e300 < value < 1e300:
            return False
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        what = "a whole number" if self.whole else "a number"
        return (
            f"{what} {'above' if self.above else 'from'} {self.low:,} "
            f"{'and below' if self.below else 'to'} {self.high:,}"
        )


@dataclass(frozen=True)
class Some:
    """Anything that a test lets through, and what that is in words."""

    words: str
    fits: Callable[[Any], bool]

    def __str__(self) -> str:
        return self.words


def _whole(low: int, high: int) -> Number:
    return Number(low, high, whole=True)


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return True


TEXT = Some("a text", lambda v: isinstance(v, str))
FLAG = Some("true or false", lambda v: isinstance(v, bool))
NONE = Some("None", lambda v: v is None)
SECTION = Some("a section", lambda v: isinstance(v, Mapping))
NAMES = Some(
    "names",
    lambda v: isinstance(v, list | tuple) and all(isinstance(x, str) for x in v),
)
PATTERNS = Some(
    "regular expressions", lambda v: isinstance(v, list | tuple) and all(map(_is_pattern, v))
)
WEIGHTS = Some(
    "a weight for valence and one for arousal",
    lambda v: isinstance(v, list | tuple) and len(v) == 2 and all(map(_COEFFICIENT.fits, v)),
)
WIDTHS = Some(
    "two numbers of frames, of the box filters for valence and arousal; 0 for none",
    lambda v: (
        isinstance(v, list | tuple)
        and len(v) == 2
        and all(_whole(0, MOST_FRAMES).fits(frames) for frames in v)
    ),
)
BLEND = Some("'mean' or 'centre'", lambda v: v in ("mean", "centre"))
COEFFICIENTS = Some(
    "one number from 0 on, or one for each target",
    lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(map(_COEFFICIENT.fits, v)),
)
PENALTIES = Some(
    "numbers above 0",
    lambda v: (
        isinstance(v, list | tuple)
        and len(v) > 0
        and all(Number(0, 1e9, above=True).fits(x) for x in v)
    ),
)
SHARES = Some(
    "shares from 0 to 1, as `0.5,`: one, or several to choose from",
    lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(map(Number(0, 1).fits, v)),
)
_COEFFICIENT = Number(0, 1e6)
_SHARE = Number(0, 1, below=True)

# The first pattern that a key fits names what its value may be. `model` is checked by the types of
# the model's attributes.
RULES: tuple[tuple[str, tuple[Number | Some, ...]], ...] = (
    ("seed", (_whole(0, 2**32 - 1),)),
    ("data.store", (TEXT,)),
    ("data.*_split", (TEXT,)),
    ("data.modalities", (NAMES,)),
    ("data.centre", (SHARES,)),
    ("data.single_vector", (SECTION,)),
    ("data.single_vector.*", (Number(0, 3600, above=True), NONE)),
    ("data.window", (SECTION,)),
    ("data.window.kind", (TEXT,)),
    ("data.window.step_s", (Number(0, 3600, above=True), NONE)),
    ("data.window.*", (_whole(1, MOST_FRAMES),)),
    ("data.fold", (_whole(0, 100_000), NONE)),
    ("data.folds", (_whole(2, 100_000), NONE)),
    ("data.fold_groups", (TEXT, NONE)),
    ("data.mix", (SECTION,)),
    ("data.mix.*.*", ()),
    ("data.mix.*", (SECTION,)),
    ("data.resident", (FLAG,)),
    ("data.num_threads", (_whole(0, 1024),)),
    ("data.synthetic", (SECTION, NONE)),
    ("data.synthetic.seconds", (Number(0, 3600, above=True),)),
    ("data.synthetic.videos", (_whole(1, 100_000),)),
    ("data.synthetic.seed", (_whole(0, 2**32 - 1),)),
    ("data.synthetic.*", (TEXT,)),
    ("inputs.*_dropout", (_SHARE,)),
    ("inputs.speed", (Number(0, 10),)),
    ("inputs.*_std", (Number(0, 1e3),)),
    ("inputs.noise_always", (FLAG,)),
    ("inputs.standardize", (TEXT, SECTION)),
    ("inputs.standardize.*", (TEXT,)),
    ("loss.terms", (SECTION,)),
    ("loss.terms.*", (_COEFFICIENT,)),
    ("loss.dimension_weights", (WEIGHTS,)),
    ("loss.extra_targets", (NAMES,)),
    ("loss.extra_weights", (COEFFICIENTS,)),
    ("loss.min_frames", (_whole(1, MOST_FRAMES),)),
    ("loss.stop_ccc_gradient", (FLAG,)),
    ("optimizer.learning_rate", (Number(0, 1e38),)),
    ("optimizer.b[12]", (_SHARE,)),
    ("optimizer.eps", (Number(0, 1, above=True),)),
    ("optimizer.clip_norm", (Number(0, 1e9, above=True), NONE)),
    ("optimizer.warmup_epochs", (Number(0, 1e6),)),
    ("optimizer.weight_decay", (Number(0, 1e3),)),
    ("optimizer.decay_all", (FLAG,)),
    ("optimizer.penalties", (PENALTIES,)),
    ("optimizer.frame_step", (_whole(1, MOST_FRAMES),)),
    ("optimizer.most_groups", (_whole(2, MOST_ROWS),)),
    ("optimizer.*", (TEXT,)),
    ("train.ema_decay", (_SHARE,)),
    ("train.batch_frames", (_whole(1, 10**7), NONE)),
    ("train.batch_size", (_whole(1, MOST_ROWS),)),
    ("train.accumulate_steps", (_whole(1, MOST_ROWS),)),
    ("train.num_epochs", (Number(0, 1e6, above=True),)),
    ("train.eval_every_epochs", (Number(0, 1e6, above=True),)),
    ("train.log_every_steps", (_whole(1, 10**9),)),
    ("train.wandb", (TEXT, NONE)),
    ("train.mlflow", (TEXT, NONE)),
    ("train.plateau", (SECTION,)),
    ("train.plateau.factor", (Number(0, 1, above=True),)),
    ("train.plateau.min_scale", (Number(0, 1),)),
    ("train.plateau.patience", (_whole(-1, 10**6),)),
    ("train.plateau.stop_patience", (_whole(1, 10**6), NONE)),
    ("train.stages", (PATTERNS,)),
    ("train.init", (SECTION,)),
    ("train.init.*", (TEXT, NONE)),
    ("eval.batch_size", (_whole(1, MOST_ROWS),)),
    ("eval.smooth_frames", (WIDTHS,)),
    ("eval.blend", (BLEND,)),
    ("eval.labels", (SECTION,)),
    ("eval.labels.*", (TEXT, NONE)),
    ("eval.hop", (_whole(1, MOST_FRAMES),)),
    ("checkpoint.every_steps", (_whole(1, 10**9),)),
    ("checkpoint.keep", (SECTION,)),
    ("checkpoint.keep.*", (_whole(1, 10**6),)),
    ("mesh.fsdp", (FLAG,)),
    ("mesh.*", (_whole(-1, MOST_ROWS),)),
)
# Not passed on as keywords, which would tell that one is missing.
_READ_DIRECTLY = tuple(
    key
    for key, _ in RULES
    if re.fullmatch(r"(data|train|eval|checkpoint|mesh)\.\w+|loss\.(dimension|extra)_\w+", key)
)


def check_values(sections: Mapping[str, Any]) -> None:
    """Raises UserError if a value of a recipe is none that its key may have.

    Args:
        sections: the recipe as plain dicts.
    """
    for name, section in sections.items():
        if name != "seed":
            _check(f"config.{name}", section, (SECTION,))
    for key in _READ_DIRECTLY:
        name, _, rest = key.partition(".")
        if rest not in sections[name]:
            raise UserError(f"config.{name} lacks {rest}")
    _check_section("", {k: v for k, v in sections.items() if k != "model"})
    data = sections["data"]
    for key in ("folds", "fold_groups"):
        if data["fold"] is None and data[key] is not None:
            raise UserError(
                f"config.data.{key}={data[key]!r} needs config.data.fold, the number of the fold "
                "to hold out; `maven-jax cross-validate` takes one after the other"
            )


def _check_section(prefix: str, section: Mapping[str, Any]) -> None:
    for name, value in section.items():
        key = f"{prefix}{name}"
        rules = next((r for pattern, r in RULES if fnmatch.fnmatchcase(key, pattern)), None)
        if rules:
            _check(f"config.{key}", value, rules)
        if isinstance(value, Mapping):
            _check_section(f"{key}.", value)


def _check(key: str, value: Any, rules: tuple[Number | Some, ...]) -> None:
    if not any(rule.fits(value) for rule in rules):
        raise UserError(f"{key}={value!r}: expected {' or '.join(map(str, rules))}")


def check_attribute(key: str, value: Any, annotation: Any) -> None:
    """Raises UserError unless a value is one that a model's attribute may have.

    Args:
        key: in the recipe.
        value: of it.
        annotation: the attribute's type, as `typing.get_type_hints` has it; of other types than
            numbers, texts, choices and lists of them nothing is checked.
    """
    rules = _rules_of(key, annotation)
    if rules:
        _check(key, value, rules)


def _rules_of(key: str, annotation: Any) -> tuple[Number | Some, ...]:
    """What an annotation lets through; () for anything."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    name = key.rpartition(".")[2]
    if origin in (types.UnionType, typing.Union):
        inner = [_rules_of(key, a) for a in arguments]
        return tuple(dict.fromkeys(r for rules in inner for r in rules)) if all(inner) else ()
    if origin is typing.Literal:
        choices = " or ".join(map(repr, arguments))
        return (Some(choices, lambda v: isinstance(v, str) and v in arguments),)
    if origin is Mapping:
        inside = _rules_of(key, arguments[1]) if arguments else ()
        each = f"a section, each value {' or '.join(map(str, inside))}"

        def fit(v: Any) -> bool:
            values = v.values() if isinstance(v, Mapping) else (v,)
            return isinstance(v, Mapping) and all(any(r.fits(x) for r in inside) for x in values)

        return (Some(each, fit),) if inside else (SECTION,)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        items = _rules_of(name.removesuffix("s"), arguments[0])
        words = f"a list, each {' or '.join(map(str, items))}"

        def fits(v: Any) -> bool:
            return isinstance(v, list | tuple) and all(any(r.fits(x) for r in items) for x in v)

        return (Some(words, fits),) if items else ()
    if annotation is int:
        layers = name.endswith(("layers", "steps", "stacks"))
        # A recursion may be left out, and so may what joins the modalities in it.
        least = 0 if name in ("num_steps", "joint_dim") else 1
        return (_whole(least, MOST_LAYERS if layers else MOST_UNITS),)
    if annotation is float:
        return (_SHARE,) if name.endswith("rate") else (Number(-1e6, 1e6),)
    return {bool: (FLAG,), str: (TEXT,), types.NoneType: (NONE,)}.get(annotation, ())
