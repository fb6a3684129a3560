"""A whole report of a small trained run: its numbers, its files, and runs that something is wrong with."""

import csv
import html.parser
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from stag_datasets import corpus
from stag_jax.analysis import attributions, load_run, loaded, page, report, tables
from stag_jax.training import history, loop
from stag_jax.training.trained import TrainedFolds
from stag_jax.types import UserError
from tests import makers

CLASSES = ("negative", "positive", "surprise")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of a built corpus, and the workdir of a run of two seeds over its five subjects."""
    root = tmp_path_factory.mktemp("report")
    prepared = corpus.build("composite_flow", data_dir=root, manual_dir=makers.write_composite(root / "archive"))
    config = makers.tiny_config(data__data_dir=str(root), seeds=(0, 3))
    with jax.numpy_dtype_promotion("standard"):
        loop.run(config, root / "run", prepared)
    return prepared, root / "run"


@pytest.fixture(scope="module")
def written(place):
    """The same with its report, and the paths of it."""
    prepared, folder = place
    with jax.numpy_dtype_promotion("standard"):
        paths = report.write(load_run(folder), prepared, quiet=True)
    return folder, paths


@pytest.fixture
def copy(place, tmp_path):
    """The run once more, to be spoiled."""
    shutil.copytree(place[1], tmp_path / "copy", ignore=shutil.ignore_patterns("report"))
    return place[0], tmp_path / "copy"


class Page(html.parser.HTMLParser):
    """Tables by id as lists of (value, text) cells, the headline, and every id and address."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.big, self.ids, self.links = {}, {}, [], []
        self.table = self.row = self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[key] for key in ("src", "href", "xlink:href") if key in attrs]
        if tag == "table":
            self.table = self.tables.setdefault(attrs["id"].removeprefix("table-"), [])
        elif tag == "tr" and self.table is not None:
            self.row = []
            self.table.append(self.row)
        elif tag in ("td", "th") and self.row is not None:
            self.cell = [attrs.get("data-value"), ""]
            self.row.append(self.cell)
        elif tag == "dd":
            self.big[attrs["data-score"]] = tuple(float(attrs[f"data-{key}"]) for key in ("value", "low", "high"))

    def handle_endtag(self, tag):
        if tag == "table":
            self.table = self.row = None
        elif tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[1] += data


def read(folder):
    return Page((folder / "report" / "index.html").read_text())


def rows(table):
    """The cells below the header as shown."""
    return [[text for _, text in row] for row in table[1:]]


def test_the_headline_is_that_of_the_metrics(written):
    folder, _ = written
    result, found = json.loads((folder / "metrics.json").read_text()), read(folder)
    mean = result["mean_over_seeds"]
    for key in ("uf1", "uar", "accuracy"):
        assert found.big[tables.SCORES[key]] == pytest.approx((mean[key]["mean"], *mean[key]["ci95"]), abs=1e-12)
    shown = {(row[0][1], row[1][1]): [float(cell[0]) for cell in row[2:]] for row in found.tables["headline"][1:]}
    for key, title in tables.SCORES.items():
        assert shown["seeds averaged", title] == pytest.approx([result[key], *result["ci95"][key]], abs=1e-12)
        assert shown["mean over seeds", title] == pytest.approx([mean[key]["mean"], *mean[key]["ci95"]], abs=1e-12)


def test_every_other_number_of_the_metrics_is_on_the_page(written):
    folder, _ = written
    result, found = json.loads((folder / "metrics.json").read_text()), read(folder)
    counts = [[int(cell[0]) for cell in row[1:4]] for row in found.tables["confusion"][1:]]
    assert counts == result["confusion"]
    for row in found.tables["per_corpus"][1:]:
        part = result["per_dataset"][row[0][1]]
        values = [float(cell[0]) for cell in row[1:]]
        assert values[0] == part["n_clips"]
        assert values[2:] == pytest.approx([part["uf1"], *part["ci95"]["uf1"], part["uar"], part["accuracy"]])
    f1 = [float(row[5][0]) for row in found.tables["per_class"][1:]]
    assert np.mean(f1) == pytest.approx(result["uf1"])
    honest = found.tables["optimism"][1]
    assert float(honest[1][0]) == pytest.approx(result["mean_over_seeds"]["uf1"]["mean"])
    subjects = found.tables["per_subject"][1:]
    right, clips = (sum(int(row[column][0]) for row in subjects) for column in (3, 2))
    assert right / clips == pytest.approx(result["accuracy"]) and len(subjects) == result["n_subjects"]
    assert len(found.tables["mistakes"]) - 1 == clips - right


