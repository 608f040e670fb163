"""Joint correlation and its recursion: agreement with torch, masks, dropout, program size."""

import functools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.kernels import by_window
from maven_jax.models.fusion.joint_correlation import JointCorrelation
from maven_jax.models.fusion.recursion import Recursion
from maven_jax.models.fusion.recursion_config import RecursionConfig
from tests.support import reference_recursion, rounding

# Not in the order of the alphabet, which is the order in which JAX hands dicts back.
WIDTHS = {"visual": 6, "audio": 4, "text": 5}
FORMS = ("channel", "time", "dense")
T = 7
CONFIG = RecursionConfig(
    correlation="time",
    window_length=T,
    num_steps=2,
    share_weights=False,
    attention_dim=3,
    joint="linear",
    joint_dim=8,
    query="linear",
    correlation_dropout_rate=0,
    remat=False,
)


def recursion(**changes):
    return Recursion(replace(CONFIG, **changes))


def inputs(*, b=2, widths=WIDTHS, t=T, seed=0):
    rng = np.random.default_rng(seed)
    return {m: jnp.asarray(rng.standard_normal((b, t, d)), jnp.float32) for m, d in widths.items()}


def parameters(module, x, seed=1):
    """Returns variables of the right shapes, all of them random, biases too."""
    mask = jnp.ones(next(iter(x.values())).shape[:2], bool)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, mask, deterministic=True))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (0.3 * rng.standard_normal(leaf.shape)).astype(np.float32),
        nn.meta.unbox(shapes),
    )


def run(module, names, *, key=None):
    """Returns a compiled (params, x, mask, cotangents) -> (outputs, gradients of params and x)."""

    def forward(params, x, mask):
        # The order of the modalities is the caller's.
        ordered = {m: x[m] for m in names}
        rngs = None if key is None else {"dropout": key}
        return module.apply(params, ordered, mask, deterministic=key is None, rngs=rngs)

    # Small programs: compiling them is what takes time.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def outputs_and_gradients(params, x, mask, cotangents):
        outputs, backward = jax.vjp(lambda p, x: forward(p, x, mask), params, x)
        return outputs, backward({m: cotangents[m].astype(outputs[m].dtype) for m in names})

    return outputs_and_gradients


def applied(module, **options):
    """Returns a compiled (params, x, mask[, key of dropout]) -> outputs."""

    def forward(params, x, mask, key=None):
        rngs = None if key is None else {"dropout": key}
        return module.apply(params, {m: x[m] for m in WIDTHS}, mask, rngs=rngs, **options)

    return jax.jit(forward)


def weights_like(module, x, seed=2):
    leading = (module.config.num_steps + 1,) if isinstance(module, Recursion) else ()
    rng = np.random.default_rng(seed)
    return {m: rng.standard_normal(leading + v.shape).astype(np.float32) for m, v in x.items()}


