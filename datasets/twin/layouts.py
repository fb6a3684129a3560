"""Paths and names of the frames of a clip in each corpus."""

from collections.abc import Callable
from pathlib import PurePosixPath

from stag_datasets.archive import Said


def _casme2(said: Said, number: int) -> str:
    return f"CASME2_RAW_selected/{said.subject}/{said.clip}/img{number}.jpg"


def _samm(said: Said, number: int) -> str:
    return f"SAMM/{said.subject}/{said.clip}/{said.subject}_{number:05d}.jpg"


def _smic(said: Said, number: int) -> str:
    return f"SMIC-HS-E/{said.subject}/{said.folder[-1]}/image{number:06d}.jpg"


def _casme(said: Said, number: int) -> str:
    return f"CASME_raw_selected/{said.subject}/{said.clip}/{said.clip}-{number}.jpg"


def _casme3(said: Said, number: int) -> str:
    return f"{said.subject}/{said.folder[-2]}/color/{number}.jpg"


def _mmew(said: Said, number: int) -> str:
    return f"MMEW_Final/Micro_Expression/{said.emotion}/{said.clip}/{number}.jpg"


def _fourd_me(said: Said, number: int) -> str:
    return f"gray_micro/{said.subject}/{said.clip}/{number:04d}.jpg"


def _dfme(said: Said, number: int) -> str:
    return f"DFME_{said.part}/{said.clip}/{number:05d}.png"


LAYOUTS: dict[str, Callable[[Said, int], str]] = {
    "casme": _casme,
    "casme2": _casme2,
    "casme3": _casme3,
    "dfme": _dfme,
    "fourd_me": _fourd_me,
    "mmew": _mmew,
    "samm": _samm,
    "smic": _smic,
}


def frame_path(dataset: str, said: Said, number: int) -> PurePosixPath:
    """Return the path of a frame below manual_dir."""
    return PurePosixPath(LAYOUTS[dataset](said, number))