def test_what_is_shown_is_the_value_rounded(written):
    found = read(written[0])
    checked = 0
    for table in found.tables.values():
        for row in table[1:]:
            for value, text in row:
                if value is not None and text:
                    assert float(text) == pytest.approx(float(value), abs=0.00051)
                    checked += 1
    assert checked > 100


def test_the_page_needs_nothing_but_itself(written):
    folder, _ = written
    text = (folder / "report" / "index.html").read_text()
    found = read(folder)
    for link in found.links:
        assert link.startswith(("#", "data:image/")), link
    assert not re.search(r"url\((?!#)", text) and "<script" not in text
    anchors = [link[1:] for link in found.links if link.startswith("#")]
    assert set(anchors) <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))  # figures keep their ids apart
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert len(text.encode()) < 5e6


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_it_opens_in_a_browser(written, width, scheme):
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    said = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.on("request", lambda request: said.append(request.url) if "://" in request.url[7:] else None)
        shown.goto((written[0] / "report" / "index.html").as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        sizes = shown.evaluate(
            "[...document.querySelectorAll('svg.figure')].map(x => x.getBoundingClientRect().height)"
        )
        paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = shown.evaluate("getComputedStyle(document.querySelector('svg.figure text')).fill")
        browser.close()
    assert not said and len(sizes) >= 8 and min(sizes) > 60
    # Figures are drawn in the page's ink: light on dark, or dark on light.
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in (paper, ink)]
    assert (light[0] > 200 and light[1] < 80) if scheme == "light" else (light[0] < 60 and light[1] > 180)


