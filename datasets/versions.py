"""The known annotation sheets of all corpora, told by how many clips of each emotion they list."""

from collections import Counter
from collections.abc import Iterable, Mapping

_DFME = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
# Corpus -> version of its sheet, the preferred one first -> emotion in lower case -> clips.
KNOWN: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "casme2": {
        "20190701": {
            "others": 99, "disgust": 63, "happiness": 32, "surprise": 28, "repression": 27, "sadness": 4, "fear": 2,
        },
        "20140508": {
            "others": 99, "disgust": 63, "happiness": 32, "repression": 27, "surprise": 25, "sadness": 7, "fear": 2,
        },
    },
    "samm": {
        "v2": {
            "anger": 57, "happiness": 26, "other": 26, "surprise": 15,
            "contempt": 12, "disgust": 9, "fear": 8, "sadness": 6,
        },
    },
    "smic": {"HS": {"negative": 70, "positive": 51, "surprise": 43}},
    "casme3": {
        "part A v2": {
            "disgust": 250, "surprise": 187, "others": 161, "fear": 86, "anger": 64, "sad": 57, "happy": 55,
        },
        "part C": {"negative": 99, "surprise": 30, "others": 20, "positive": 16},
    },
    "mmew": {
        "MMEW": {
            "surprise": 89, "disgust": 72, "others": 66, "happiness": 36, "fear": 16, "sadness": 13, "anger": 8,
        },
    },
    "dfme": {
        "train": dict(zip(_DFME, (161, 100, 548, 265, 206, 278, 298), strict=True)),
        "testA": dict(zip(_DFME, (39, 34, 129, 62, 63, 46, 101), strict=True)),
        "testB": dict(zip(_DFME, (41, 37, 58, 38, 42, 35, 48), strict=True)),
    },
}  # fmt: skip


def owner(emotions: Iterable[str]) -> str:
    """Return the corpus whose sheet has exactly these emotions; empty if none has."""
    counts = Counter(emotion.casefold() for emotion in emotions)
    return next((name for name, known in KNOWN.items() if any(counts == Counter(each) for each in known.values())), "")


def version(emotions: Iterable[str], known: Mapping[str, Mapping[str, int]]) -> str:
    """Return the known version of a sheet with these emotions; else the nearest, with its differences.

    The nearest differs in the counts of the fewest emotions; ties are named.
    """
    counts = Counter(emotion.casefold() for emotion in emotions)
    differing = {
        name: [key for key in sorted({*counts, *expected}) if counts[key] != expected.get(key, 0)]
        for name, expected in known.items()
    }
    fewest = min(map(len, differing.values()))
    nearest, *ties = [name for name, keys in differing.items() if len(keys) == fewest]
    if not fewest:
        return nearest
    listed = ", ".join(f"{key} {counts[key]} instead of {known[nearest].get(key, 0)}" for key in differing[nearest])
    also = f"; as near: {', '.join(ties)}" if ties else ""
    return f"unknown (nearest {nearest}: {listed}{also})"
