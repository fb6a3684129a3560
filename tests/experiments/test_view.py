"""The viewer: what it serves, to whom, and the page in a real browser."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from stag_jax import viewer
from stag_jax.analysis import loaded, playback
from stag_jax.types import UserError
from tests import viewing

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=alert(1)>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return viewing.on_frames(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    return viewing.on_flow_images(tmp_path_factory.mktemp("flows"))


@pytest.fixture(autouse=True)
def standard_promotion():
    """Orbax mixes dtypes on purpose; the server's threads do not inherit what a context says."""
    before = jax.config.jax_numpy_dtype_promotion
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", before)


def app_of(study, workdir=None):
    return viewer.create_app(loaded.load_run(workdir or study.workdir), [study.corpus])


@pytest.fixture(scope="module")
def client(films):
    return app_of(films).test_client()


def get(client, path, status=200):
    answer = client.get(path)
    assert answer.status_code == status, answer.text[:500]
    return answer.json


def picture(client, path):
    answer = client.get(path)
    assert answer.status_code == 200 and answer.mimetype == "image/png"
    return cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_run_and_its_clips(client, films):
    run = loaded.load_run(films.workdir)
    about = get(client, "/api/run")
    assert about["classes"] == list(run.classes) and about["seeds"] == [0, 1] and about["notes"] == []
    assert about["subjects"] == sorted(set(run.predictions["subject"])) and len(about["nodes"]) == 22
    assert about["scores"]["uf1"] == run.metrics["uf1"]
    clips = get(client, "/api/clips")
    assert [clip["id"] for clip in clips] == run.predictions["id"].tolist()
    assert sum(clip["label"] != clip["prediction"] for clip in clips) == about["mistakes"]
    facts = get(client, "/api/clips/3")
    said = loaded.probabilities(run.predictions, run.classes)[3]
    np.testing.assert_allclose(facts["probability"], said, atol=1e-5)
    assert [each["seed"] for each in facts["by_seed"]] == [0, 1] and facts["note"] == ""
    np.testing.assert_allclose(np.mean([each["probability"] for each in facts["by_seed"]], axis=0), said, atol=2e-5)


def test_a_clip_and_its_pictures(client, films):
    run = loaded.load_run(films.workdir)
    seen = playback.playback(run, [films.corpus], run.predictions["id"].iloc[0])
    about = get(client, "/api/clips/0/playback")
    f, t, size = len(seen.frames), viewing.FRAMES, run.config.face.size
    assert about["differs"] is False and (about["height"], about["width"]) == (size, size)
    np.testing.assert_allclose(about["times_ms"], seen.times_ms)
    assert about["magnitude"][0] is None and about["kept"] == seen.kept.tolist()
    np.testing.assert_allclose(about["au_probability"], seen.aux["au_probability"], atol=1e-5)
    np.testing.assert_allclose(about["temporal_attention"], seen.aux["temporal_attention"], atol=1e-5)
    assert list(about["weights"]) == ["frame_over_nodes", "space_attention_0", "connectivity"]
    assert [unit for unit in about["annotated"] if unit is not None] == [
        bool(unit) for unit in seen.features.au[seen.features.au_mask]
    ]
    frames = picture(client, "/api/clips/0/frames.png")
    columns = about["columns"]
    last = f - 1
    row, column = last // columns * size, last % columns * size
    np.testing.assert_array_equal(frames[row : row + size, column : column + size], seen.frames[last])
    flow = picture(client, "/api/clips/0/flow.png")
    columns = about["flow_columns"]
    row, column = (t - 1) // columns * size, (t - 1) % columns * size
    np.testing.assert_array_equal(flow[row : row + size, column : column + size, ::-1], seen.flow_pictures[t - 1])


def test_flow_images(flows):
    client = app_of(flows).test_client()
    about = get(client, "/api/clips/0/playback")
    assert about["times_ms"] == [] and about["kept_ms"] == [0] and len(about["centres"]) == 9
    assert picture(client, "/api/clips/0/flow.png").shape == (28, 28, 3)
    assert "no frames" in get(client, "/api/clips/0/frames.png", 404)["error"]