def test_files_lie_beside_it(written):
    folder, paths = written
    assert all(path.exists() and path.stat().st_size for path in paths)
    names = {path.relative_to(folder / "report").as_posix() for path in paths}
    for stem in ("confusion", "calibration", "subjects", "learning", "faithfulness", "embedding"):
        assert {f"figures/{stem}.png", f"figures/{stem}.svg"} <= names
    for stem in ("headline", "per_class", "per_subject", "mistakes", "audit", "optimism", "subject_leak"):
        assert {f"tables/{stem}.csv", f"tables/{stem}.tex"} <= names
    tex = (folder / "report" / "tables" / "per_class.tex").read_text()
    assert tex.startswith(r"\begin{tabular}") and tex.count(r"\\") == 4
    with (folder / "report" / "tables" / "per_class.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == list(CLASSES)


def test_the_arrays_of_every_picture_lie_beside_it(written):
    folder, paths = written
    figures = folder / "report" / "figures"
    stems = {path.stem for path in figures.glob("*.png")}
    assert len(stems) >= 10 and {"regions", "faithfulness", "learning"} <= stems
    assert {path.stem for path in figures.glob("*.npz")} - {"mistakes"} == stems
    assert {path for path in paths if path.suffix == ".npz"} == set(figures.glob("*.npz"))
    documented = Path(__file__).parents[2].joinpath("docs", "report.md").read_text(encoding="utf-8")
    for path in figures.glob("*.npz"):
        with np.load(path, allow_pickle=False) as data:
            assert len(data.files) > 1
            for name in data.files:
                assert f"`{re.sub(r'_[0-9]+$', '_00', name)}`" in documented, (path, name)


def drawn(folder, name):
    with np.load(folder / "report" / "figures" / f"{name}.npz") as data:
        return dict(data)


def test_they_are_what_the_run_says(written, place):
    prepared, folder = place
    run, result = load_run(folder), json.loads((folder / "metrics.json").read_text())
    assert drawn(folder, "confusion")["clips"].tolist() == result["confusion"]
    subjects = drawn(folder, "subjects")
    assert subjects["mean_accuracy"] == pytest.approx(result["accuracy"]) and subjects["clips"].sum() == 35
    learning = drawn(folder, "learning")
    np.testing.assert_allclose(learning["training_loss"], run.history.metrics["loss"].mean(axis=1))
    found = attributions.collect(run, run.corpus(prepared), quiet=True)
    curves = drawn(folder, "faithfulness")
    assert curves["ids"].tolist() == list(found.corpus.ids)
    for index, method in enumerate(curves["methods"]):
        np.testing.assert_allclose(curves["probability_by_clip"][index], found.curves[method], atol=1e-6)
    np.testing.assert_allclose(curves["probability"], curves["probability_by_clip"].mean(axis=-1), atol=1e-6)
    # A picture of saliency: the clip's own shares, and where its regions lie.
    (name, *_) = sorted(path.stem for path in (folder / "report" / "figures").glob("saliency_*.npz"))
    shown = drawn(folder, name)
    clip = found.corpus.ids.index(str(shown["id"]))
    for index, method in enumerate(shown["methods"]):
        shares = attributions.by_method(found)[method][clip, 0]
        np.testing.assert_allclose(shown["saliency"][index], shares, atol=1e-6)
        assert shown["saliency"][index].sum() == pytest.approx(1, abs=1e-5)
    assert shown["picture"].dtype == np.uint8 and shown["centres"].shape == (len(shown["nodes"]), 2)


def test_the_same_run_gives_the_same_figures(copy, written):
    prepared, folder = copy
    with jax.numpy_dtype_promotion("standard"):
        report.write(load_run(folder), prepared, quiet=True)
    for path in (written[0] / "report" / "figures").iterdir():
        assert (folder / "report" / "figures" / path.name).read_bytes() == path.read_bytes(), path.name


def test_nothing_is_wrong_with_an_honest_run(written):
    found = read(written[0])
    status = {row[0]: row[1] for row in rows(found.tables["audit"])}
    assert set(status.values()) <= {"ok", "not checked"} and list(status.values()).count("ok") >= 6, status


def test_networks_say_what_the_run_said_of_the_clips_they_never_saw(place):
    prepared, folder = place
    run = load_run(folder)
    found = attributions.collect(run, run.corpus(prepared), quiet=True)
    np.testing.assert_allclose(found.probability, loaded.probabilities(run.predictions, CLASSES), atol=1e-5)
    assert not found.differing and found.corpus.ids == tuple(run.predictions["id"])
    # One clip by hand: with nothing deleted its probability is its own, with nothing there that of a still face.
    clip = 11
    model = run.model(run.predictions["fold"][clip])
    one = jax.tree.map(lambda x: x[clip : clip + 1], found.corpus.batch)
    still, _ = model.apply(one._replace(nodes=np.zeros_like(one.nodes)))
    own = found.target[clip]
    for curve in found.curves.values():
        deletion, insertion = curve[:, :, clip]
        assert deletion[0] == insertion[-1] == pytest.approx(found.probability[clip, own], abs=1e-5)
        assert deletion[-1] == insertion[0] == pytest.approx(still[0, own], abs=1e-5)


def test_a_subject_has_the_networks_that_never_saw_it(place):
    prepared, folder = place
    run = load_run(folder)
    model = run.model("smic_s03")
    assert model.fold == "smic_s03" and len(jax.tree.leaves(model.params)[0]) == 2
    corpus = run.corpus(prepared)
    own = np.asarray(corpus.subjects) == "smic_s03"
    probability, aux = model.apply(corpus.take(own).batch)
    expected = loaded.probabilities(run.predictions[own], CLASSES)
    np.testing.assert_allclose(probability, expected, atol=1e-5)
    assert "temporal_attention" in aux
    with pytest.raises(UserError, match="tests no subject 'smic_s99'; there are: casme2_sub02"):
        run.model("smic_s99")


def test_seeds_apart_are_in_the_order_of_the_predictions(place):
    run = load_run(place[1])
    found = loaded.seeds_apart(run)
    assert found.shape == (2, 35)
    shuffled = run.by_seed.sample(frac=1, random_state=0)
    each = shuffled[shuffled["seed"] == 3].set_index("id")["prediction"]
    assert [CLASSES[index] for index in found[1]] == list(each.loc[run.predictions["id"]])


def test_what_is_recorded_last_is_what_was_predicted(place):
    run = load_run(place[1])
    assert run.history.steps.tolist() == [7, 14, 21, 28, 30]
    assert run.history.probability.shape == (5, 2, 35, 3) and run.history.metrics["loss"].shape == (5, 2, 5)
    last = run.history.probability[-1].mean(axis=0)
    np.testing.assert_allclose(last, loaded.probabilities(run.predictions, CLASSES), atol=1e-6)
    assert not np.allclose(run.history.probability[0], run.history.probability[-1], atol=0.01)


def test_without_recording_there_are_no_curves_and_the_rest_is_there(copy):
    prepared, folder = copy
    shutil.rmtree(folder / history.FOLDER)
    with jax.numpy_dtype_promotion("standard"):
        report.write(load_run(folder), prepared, quiet=True)
    found = read(folder)
    assert "optimism" not in found.tables and "headline" in found.tables
    assert "Nothing was recorded along the way" in (folder / "report" / "index.html").read_text()


def test_an_unfinished_run_is_reported_as_far_as_it_has_come(copy):
    prepared, folder = copy
    for name in ("metrics.json", "predictions.csv", "predictions_by_seed.csv"):
        (folder / name).unlink()
    shutil.rmtree(folder / "folds")
    (folder / history.FOLDER / "00000030.npz").unlink()
    run = load_run(folder)
    assert run.partial == "step 28 of 30" and len(run.predictions) == 35 and run.missing == ()
    report.write(run, prepared, quiet=True)
    text, found = (folder / "report" / "index.html").read_text(), read(folder)
    assert "PARTIAL" in text and "step 28 of 30" in text
    assert "headline" in found.tables and "faithfulness" not in found.tables
    shutil.rmtree(folder / history.FOLDER)
    with pytest.raises(UserError, match="no dispatch of it was recorded"):
        load_run(folder)


def test_a_missing_fold_is_named_and_the_others_are_explained(copy):
    prepared, folder = copy
    shutil.rmtree(folder / "folds" / "smic_s03")
    run = load_run(folder)
    assert run.missing == ("smic_s03",)
    with jax.numpy_dtype_promotion("standard"):
        found = attributions.collect(run, run.corpus(prepared), quiet=True)
        report.write(run, prepared, quiet=True)
    assert "smic_s03" not in found.corpus.subjects and len(found.corpus.ids) == 28
    text = (folder / "report" / "index.html").read_text()
    assert "Missing folds, whose clips are not explained: smic_s03" in text
    with pytest.raises(UserError, match="no fold 'smic_s03'"):
        run.model("smic_s03")


def test_an_edited_prediction_is_noticed(copy):
    prepared, folder = copy
    path = folder / "predictions.csv"
    lines = path.read_text().splitlines()
    cells = lines[4].split(",")
    cells[-3:] = ["0.2", "0.3", "0.5"]
    lines[4] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    run = load_run(folder)
    assert run.changed == ("predictions.csv",)
    with jax.numpy_dtype_promotion("standard"):
        report.write(run, prepared, quiet=True)
    text = (folder / "report" / "index.html").read_text()
    assert "predictions.csv is not the file that the run wrote" in text
    assert f"do not say what predictions.csv says of 1 clips: {cells[0]}" in text
    status = {row[0]: row[1] for row in rows(read(folder).tables["audit"])}
    assert status["networks"] == "warning"


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ("p_surprise", "p_joy", "predictions.csv has no column p_surprise"),
        (",negative,", ",anger,", "'anger', which is no class"),
        ("0.", "x.", "a probability that is no number"),
    ],
)
def test_a_spoiled_table_is_named(copy, find, put, message):
    path = copy[1] / "predictions.csv"
    path.write_text(path.read_text().replace(find, put, 1 if find != "0." else -1))
    with pytest.raises(UserError, match=message) as error:
        load_run(copy[1])
    assert "\n" not in str(error.value)


