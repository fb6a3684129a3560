"""The composite out of three archives: what is in it, what is not, and what is said where counts differ."""

import pytest

from stag_datasets import building, corpus
from stag_datasets.megc2019 import megc2019_dataset_builder as megc2019
from tests import composites


def test_the_composite_is_442_clips_of_68_subjects(tmp_path):
    found = megc2019.scan(composites.write(tmp_path), building.DEFAULT)
    assert found.problems == []
    said = [entry.said for entry in found.entries]
    assert len(said) == 442 and len({(each.dataset, each.subject) for each in said}) == 68
    emotions = [each.emotion for each in said]
    assert [emotions.count(name) for name in ("negative", "positive", "surprise")] == [250, 109, 83]
    # Named as in the list of the composite.
    subjects = {name: {each.subject for each in said if each.dataset == name} for name in ("samm", "smic")}
    assert {"6", "33"} <= subjects["samm"] and {"s01", "s16"} <= subjects["smic"]
    assert all(each.clip.startswith(f"{each.subject}_") for each in said if each.dataset == "smic")
    names = {(each.dataset, each.subject, each.clip) for each in said}
    assert not names & megc2019.LEFT_OUT
    assert not {("casme2", "sub10"), ("casme2", "sub18"), ("samm", "099")} & {name[:2] for name in names}


def test_another_count_is_an_error_that_says_where(tmp_path):
    root = composites.write(tmp_path / "archive", surprise=24)
    message = r"casme2: the composite has negative 88 of 88, positive 32 of 32, surprise 24 of 25, 24 of 24 subjects"
    with pytest.raises(corpus.CorpusError, match=message):
        corpus.build("megc2019", data_dir=tmp_path / "data", manual_dir=root)


def test_each_corpus_needs_its_folder(tmp_path):
    (composites.write(tmp_path) / "samm").rename(tmp_path / "SAMM")
    assert megc2019.scan(tmp_path, building.DEFAULT).problems == []
    (tmp_path / "SAMM").rename(tmp_path / "other")
    with pytest.raises(corpus.CorpusError, match="has no folder samm: there is casme2/, other/, smic/"):
        megc2019.scan(tmp_path, building.DEFAULT)