def assert_close(actual, expected):
    """Trees, equal but for the rounding of sums."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(rounding.assert_close, actual, expected)


def assert_as_torch(names, **changes):
    module = recursion(**changes)
    x = inputs(widths={m: WIDTHS[m] for m in names})
    cotangents = weights_like(module, x)
    params = parameters(module, x)
    mask = jnp.ones((2, T), bool)
    outputs, (of_params, of_x) = run(module, names)(params, x, mask, cotangents)
    expected = reference_recursion.recursion(
        params.get("params", {}).get("step", {}),
        {m: np.array(v) for m, v in x.items()},
        cotangents,
        **{
            name: getattr(module.config, name)
            for name in ("num_steps", "share_weights", "correlation", "joint", "query")
        },
    )
    assert_close(outputs, expected[0])
    assert_close(of_params.get("params", {}).get("step", {}), expected[1])
    assert_close(of_x, expected[2])


@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("correlation", FORMS)
@pytest.mark.parametrize(
    ("names", "joint", "query"),
    [
        (("visual", "audio"), "concat", "linear"),
        (("visual", "audio", "text"), "linear", "identity"),
    ],
)
def test_outputs_and_gradients_are_those_of_torch(names, joint, query, correlation, share_weights):
    """Of all steps X_0 … X_3."""
    assert_as_torch(
        names,
        joint=joint,
        query=query,
        correlation=correlation,
        share_weights=share_weights,
        num_steps=3,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"num_steps": 0},
        {"num_steps": 1},
        {"num_steps": 1, "share_weights": True},
        {"num_steps": 2, "correlation": "channel"},
        {"joint": "concat", "query": "identity", "correlation": "dense"},
        {"joint": "linear", "query": "linear", "correlation": "dense"},
        {"remat": True},
        {"remat": True, "share_weights": True},
    ],
    ids=str,
)
def test_every_number_of_steps_and_option_agrees_with_torch(options):
    assert_as_torch(tuple(WIDTHS), **options)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("correlation", FORMS)
def test_any_number_of_modalities(correlation, count):
    widths = dict(zip(("pose", "visual", "audio", "text"), (3, 6, 4, 5)))
    x = inputs(widths=dict(list(widths.items())[:count]))
    module = recursion(correlation=correlation, joint="concat")
    mask = jnp.ones((2, T), bool)
    steps = module.apply(parameters(module, x), x, mask, deterministic=True)
    assert list(steps) == list(x)
    for m in x:
        assert steps[m].shape == (3, 2, T, widths[m])
        np.testing.assert_array_equal(steps[m][0], x[m])
        assert np.abs(np.diff(steps[m], axis=0)).max(axis=(1, 2, 3)).min() > 1e-2


def test_without_steps_there_are_no_parameters_and_windows_have_any_length():
    module = recursion(num_steps=0)
    x = inputs(t=11)
    mask = jnp.arange(11) < jnp.array([[11], [4]])
    steps, variables = module.init_with_output(jax.random.key(0), x, mask, deterministic=True)
    assert not variables
    for m in x:
        np.testing.assert_array_equal(steps[m][0], np.where(mask[..., None], x[m], 0))


@functools.cache
def masked_case(correlation):
    """Returns a compiled recursion with its arguments; the second window has 4 frames of 7."""
    module = recursion(correlation=correlation)
    x = inputs()
    mask = jnp.arange(T) < jnp.array([[T], [4]])
    params = parameters(module, x)
    return run(module, tuple(x)), params, x, mask, weights_like(module, x)


@pytest.mark.parametrize("correlation", FORMS)
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e4])
def test_masked_frames_may_hold_anything(correlation, garbage):
    compiled, params, x, mask, cotangents = masked_case(correlation)
    seen = np.asarray(mask)[..., None]
    expected = compiled(params, x, mask, cotangents)
    with_garbage = compiled(
        params,
        {m: jnp.where(seen, v, garbage) for m, v in x.items()},
        mask,
        # A later layer may send back anything for them, too.
        {m: np.where(seen, v, 9) for m, v in cotangents.items()},
    )
    assert_close(with_garbage, expected)
    outputs, (_, of_x) = with_garbage
    for m in x:
        assert not np.any(np.where(seen, 0, outputs[m]))
        assert not np.any(np.where(seen, 0, of_x[m]))


def shortened(params, frames):
    """Parameters for windows of fewer frames; no other axis has the length T."""

    def cut(leaf):
        for axis in np.flatnonzero(np.equal(leaf.shape, T)):
            leaf = np.take(leaf, np.arange(frames), axis=axis)
        return leaf

    return jax.tree.map(cut, params)


@pytest.mark.parametrize("correlation", FORMS)
def test_masked_frames_leave_the_others_as_in_a_window_that_ends_before_them(correlation):
    compiled, params, x, mask, cotangents = masked_case(correlation)
    outputs = compiled(params, x, mask, cotangents)[0]
    short = recursion(correlation=correlation, window_length=4)
    alone = applied(short, deterministic=True)(
        shortened(params, 4), {m: v[1:, :4] for m, v in x.items()}, jnp.ones((1, 4), bool)
    )
    assert_close({m: v[:, 1:, :4] for m, v in outputs.items()}, alone)


@pytest.mark.parametrize("correlation", FORMS)
def test_masked_frames_in_the_midst_of_a_window_influence_nothing(correlation):
    """Not even as zeros: with biases, a frame of zeros that counts is another window."""
    compiled, params, x, _, cotangents = masked_case(correlation)
    mask = jnp.ones((2, T), bool).at[:, 3].set(False)
    gap = {m: jnp.where(mask[..., None], v, 0) for m, v in x.items()}
    masked = compiled(params, gap, mask, cotangents)
    assert_close(compiled(params, x, mask, cotangents), masked)
    counted = compiled(params, gap, jnp.ones_like(mask), cotangents)[0]
    assert np.abs(masked[0]["audio"] - counted["audio"])[:, np.asarray(mask)].max() > 1e-3


@pytest.mark.parametrize("correlation", FORMS)
def test_windows_without_a_valid_frame_are_zero_and_teach_nothing(correlation):
    compiled, params, x, mask, cotangents = masked_case(correlation)
    results = compiled(params, {m: v * np.nan for m, v in x.items()}, mask & False, cotangents)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(results))


@pytest.mark.parametrize("correlation", FORMS)
def test_a_batch_of_one(correlation):
    compiled, params, x, mask, cotangents = masked_case(correlation)
    outputs = compiled(params, x, mask, cotangents)[0]
    for row in range(2):
        one = compiled(
            params,
            {m: v[row : row + 1] for m, v in x.items()},
            mask[row : row + 1],
            {m: v[:, row : row + 1] for m, v in cotangents.items()},
        )[0]
        assert_close(one, {m: v[:, row : row + 1] for m, v in outputs.items()})


@pytest.mark.parametrize(
    ("changes", "t", "message"),
    [
        (
            {"correlation": "time"},
            9,
            "'time' is tied to windows .* window_length=7, but these have 9",
        ),
        ({"correlation": "channel"}, 5, "'channel' is tied to windows of T frames"),
        ({"correlation": "dense"}, 1, "'dense' is tied to windows of T frames"),
        ({"correlation": "spatial"}, T, "correlation='spatial' is none of channel, time, dense"),
        ({"joint": "sum"}, T, "joint='sum' is none of concat, linear"),
        ({"query": "none"}, T, "query='none' is none of linear, identity"),
        ({"num_steps": -1}, T, "num_steps=-1"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes, t, message):
    with pytest.raises(ValueError, match=message) as caught:
        jax.eval_shape(
            lambda: recursion(**changes).init(
                jax.random.key(0), inputs(t=t), jnp.ones((2, t), bool), deterministic=True
            )
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("correlation", ["channel", "time"])
@pytest.mark.parametrize("options", [{}, {"share_weights": True}, {"remat": True}], ids=str)
def test_each_step_drops_other_elements(correlation, options):
    module = recursion(correlation=correlation, correlation_dropout_rate=0.5, **options)
    x = inputs()
    arguments = (parameters(module, x), x, jnp.ones((2, T), bool))
    steps = applied(module, deterministic=False)
    # Without a bias or a relu behind it, an update is zero only where it was dropped.
    dropped, again, other = (
        np.diff(steps(*arguments, jax.random.key(seed))["visual"], axis=0) == 0
        for seed in (0, 0, 1)
    )
    assert 0.2 < dropped[0].mean() < 0.8
    assert 0.2 < np.mean(dropped[0] != dropped[1]) < 0.8
    np.testing.assert_array_equal(again, dropped)
    assert 0.2 < np.mean(dropped != other) < 0.8


@pytest.mark.parametrize("correlation", FORMS)
def test_what_dropout_acts_on(correlation):
    """The update in all forms; in "dense" the correlations, too."""
    module = JointCorrelation(
        replace(CONFIG, correlation=correlation, correlation_dropout_rate=0.5)
    )
    x = inputs()
    params = parameters(module, x)
    mask = jnp.ones((2, T), bool)
    plain = applied(module, deterministic=True)(params, x, mask)
    noisy = applied(module, deterministic=False)(params, x, mask, jax.random.key(0))
    for m in x:
        update, kept = plain[m] - x[m], noisy[m] - x[m]
        both = (np.abs(update) > 1e-3) & (np.abs(kept) > 1e-3)
        assert both.sum() > 5
        doubled = np.allclose(kept[both], 2 * update[both], rtol=1e-3, atol=1e-4)
        assert doubled == (correlation != "dense")


def test_the_weights_of_each_step_are_stacked_and_start_differently():
    module = recursion(num_steps=3)
    x, mask = inputs(), jnp.ones((2, T), bool)
    boxed = module.init(jax.random.key(0), x, mask, deterministic=True)["params"]["step"]
    for leaf in jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)):
        assert leaf.names[0] == "layers"
        assert leaf.value.shape[0] == 3
    weight = boxed["audio_output"].value
    assert np.abs(np.diff(weight, axis=0)).max(axis=(1, 2)).min() > 1e-2
    shared = recursion(num_steps=3, share_weights=True)
    boxed = shared.init(jax.random.key(0), x, mask, deterministic=True)["params"]["step"]
    assert boxed["audio_output"].value.shape == (T, T)
    assert boxed["audio_joint"].names == ("embed", "mlp")


@pytest.mark.parametrize("share_weights", [False, True])
def test_the_program_does_not_grow_with_the_number_of_steps(share_weights):
    def lines(num_steps):
        module = recursion(num_steps=num_steps, share_weights=share_weights)
        x = inputs()
        args = (parameters(module, x), x, jnp.ones((2, T), bool), weights_like(module, x))
        return len(run(module, tuple(x)).lower(*args).as_text().splitlines())

    assert lines(9) == lines(3) == lines(2)


def test_a_start_from_which_no_step_blows_up_the_features():
    t = 64
    x, mask = inputs(t=t, widths={"visual": 32, "audio": 16}), jnp.ones((2, t), bool)
    for correlation in FORMS:
        module = recursion(correlation=correlation, window_length=t, num_steps=4)
        start = jax.jit(functools.partial(module.init_with_output, deterministic=True))
        steps, _ = start(jax.random.key(0), x, mask)
        for value in steps.values():
            ratio = np.std(value[1:], axis=(1, 2, 3)) / np.std(value[:-1], axis=(1, 2, 3))
            assert (ratio > 0.9).all()
            assert (ratio < 1.7).all()


def test_bfloat16():
    x, mask = inputs(), jnp.ones((2, T), bool)
    for correlation in FORMS:
        module = recursion(correlation=correlation)
        params = parameters(module, x)
        expected = applied(module, deterministic=True)(params, x, mask)
        rounding_more = module.clone(dtype=jnp.bfloat16)
        steps = applied(rounding_more, deterministic=True)(params, x, mask)
        for m in x:
            assert steps[m].dtype == jnp.bfloat16
            np.testing.assert_allclose(
                steps[m].astype(np.float32), expected[m], rtol=0.1, atol=0.15
            )


def test_correlations_made_window_by_window_are_the_same(monkeypatch):
    module = JointCorrelation(replace(CONFIG, correlation="dense", correlation_dropout_rate=0.5))
    x = inputs(b=3)
    params, mask = parameters(module, x), jnp.ones((3, T), bool).at[1, 4:].set(False)

    def outputs_and_gradients():
        """And the number of loops in their program."""
        compiled = run(module, WIDTHS, key=jax.random.key(3))
        arguments = (params, x, mask, inputs(b=3, seed=2))
        program = compiled.lower(*arguments).as_text()
        return compiled(*arguments), program.count("stablehlo.while")

    at_once, others = outputs_and_gradients()
    monkeypatch.setattr(by_window, "CACHE_BYTES", 0)
    looped, loops = outputs_and_gradients()
    assert loops == others + 2 * len(WIDTHS)  # forward and backward
    assert_close(looped, at_once)