def test_what_is_not_there_says_so(client, films, monkeypatch):
    assert "there is no clip number 99" in get(client, "/api/clips/99", 404)["error"]
    assert "there is no clip number 99" in get(client, "/api/clips/99/playback", 404)["error"]
    for path in ("/nothing", "/__init__.py", "/api/clips/-1", "/../view.py", "/api/clips/0/other.png"):
        assert get(client, path, 404)["error"]
    assert client.post("/api/run").status_code == 405

    def faceless(*_):
        raise UserError("synth_me/s01/c01 frame 0: no face\nto be seen")

    monkeypatch.setattr(playback, "playback", faceless)
    fresh = app_of(films).test_client()
    assert get(fresh, "/api/clips/0/playback", 422)["error"] == "synth_me/s01/c01 frame 0: no face to be seen"


def test_runs_without_networks_are_shown_with_a_note(films, tmp_path):
    client = app_of(films, viewing.unfinished(films, tmp_path / "part")).test_client()
    (note,) = get(client, "/api/run")["notes"]
    assert "not finished (step 4 of 4)" in note
    about = get(client, "/api/clips/0/playback")
    assert about["weights"] == {} and about["au_probability"] is None and about["times_ms"]
    assert len(get(client, "/api/clips/0")["probability"]) == 3
    fold = get(client, "/api/clips/0")["fold"]
    client = app_of(films, viewing.without_fold(films, tmp_path / "missing", fold)).test_client()
    assert fold in get(client, "/api/run")["notes"][0]
    assert fold in get(client, "/api/clips/0")["note"] and get(client, "/api/clips/8")["note"] == ""
    assert get(client, "/api/clips/0/playback")["temporal_attention"] is None


