"""Label schemes: from the annotated emotions to the classes of a study, and the expected number of clips of each class.

The counts are those of the sheets; "others" is what a sheet names so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from stag_jax.types import UserError

NONE = "none"  # the class of windows without an expression

_SAME = {"happiness": "positive", "happy": "positive", "positive": "positive", "surprise": "surprise"}
_NEGATIVE = dict.fromkeys(("negative", "anger", "contempt", "disgust", "fear", "sadness", "sad"), "negative")
_OTHERS = dict.fromkeys(("others", "other"), "others")
# In CASME II and CASME only disgust and repression are counted as negative: fear and sadness have too few clips.
_CASME_NEGATIVE = {"disgust": "negative", "repression": "negative", "negative": "negative"}
_THREE = {
    **{name: _SAME | _NEGATIVE for name in ("samm", "smic", "casme3", "mmew", "dfme", "fourd_me", "synth_me")},
    **{name: _SAME | _CASME_NEGATIVE for name in ("casme2", "casme")},
}
_SEVEN = {name: name for name in ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")}
_OBJECTIVE = {name: name for name in ("I", "II", "III", "IV", "V", "VI", "VII")}

# Scheme -> corpus -> emotion in lower case (or objective class) -> class. An emotion that is not listed is left out.
SCHEMES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "3class": _THREE,
    "4class": {corpus: {**emotions, **_OTHERS} for corpus, emotions in _THREE.items()},
    "5class": {
        "casme2": {name: name for name in ("disgust", "happiness", "others", "repression", "surprise")},
        "samm": {name: name for name in ("anger", "contempt", "happiness", "other", "surprise")},
    },
    "7class": {
        "casme2": {**{n: n for n in ("disgust", "fear", "happiness", "repression", "sadness", "surprise")}, **_OTHERS},
        "casme3": {
            **{name: name for name in ("anger", "disgust", "fear", "surprise")},
            "happy": "happiness",
            "sad": "sadness",
            **_OTHERS,
        },
        "dfme": _SEVEN,
        "mmew": {
            **{name: name for name in ("anger", "disgust", "fear", "happiness", "sadness", "surprise")},
            **_OTHERS,
        },
    },
    "objective": dict.fromkeys(("casme2", "samm", "casme3"), _OBJECTIVE),
}

# (scheme, corpus, version of its sheet) -> clips of each class.
EXPECTED: Mapping[tuple[str, str, str], Mapping[str, int]] = {
    ("3class", "casme2", "20190701"): {"negative": 90, "positive": 32, "surprise": 28},
    ("3class", "casme2", "20140508"): {"negative": 90, "positive": 32, "surprise": 25},
    ("4class", "casme2", "20190701"): {"negative": 90, "positive": 32, "surprise": 28, "others": 99},
    ("4class", "casme2", "20140508"): {"negative": 90, "positive": 32, "surprise": 25, "others": 99},
    ("5class", "casme2", "20190701"): {
        "disgust": 63, "happiness": 32, "others": 99, "repression": 27, "surprise": 28,
    },
    ("5class", "casme2", "20140508"): {
        "disgust": 63, "happiness": 32, "others": 99, "repression": 27, "surprise": 25,
    },
    ("7class", "casme2", "20190701"): {
        "disgust": 63, "fear": 2, "happiness": 32, "others": 99, "repression": 27, "sadness": 4, "surprise": 28,
    },
    ("7class", "casme2", "20140508"): {
        "disgust": 63, "fear": 2, "happiness": 32, "others": 99, "repression": 27, "sadness": 7, "surprise": 25,
    },
    ("objective", "casme2", "20190701"): {"I": 30, "II": 18, "III": 93, "IV": 15, "V": 18, "VI": 2, "VII": 79},
    ("3class", "samm", "v2"): {"negative": 92, "positive": 26, "surprise": 15},
    ("4class", "samm", "v2"): {"negative": 92, "positive": 26, "surprise": 15, "others": 26},
    ("5class", "samm", "v2"): {"anger": 57, "contempt": 12, "happiness": 26, "other": 26, "surprise": 15},
    ("objective", "samm", "v2"): {"I": 24, "II": 13, "III": 20, "IV": 8, "V": 3, "VI": 7, "VII": 84},
    ("3class", "smic", "HS"): {"negative": 70, "positive": 51, "surprise": 43},
    ("3class", "casme3", "part A v2"): {"negative": 457, "positive": 55, "surprise": 187},
    ("4class", "casme3", "part A v2"): {"negative": 457, "positive": 55, "surprise": 187, "others": 161},
    ("7class", "casme3", "part A v2"): {
        "anger": 64, "disgust": 250, "fear": 86, "happiness": 55, "others": 161, "sadness": 57, "surprise": 187,
    },
    ("objective", "casme3", "part A v2"): {
        "I": 15, "II": 151, "III": 234, "IV": 37, "V": 47, "VI": 3, "VII": 373,
    },
    ("3class", "casme3", "part C"): {"negative": 99, "positive": 16, "surprise": 30},
    ("3class", "mmew", "MMEW"): {"negative": 109, "positive": 36, "surprise": 89},
    ("7class", "mmew", "MMEW"): {
        "anger": 8, "disgust": 72, "fear": 16, "happiness": 36, "others": 66, "sadness": 13, "surprise": 89,
    },
}  # fmt: skip


def label(scheme: str, *, dataset: str, emotion: str, objective: str) -> str | None:
    """Return the class of a clip, or None if the scheme leaves it out. Without a scheme the emotion is the class.

    Raises:
      UserError: the scheme does not cover this corpus.
    """
    if not scheme:
        return emotion
    if dataset not in SCHEMES[scheme]:
        raise UserError(
            f"config.data.labels {scheme!r} says nothing of corpus {dataset}, only of {', '.join(SCHEMES[scheme])}"
        )
    annotation = objective if scheme == "objective" else emotion.casefold()
    return SCHEMES[scheme][dataset].get(annotation)


def miscounted(scheme: str, *, dataset: str, version: str, found: Iterable[str | None]) -> str | None:
    """Return in one line how the class counts differ from those expected of the sheet; None if they do not.

    Also None if there are no expected counts for this scheme and version. `found` may contain None for clips that are
    left out.
    """
    expected = EXPECTED.get((scheme, dataset, version))
    counts = Counter(name for name in found if name is not None)
    if expected is None or counts == Counter(expected):
        return None
    differences = [f"{n} {counts[n]} instead of {expected.get(n, 0)}" for n in sorted({*counts, *expected})
             if counts[n] != expected.get(n, 0)]  # fmt: skip
    return f"{dataset}, sheet {version}, {scheme}: {', '.join(differences)}"
