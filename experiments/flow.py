"""Optical flow as arrays and images: python experiments/flow.py --input=FILM|FOLDER --out=DIR [--frames=largest].

For each clip, writes the flow u, v and the optical strain as .npz, and as 8-bit images in the format of the MEGC2019
composite, which STSTNet, HTNet and others read: red, green, blue are u, v, strain, each stretched to 0 to 255
separately. FOLDER holds films, or folders of numbered pictures, at any depth; the output has the same folders. With
--frames=largest there is one image per clip, from its first frame to its frame of largest movement, and DIR/flow.csv is
the label sheet: fill in its column `label`, and configs/composite_flow.py trains on DIR.

Faces are found, aligned and corrected for head movement as for training; --noalign takes the pictures as they are:
crops of faces. If the command was stopped, run it again to process the remaining clips. See docs/flow.md.
"""

import sys
from pathlib import Path

from absl import flags
from tqdm import tqdm

from stag_configs import base
from stag_experiments import cli
from stag_jax.config import NOT_NEGATIVE, POSITIVE, Config, from_config_dict, replace, settings
from stag_jax.deploy import flow_files
from stag_jax.motion import fields
from stag_jax.types import UserError

CONFIG = cli.config_flag()
INPUT = flags.DEFINE_string("input", None, "A film, or a folder of films and of folders of numbered pictures.")
OUT = flags.DEFINE_string("out", None, "Folder for what is made.")
BACKEND = flags.DEFINE_string("backend", None, "tvl1, dis, farneback, or auto: tvl1 on an accelerator, dis on a CPU.")
REFERENCE = flags.DEFINE_string("reference", None, "onset: flow from the first frame; previous: between frames.")
STABILISE = flags.DEFINE_string("stabilise", None, "What head movement is taken out: similarity, affine or none.")
AVERAGE = cli.number_flag("average_ms", 0.0, "Average flow over the frames so long before and after.", NOT_NEGATIVE)
FRAMES = flags.DEFINE_enum("frames", "all", ["all", "largest"], "An image a frame, or one of the largest movement.")
SIZE = flags.DEFINE_integer("size", 28, "Side of an image, pixels.", lower_bound=1, upper_bound=4096)
CROP = flags.DEFINE_enum("crop", None, list(fields.CROPS), "Part of the face in an image: as in the composite, or all.")
ALIGN = flags.DEFINE_bool("align", True, "Find and align the face; --noalign: pictures are crops of faces already.")
FPS = cli.number_flag("fps", None, "Frames a second of folders; of a film, instead of its time stamps.", POSITIVE)
SKIP = flags.DEFINE_bool("skip_unusable", False, "Leave out clips that cannot be read or have no face, and name them.")
SET = {
    "motion.flow": BACKEND,
    "motion.reference": REFERENCE,
    "motion.stabilise": STABILISE,
    "motion.average_ms": AVERAGE,
}


def main() -> None:
    """Find the clips, measure the flow of each and write the sheet."""
    if not INPUT.value:
        raise UserError("--input=FILM or --input=FOLDER is missing")
    if not OUT.value:
        raise UserError("--out=DIR is missing")
    root, out = Path(INPUT.value), Path(OUT.value)
    config, options = _config(), _options()
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is not a folder")
    clips = flow_files.find(root, out)
    rows, skipped = [], 0
    for clip in tqdm(clips, desc="flow", unit="clip"):
        try:
            rows.append(flow_files.make(clip, config, options, out))
        except UserError as error:
            if not SKIP.value:
                raise
            skipped += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    if not rows:
        raise UserError(f"--input={root}: none of its {len(clips)} clips can be used")
    sheet = out / flow_files.SHEET
    flow_files.write_sheet(rows, sheet, root.resolve().name if root.is_dir() else root.stem)
    skipped_note = f", {skipped} skipped" if skipped else ""
    print(f"{len(rows)} clip{'s' * (len(rows) > 1)}{skipped_note}: {sheet}")


def _config() -> Config:
    """Return the settings of --config, or the defaults, changed by the other flags. Raises UserError for wrong ones."""
    config = from_config_dict(CONFIG.value if CONFIG.value is not None else base.get_config())
    changes = {key: flag.value for key, flag in SET.items() if flag.value is not None}
    for setting in settings():
        if setting.key in changes and not setting.rule.accepts(changes[setting.key]):
            raise UserError(f"--{SET[setting.key].name} must be {setting.rule}, got {changes[setting.key]!r}")
    return cli.checked(replace(config, changes))


def _options() -> flow_files.Options:
    """Return the output options of the flags. Raises UserError for flags that contradict each other."""
    if not ALIGN.value:
        for flag, default in ((AVERAGE, 0.0), (STABILISE, None), (CROP, None)):
            if flag.value != default:
                raise UserError(f"--{flag.name} needs an aligned face; leave it out or leave out --noalign")
    crop = CROP.value or (fields.CROPS[0] if ALIGN.value else "none")
    return flow_files.Options(ALIGN.value, FRAMES.value == "largest", SIZE.value, crop, FPS.value)


if __name__ == "__main__":
    cli.run(main)
