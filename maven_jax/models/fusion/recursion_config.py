"""What a recursion of joint correlations is made of, as recipes say it."""

from __future__ import annotations

from dataclasses import dataclass

from maven_jax.errors import UserError

_CHOICES = {
    "correlation": ("channel", "time", "dense"),
    "joint": ("concat", "linear"),
    "query": ("linear", "identity"),
}


@dataclass(frozen=True)
class RecursionConfig:
    """Form and sizes of a recursion; see JointCorrelation for the formulas.

    Recipes have these fields as keys of their model, beside the model's own.

    Attributes:
        correlation: form of the joint correlation: "channel", "time" or "dense".
        window_length: T, frames of a window, to which the parameters are tied if `num_steps` > 0.
        num_steps: l ≥ 0; 0 has no parameters and leaves the modalities as they are.
        share_weights: the same weights at each step, or a set for each.
        attention_dim: k; "channel" only.
        joint: what J is, the modalities side by side, "concat", or a linear layer of that,
            "linear".
        joint_dim: width of J if `joint` is "linear".
        query: Q = J W_q + b, "linear" (release of RJCA), or J itself, "identity" (release of
            RJCMA); "dense" only.
        correlation_dropout_rate: on the update; for "dense" on the correlations too.
        remat: recompute each step in the backward pass instead of keeping what it computed.

    Raises:
        UserError: a choice that does not exist, or a negative number of steps.
    """

    correlation: str
    window_length: int
    num_steps: int
    share_weights: bool
    attention_dim: int
    joint: str
    joint_dim: int
    query: str
    correlation_dropout_rate: float | int
    remat: bool

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(f"{name}={value!r} is none of {', '.join(allowed)}")
        if self.num_steps < 0:
            raise UserError(f"num_steps={self.num_steps}: the recursion has 0 or more steps")
