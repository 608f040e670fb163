"""Published networks side by side: valence and arousal without training anything.

Command: maven-jax predict clip.mp4 [--affect default] [--affect.places.sad=-0.7,-0.3]
Of each modality, the first network whose weights are on this machine is taken (`maven-jax weights`
lists and fetches them); if there is none at all, `fetch` is downloaded, which is said before.

Expected CCC: none is claimed. None of these networks was trained on ratings of every frame, and
none was tried on such ratings here.

Places: the means of valence (pleasure) and arousal that Russell and Mehrabian found for these words
(Evidence for a three-factor theory of emotions, Journal of Research in Personality 11, 1977);
`neutral` is the origin. A probability of one half for happy and neutral lies half-way between them.

Reliabilities are stated, not measured: faces tell valence better than arousal, voices the other
way round, and words little about arousal.
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg


def get_config(arg: str = "") -> ConfigDict:
    """The set; there are no variants."""
    check_arg(arg, ("",))
    return ConfigDict(
        {
            "models": {
                "visual": ("emotieffnet", "mini_xception"),
                "audio": ("audeering",),
                "text": ("distilroberta",),
            },
            "fetch": "mini_xception",
            # (valence, arousal)
            "places": {
                "happy": (0.81, 0.51),
                "surprised": (0.40, 0.67),
                "neutral": (0.0, 0.0),
                "angry": (-0.51, 0.59),
                "afraid": (-0.64, 0.60),
                "disgusted": (-0.60, 0.35),
                "sad": (-0.63, -0.27),
            },
            # For valence and for arousal, above 0 to 1.
            "reliability": {"visual": (0.6, 0.4), "audio": (0.3, 0.6), "text": (0.4, 0.1)},
            # Box filters over valence and arousal, in seconds.
            "smooth_s": (0.5, 0.5),
        }
    )
