r"""RJCMA with its face and voice encoders in the training graph, unfrozen group by group.

    maven-jax prepare --root AFFWILD2 --out stores/raw --encoders raw
    maven-jax convert --model rjcma --input RELEASED.pt --out runs/released
    maven-jax train --config end_to_end:valence --config.data.store=stores/raw \
        --config.train.init.encoder_visual=runs/released/encoders/visual \
        --config.train.init.encoder_audio=runs/released/encoders/audio \
        --config.train.init.fusion=runs/rjcma_v --workdir runs/end_to_end_v

Variants: those of `rjcma`. Only the encoders differ from that recipe. Crops of 40 x 40 pixels are
cut at a random place of 48 x 48 and mirrored at random, the same way for all frames of a window;
IR-50 and VGGish compute in bfloat16 with recomputed activations.
Stages: the fusion trains first. Whenever the learning rate is at its smallest and the patience is
used up, the best weights are put back and one more group joins: the last stage of IR-50, its third
stage, then the rest of both encoders. The grouping is ours.
`train.init.fusion` (a run of `rjcma` for the same dimensions) is optional. The encoders' is not:
without it they start from random weights.
Needs: one large GPU. Not trained by us at this size: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "both") -> ConfigDict:
    c = recipes.load(f"rjcma:{arg or 'both'}")
    c.data.store = "stores/raw"
    # Pictures stay bytes, and VGGish takes log-mel values as they are.
    c.inputs.standardize = dict(audio="none", text="store")
    c.model = dict(
        name="end_to_end",
        encoders=dict(visual=dict(kind="iresnet50"), audio=dict(kind="vggish")),
        fusion=c.model,
        remat=True,
        dtype="bfloat16",
    )
    c.train.accumulate_steps = 4
    # Batch norms see one part at a time: three windows have frames enough for their statistics.
    c.train.stages = (
        "^encoder_visual/(unit2[123]|norm|embedding)",
        "^encoder_visual/unit(7|8|9|1[0-9]|20)/",
        "^encoder_",
    )
    c.train.init = dict(encoder_visual=None, encoder_audio=None, fusion=None)
    return c