def test_a_workdir_of_a_newer_version_is_refused(copy):
    path = copy[1] / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="has format 99, of a newer stag-jax"):
        load_run(copy[1])
    with pytest.raises(UserError, match="has format 99"):
        TrainedFolds(copy[1])


def test_a_damaged_recording_is_named(copy):
    (copy[1] / history.FOLDER / "00000014.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UserError, match=r"00000014\.npz is damaged"):
        load_run(copy[1])


def test_other_data_is_refused(copy, tmp_path):
    archive = makers.write_composite(tmp_path / "archive", seed=5)
    other = corpus.build("composite_flow", data_dir=tmp_path / "other", manual_dir=archive)
    with pytest.raises(UserError, match="begun with other data"):
        report.write(load_run(copy[1]), other, quiet=True)


def test_an_old_report_leaves_nothing_behind(tmp_path):
    def write(name):
        frame = pd.DataFrame({"class": ["a & b", "<script>"], "value": [0.12345, None], "mark": [False, True]})
        section = page.Section("One", [page.Table(name, frame, "Caption"), page.Note("Hidden", "fold", "<more>")])
        return page.write(page.Page("A <title>", "sub", [("UF1", 0.5, 0.4, 0.6)], [], [section]), tmp_path)

    write("old")
    write("new")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"new.csv", "new.tex"}
    text = (tmp_path / "index.html").read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text and "A &lt;title&gt;" in text
    assert '<td class="n" data-value="0.12345">0.123</td>' in text and "<th>mark" not in text
    assert r"a \& b" in (tmp_path / "tables" / "new.tex").read_text()