def test_an_edited_table_is_noticed(films, tmp_path):
    folder = tmp_path / "edited"
    shutil.copytree(films.workdir, folder)
    path = folder / "predictions.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:-1], str(float(cells[-1]) + 0.01)])
    path.write_text("\n".join(lines) + "\n")
    client = app_of(films, folder).test_client()
    assert "predictions.csv" in get(client, "/api/run")["notes"][0]
    assert get(client, "/api/clips/0/playback")["differs"] is True


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "[::1]:8765", "", "[x"]
)
def test_only_this_machine_is_answered(client, host):
    for path in ("/", "/api/run", "/view.js", "/nothing"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 403 and b"127.0.0.1" in answer.data


def test_nothing_may_come_from_elsewhere(client):
    for host in ("127.0.0.1:8765", "localhost", "LOCALHOST:80"):
        answer = client.get("/", headers={"Host": host})
        assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    for name, kind in viewer.FILES.items():
        text = (viewer.HERE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|innerHTML|insertAdjacentHTML|document\.write|\beval\b", text), name
        assert client.get(f"/{name}", follow_redirects=True).mimetype == kind


@contextlib.contextmanager
def served(app):
    """The address at which it is served, from a thread that ends with this process."""
    addresses, there = [], threading.Event()

    def ready(address):
        addresses.append(address)
        there.set()

    threading.Thread(target=viewer.serve, args=(app, 0, ready), daemon=True).start()
    assert there.wait(20)
    yield addresses[0]


def test_a_busy_port_is_one_line(films):
    with socket.create_server((viewer.HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port} cannot be used"):
            viewer.serve(app_of(films), port, print)


def test_the_script_serves_until_it_is_interrupted(flows):
    command = [sys.executable, str(ROOT / "experiments" / "view.py"), f"--workdir={flows.workdir}", "--nobrowser"]
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    with subprocess.Popen([*command, "--port=0"], stdout=subprocess.PIPE, text=True, env=env) as process:
        address = process.stdout.readline().split()[0]
        port = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)[1]
        busy = subprocess.run([*command, f"--port={port}"], capture_output=True, text=True, env=env, timeout=120)
        assert busy.returncode == 2 and f"--port={port} cannot be used" in busy.stderr
        assert "Traceback" not in busy.stderr
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()  # or a server that does not hear, as where SIGINT is ignored, would be waited for


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(chromium, address, **options):
    """A page whose console, errors and requests are watched."""
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    page = chromium.new_page(**options)
    trouble = []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(address) else trouble.append(request.url))
    page.goto(address)
    expect(page.locator("#now")).not_to_be_empty()
    yield page
    assert trouble == []
    page.close()


def milliseconds(page):
    return float(re.match(r"(\d+) ms", page.locator("#now").inner_text())[1])


def test_the_page_in_a_browser(chromium, films, tmp_path):
    from playwright.sync_api import expect

    run = loaded.load_run(films.workdir)
    rows = run.predictions
    rows.loc[len(rows) - 1, "subject"] = HOSTILE
    with served(viewer.create_app(run, [films.corpus])) as address, opened(chromium, address) as page:
        listed = page.locator("#clips li:visible")
        expect(listed).to_have_count(len(rows))
        page.select_option("#subject", HOSTILE)
        expect(listed).to_have_count(1)
        listed.locator("button").click()
        expect(page.locator("#clip-about")).to_contain_text(f"Subject {HOSTILE}, ")
        expect(page.locator("img")).to_have_count(0)
        page.select_option("#subject", rows["subject"].iloc[0])
        expect(listed).to_have_count(viewing.CLIPS)
        listed.locator("button").first.click()
        expect(page.locator("#now")).to_contain_text("0 ms")
        page.select_option("#subject", "")
        page.check("#mistakes")
        expect(listed).to_have_count(int((rows["label"] != rows["prediction"]).sum()))
        page.uncheck("#mistakes")
        page.select_option("#label", "negative")
        expect(listed).to_have_count(int((rows["label"] == "negative").sum()))
        page.select_option("#label", "")
        page.fill("#search", "s03 nobody")
        expect(listed).to_have_count(0)
        page.fill("#search", "S03 c02")
        expect(listed).to_have_count(1)
        page.fill("#search", "")
        expect(page.locator("#count")).to_contain_text(f"{len(rows)} of {len(rows)} clips")

        page.locator("h2").click()  # off the search box, so that keys are the film's
        assert milliseconds(page) == 0
        page.keyboard.press("Space")
        expect(page.locator("#play")).to_have_text("Pause")
        expect(page.locator("#now")).not_to_contain_text(re.compile("^0 ms"))
        page.keyboard.press("ArrowDown")  # goes on playing
        expect(page.locator("h2")).to_have_text(rows["id"].iloc[1])
        expect(page.locator("#now")).to_contain_text(re.compile("^[1-9]"))
        page.keyboard.press("Space")
        expect(page.locator("#play")).to_have_text("Play")
        stopped = milliseconds(page)
        page.wait_for_timeout(200)
        assert milliseconds(page) == stopped
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert milliseconds(page) == 10

        box = page.locator("#timeline").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 10)
        times = page.request.get(f"{address}api/clips/1/playback").json()["times_ms"]
        assert milliseconds(page) == pytest.approx(times[-1] / 2, abs=10)
        before = page.locator("#picture").screenshot()
        page.check("#flow")
        assert page.locator("#picture").screenshot() != before
        expect(page.locator("#now")).to_contain_text("flow of")
        page.select_option("#attention", "connectivity")
        expect(page.locator("#regions")).to_contain_text("Most attention: ")
        expect(page.locator("#units .bar")).to_have_count(12)
        expect(page.locator("#classes .bar")).to_have_count(3)
        expect(page.locator("#classes .seed")).to_have_count(6)
        page.set_viewport_size({"width": 360, "height": 700})
        page.wait_for_timeout(100)
        assert page.locator("html").evaluate("node => node.scrollWidth") <= 360


def test_flow_images_in_a_browser(chromium, flows):
    from playwright.sync_api import expect

    with served(app_of(flows)) as address, opened(chromium, address, color_scheme="dark") as page:
        expect(page.locator("#now")).to_contain_text("no frames")
        expect(page.locator("#play")).to_be_hidden()
        expect(page.locator("#timeline")).to_be_hidden()
        expect(page.locator("#regions")).to_contain_text("row ")
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        expect(page.locator("#clips button").nth(1)).to_have_attribute("aria-current", "true")
        expect(page.locator("#now")).to_contain_text("no frames")
