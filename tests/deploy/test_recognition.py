"""From rendered video to an answer: corpus, features, training, checkpoints, and one more clip through them."""

import cv2
import jax
import numpy as np
import pytest

from stag_datasets.synth_me import render, script
from stag_jax import media
from stag_jax.deploy import recognition
from stag_jax.types import Clip, ClipIdentity, UserError


@pytest.fixture(scope="module")
def clip():
    """A clip of somebody who is not in the corpus."""
    recipe = script.Recipe(subjects=1, clips=1, frames=(20, 24), seed=77)
    rendered = render.render_clip(script.subject_clips(recipe, 0)[0])
    return Clip(ClipIdentity("new/s/c", "new_s", "new", ""), None, recipe.fps, rendered.frames)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Orbax and optax mix dtypes on purpose."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_the_frame_corpus_goes_all_the_way(trained):
    _, result = trained
    assert (result["n_clips"], result["n_subjects"], result["n_folds"]) == (20, 5, 5)


def test_all_folds_are_averaged_and_one_can_be_named(trained, clip):
    workdir, _ = trained
    whole = recognition.predict(recognition.from_run(workdir), clip)
    assert whole.classes == ("negative", "positive", "surprise")
    assert abs(whole.probability.sum() - 1) < 1e-5
    assert whole.au_probability.shape == (12,) and ((whole.au_probability > 0) & (whole.au_probability < 1)).all()
    each = [
        recognition.predict(recognition.from_run(workdir, [f"synth_me_s{i:02d}"]), clip).probability
        for i in range(1, 6)
    ]
    np.testing.assert_allclose(np.mean(each, axis=0), whole.probability, atol=1e-6)


def test_a_video_file_predicts_as_its_frames_do(trained, clip, tmp_path):
    workdir, _ = trained
    path = tmp_path / "clip.avi"
    size = clip.frames.shape[2], clip.frames.shape[1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), clip.fps, size)
    for frame in clip.frames:
        writer.write(frame[..., ::-1])
    writer.release()
    read = media.read_clip(path)
    assert read.fps == clip.fps and read.frames.shape == clip.frames.shape
    assert np.abs(read.frames.astype(int) - clip.frames).mean() < 2
    fold = recognition.from_run(workdir, ["synth_me_s01"])
    np.testing.assert_allclose(
        recognition.predict(fold, read).probability, recognition.predict(fold, clip).probability, atol=0.05
    )


def test_what_cannot_be_predicted_says_why(trained, clip, tmp_path):
    workdir, _ = trained
    with pytest.raises(UserError, match="is no workdir of a run"):
        recognition.from_run(tmp_path)
    with pytest.raises(UserError, match="has no fold 'synth_me_s99'"):
        recognition.from_run(workdir, ["synth_me_s99"])
    with pytest.raises(UserError, match="new/s/c frame 0: no face"):
        recognition.predict(recognition.from_run(workdir), clip._replace(frames=np.zeros_like(clip.frames)))
