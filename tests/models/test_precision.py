"""What a bfloat16 step of an accelerator multiplies in float32, and what it keeps."""

import jax
import jax.numpy as jnp
import pytest

from maven_jax.kernels import fused_attention
from tests.support.small_models import LOSS, SMALL, random_batch, random_params, small_model

B = 5


@pytest.fixture(params=["gpu", "tpu"])
def accelerator(request):
    """What is traced meanwhile is for one such device, which need not be there."""
    device = jax.sharding.AbstractDevice("some chip", num_cores=1, platform=request.param)
    mesh = jax.sharding.AbstractMesh(
        (1,), ("data",), (jax.sharding.AxisType.Auto,), abstract_device=device
    )
    with pytest.MonkeyPatch.context() as patch, jax.sharding.use_abstract_mesh(mesh):
        # Asks the device itself.
        patch.setattr(fused_attention, "compute_capability", lambda: (0, 0))
        patch.setattr("maven_jax.kernels.lstm_triton.compute_capability", lambda: (0, 0))
        yield


def step_of(name, frames=8):
    """The loss of a training step, a function of the parameters, and these."""
    model = small_model(name, dtype=jnp.bfloat16)
    batch = random_batch(B, frames)
    variables = random_params(model, *batch, train=False)
    params = {"params": variables.pop("params")}

    def loss(params):
        prediction, _ = model.apply(
            params | variables,
            *batch,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=list(variables),
        )
        targets = jnp.sin(jnp.arange(B * frames * 2.0)).reshape(B, frames, 2)
        return LOSS(prediction, targets, batch[2])[0]

    return loss, params


def products(jaxpr):
    """(operands' types and shapes, where) of all matrix products and convolutions."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield [v.aval for v in equation.invars], str(equation.source_info.name_stack)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from products(inner)


@pytest.mark.parametrize("name", [n for n in SMALL if not n.startswith("tagf")])
def test_only_heads_and_gates_multiply_in_float32(name, accelerator):
    """The last layer of a head gives float32, and gates weigh the steps of a recursion in it."""
    loss, params = step_of(name)
    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss))(params).jaxpr
    wide = {
        where
        for operands, where in products(jaxpr)
        if any(x.dtype == jnp.float32 for x in operands)
    }
    assert any(x.dtype == jnp.bfloat16 for operands, _ in products(jaxpr) for x in operands)
    assert [w for w in wide if not w.endswith("output") and "lbt,lbtd" not in w] == []


def test_mavens_step_keeps_no_scores_in_float32(accelerator, monkeypatch):
    frames = 13  # no width of the model

    def kept():
        loss, params = step_of("maven", frames)
        _, back = jax.eval_shape(lambda params: jax.vjp(loss, params), params)
        pairs = [x for x in jax.tree.leaves(back) if x.shape[-2:] == (frames, frames)]
        # Biases by distance have no windows.
        return [x for x in pairs if x.dtype == jnp.float32 and B in x.shape]

    assert kept() == []
    monkeypatch.setattr(fused_attention, "keeps_no_scores", lambda: False)
    assert kept()  # as the formula does
