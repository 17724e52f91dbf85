"""Every user's path through the page, in a real browser against a real server."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from browser import open_browser
from retigrade.icdr import Grade
from retigrade.serve.security import new_token
from retigrade.synthetic import draw_eye
from served import add, make_app, programme, verdict
from servers import on_a_socket

pytestmark = pytest.mark.slow

PICTURES = os.environ.get("RETIGRADE_PICTURES")
"""A folder that takes a picture of each page, for people to look at."""
WAIT = 30_000  # milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = make_app(tmp_path_factory.mktemp("served"))
    add(app, *programme())
    with on_a_socket(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both eyes of one patient, named by patient, eye and date, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, eye in (("Q1_OD_2026-05-02.png", "right"), ("Q1_OS_2026-05-02.png", "left")):
        drawn = draw_eye(grade=Grade.MODERATE, size=240, aspect=1.4, eye=eye, rng=np.random.default_rng(3))  # type: ignore[arg-type]
        cv2.imwrite(str(folder / name), cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2BGR))
    (folder / "notes.png").write_bytes(b"no picture")
    return folder


@contextlib.contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A page of the server; nothing may fail in it, and it may ask no other machine for anything."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
    page.on("request", lambda asked: complaints.append(asked.url) if not _is_here(asked.url, address) else None)
    page.on("dialog", lambda dialog: dialog.accept())
    try:
        yield page
    finally:
        context.close()
    assert complaints == []


def _is_here(url: str, address: str) -> bool:
    return url.startswith((address, f"blob:{address}", "data:"))


def snap(page: Any, name: str) -> None:
    if PICTURES:
        page.wait_for_timeout(300)
        page.screenshot(path=str(Path(PICTURES, f"{name}.png")), full_page=True)


def fits(page: Any) -> bool:
    """Whether nothing reaches beyond the right edge."""
    wide: int = page.evaluate("document.documentElement.scrollWidth")
    return wide <= page.viewport_size["width"]


def until(page: Any, condition: str) -> None:
    """Wait until a condition in the page's own words holds; the page's policy forbids Playwright's way to do so."""
    deadline = time.monotonic() + WAIT / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def send(page: Any, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])
    until(page, "!document.querySelector('#progress').hidden && document.querySelector('#stop').hidden")


def test_a_photograph_is_dropped_and_seen_under_its_map(browser: Any, served: str, photographs: Path) -> None:
    with opened(browser, served) as page:
        page.goto(served)
        page.evaluate(
            """async (bytes) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
                const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
                window.dispatchEvent(new DragEvent("drop", options));
            }""",
            list((photographs / "Q1_OD_2026-05-02.png").read_bytes()),
        )
        card = page.locator("article.result")
        card.wait_for()
        assert card.locator("h2").inner_text() == "dropped.png"
        until(page, "document.querySelector('.photo').naturalWidth === 336")
        assert card.locator(".photo").get_attribute("src").startswith("blob:")
        until(page, "document.querySelector('.heat').naturalWidth > 0")
        box = card.locator(".stage-box").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(1.4, abs=0.02)

        slider = card.locator(".opacity")
        slider.focus()
        page.keyboard.press("End")
        assert card.locator(".heat").evaluate("node => getComputedStyle(node).opacity") == "1"
        page.keyboard.press("Home")
        assert card.locator(".heat").evaluate("node => getComputedStyle(node).opacity") == "0"

        card.locator(".stage-box").focus()
        page.keyboard.press("+")
        assert card.locator(".level").inner_text() == "140%"
        page.keyboard.press("ArrowLeft")
        moved = card.locator(".moved").evaluate("node => node.style.transform")
        assert moved.startswith("translate(40px, 0px)")
        page.keyboard.press("0")
        assert card.locator(".level").inner_text() == "100%"
        card.locator(".stage-box").dblclick()
        assert card.locator(".level").inner_text() == "250%"
        assert page.locator("#summary").inner_text().startswith("1 of 1 finished. dropped.png:")


def test_both_eyes_by_name_then_the_patient_and_a_reading(browser: Any, served: str, photographs: Path) -> None:
    with opened(browser, served) as page:
        page.goto(served)
        page.select_option("#pattern", "patient-eye-date")
        send(page, *sorted(photographs.glob("Q1*.png")))
        visit = page.locator("section.visit")
        visit.locator(".eye-column.left article.result").wait_for()
        visit.locator(".eye-column.right article.result").wait_for()
        assert visit.count() == 1
        # Both in one look: between two, the page may scroll by a pixel.
        right, left = visit.evaluate(
            "visit => ['right', 'left'].map(side => visit.querySelector(`.eye-column.${side}`).getBoundingClientRect())"
        )
        assert right["y"] == left["y"]
        assert right["x"] < left["x"]
        until(page, "[...document.querySelectorAll('.photo')].every((photo) => photo.naturalWidth)")
        assert fits(page)
        snap(page, "visit-1280")

        read = visit.locator(".eye-column.right details.read")
        read.locator("summary").click()
        form = read.locator("form")
        other = "4" if form.get_attribute("data-machine") != "4" else "3"
        form.locator(f'input[value="{other}"]').check(force=True)
        assert form.locator("button.primary").inner_text().startswith("Change to ")
        form.locator("[name=reader]").fill("Dr Reader")
        form.locator("[name=reason]").fill("new vessels at the disc")
        form.locator("button.primary").click()
        visit.locator(".readings").wait_for()
        assert "new vessels at the disc" in visit.locator(".readings").inner_text()
        assert visit.locator(".eye-column.right .photo").evaluate("node => node.naturalWidth > 0")
        assert page.evaluate("document.activeElement.tagName") == "ARTICLE"

        visit.locator("header h2 a").click()
        page.locator("h1", has_text="Q1").wait_for()
        assert page.locator("svg.timeline").count() == 2
        picker = page.locator(".eye-column.left .choose")
        picker.set_input_files([str(file) for file in photographs.glob("*.png")])
        until(page, "[...document.querySelectorAll('.photo')].every((photo) => photo.naturalWidth)")
        snap(page, "patient-1280")


def test_the_photograph_of_another_eye_is_not_shown(browser: Any, served: str, photographs: Path) -> None:
    with opened(browser, served) as page:
        page.goto(f"{served}/patient?id=P1")
        page.locator(".choose").first.set_input_files(str(photographs / "Q1_OD_2026-05-02.png"))
        page.locator(".absent", has_text="SHA-256 differ").wait_for()
        assert page.locator(".photo").first.evaluate("node => node.hidden")


def test_what_is_no_picture_is_named_and_tried_again(browser: Any, served: str, photographs: Path) -> None:
    with opened(browser, served) as page:
        page.goto(served)
        send(page, photographs / "notes.png", photographs / "Q1_OS_2026-05-02.png")
        page.locator("article.result", has_text="not a picture").wait_for()
        assert page.locator("article.result").count() == 2
        assert "2 of 2 finished" in page.locator("#summary").inner_text()
        snap(page, "results-1280")


def test_a_server_that_is_gone_is_said(browser: Any, tmp_path: Path, photographs: Path) -> None:
    with on_a_socket(make_app(tmp_path)) as port:
        address = f"http://127.0.0.1:{port}"
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        context.set_offline(True)
        send(page, photographs / "Q1_OD_2026-05-02.png")
        assert "does not answer" in page.locator("#queue .why").inner_text()
        context.set_offline(False)
        page.get_by_role("button", name="Try Q1_OD_2026-05-02.png again").click()
        page.locator("article.result").wait_for()
        context.close()


def test_names_that_could_not_be_asked_about_grade_nobodys_eye(browser: Any, tmp_path: Path, photographs: Path) -> None:
    with on_a_socket(make_app(tmp_path)) as port:
        context = browser.new_context()  # a request that fails is an error in the browser's console
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}")
        page.select_option("#pattern", "patient-eye-date")
        context.set_offline(True)
        send(page, photographs / "Q1_OD_2026-05-02.png")
        assert "does not answer" in page.locator("#queue .why").inner_text()
        context.set_offline(False)
        page.get_by_role("button", name="Try Q1_OD_2026-05-02.png again").click()
        page.locator(".eye-column.right article.result").wait_for()
        assert page.locator("#queue li").count() == 1
        assert page.locator("section.visit").get_attribute("data-patient") == "Q1"
        assert page.locator("section.visit").get_attribute("data-date") == "2026-05-02"
        context.close()


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Auckland"])
def test_today_is_the_day_of_the_browsers_clock(browser: Any, served: str, zone: str) -> None:
    today = {"America/Los_Angeles": "2026-03-01", "Pacific/Auckland": "2026-03-02"}[zone]
    with opened(browser, served, timezone_id=zone) as page:
        page.clock.set_fixed_time("2026-03-02T01:00:00Z")
        page.goto(served)
        assert page.locator("#date").input_value() == page.locator("#date").get_attribute("max") == today
        page.goto(f"{served}/?patient=P2&date=2024-05-02")
        assert page.locator("#date").input_value() == "2024-05-02"


@pytest.fixture(scope="module")
def long_list(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with more visits than two answers hold."""
    app = make_app(tmp_path_factory.mktemp("long"))
    add(app, *(verdict(0, f"{n}.jpg", patient=f"P{n:03d}", eye="right", date="2024-05-02") for n in range(130)))
    with on_a_socket(app) as port:
        yield f"http://127.0.0.1:{port}"


PRINTS = "window.prints = []; window.print = () => window.prints.push(document.querySelectorAll('#list > *').length);"


def test_the_whole_list_is_printed_though_a_part_of_it_is_on_its_way(browser: Any, long_list: str) -> None:
    with opened(browser, long_list) as page:
        page.add_init_script(PRINTS)
        page.goto(f"{long_list}/worklist")
        page.locator("article.patient").first.wait_for()
        page.route("**/worklist/rows?*", lambda route: (time.sleep(0.3), route.continue_()))
        page.evaluate("draw(24); document.querySelector('#print').click()")  # the page answers meanwhile
        until(page, "window.prints.length === 1")
        assert page.evaluate("window.prints") == [130]


def test_a_list_that_does_not_come_is_not_printed(browser: Any, long_list: str) -> None:
    context = browser.new_context()  # a request that fails is an error in the browser's console
    page = context.new_page()
    page.add_init_script(PRINTS)
    page.goto(f"{long_list}/worklist")
    page.locator("article.patient").first.wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    context.set_offline(True)
    page.click("#print")
    page.locator("#count", has_text="does not answer").wait_for()
    page.wait_for_timeout(500)
    assert len(asked) <= 2  # of the button, and of the list's end that came into view
    assert page.evaluate("window.prints") == []
    context.close()


def test_the_worklist_is_filtered_kept_in_the_address_and_exported(browser: Any, served: str) -> None:
    with opened(browser, served) as page:
        page.goto(f"{served}/worklist")
        page.locator("article.patient").first.wait_for()
        assert page.locator("article.patient .action").first.inner_text() == "refer"
        snap(page, "worklist-1280")
        page.select_option("#action", "rephotograph")
        page.locator("#count", has_text="1 of").wait_for()
        assert page.locator("article.patient > header h3").all_inner_texts() == ["P3"]
        page.reload()
        page.locator("#count", has_text="1 of").wait_for()
        assert page.locator("#action").input_value() == "rephotograph"
        with page.expect_download() as download:
            page.locator("#exports a", has_text="CSV").click()
        text = Path(download.value.path()).read_text("utf-8")
        assert [line.split(",")[0] for line in text.splitlines()] == ["patient", "P3"]
        page.click("#clear")
        page.fill("#search", "p2 2024")
        page.locator("#count", has_text="1 of").wait_for()
        page.click("#tab-photographs")
        page.locator("#list article h3 a", has_text="p2_r2.jpg").click()
        page.locator("h1", has_text="p2_r2.jpg").wait_for()


def test_tokens_are_asked_for(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    token = new_token(file, "nurse", "write")
    app = make_app(tmp_path, token_file=file)
    add(app, *programme())
    with on_a_socket(app) as port, opened(browser, f"http://127.0.0.1:{port}") as page:
        address = f"http://127.0.0.1:{port}"
        page.goto(f"{address}/patient?id=P1")
        page.get_by_label("Token").fill(token)
        snap(page, "login-1280")
        page.keyboard.press("Enter")
        page.locator("h1", has_text="P1").wait_for()
        page.goto(address)
        assert page.locator(".who").inner_text().startswith("Signed in as nurse")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Token").wait_for()


def test_the_keyboard_alone_grades_and_reads(browser: Any, served: str, photographs: Path) -> None:
    with opened(browser, served) as page:
        page.goto(served)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        chosen = str(photographs / "Q1_OD_2026-05-02.png")
        page.on("filechooser", lambda chooser: chooser.set_files(chosen))
        page.wait_for_timeout(500)  # until the browser leaves choosing to the test
        page.keyboard.press("Enter")
        page.locator("article.result").wait_for()
        page.locator("article.result summary").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == "grade"
        page.keyboard.press("Tab")
        page.keyboard.type("Dr Keys")
        page.keyboard.press("Enter")
        page.locator(".readings", has_text="Dr Keys").wait_for()


PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_telephone(browser: Any, served: str, photographs: Path, scheme: str) -> None:
    with opened(browser, served, **PHONE, color_scheme=scheme) as page:
        addresses = ("/", "/worklist", "/patient?id=P2", "/statistics", "/about", "/login")
        for address in addresses:
            page.goto(f"{served}{address}")
            page.wait_for_load_state("networkidle")
            assert fits(page), address
            snap(page, f"{address.strip('/').partition('?')[0] or 'grade'}-390-{scheme}")
        page.goto(served)
        assert page.locator(".camera").is_visible()
        send(page, photographs / "Q1_OD_2026-05-02.png")
        page.locator("article.result").wait_for()
        assert fits(page)


@pytest.mark.parametrize("address", ["/statistics", "/about", "/worklist", "/"])
def test_pages_hold_in_the_dark(browser: Any, served: str, address: str) -> None:
    with opened(browser, served, color_scheme="dark") as page:
        page.goto(f"{served}{address}")
        page.wait_for_load_state("networkidle")
        assert fits(page)
        snap(page, f"{address.strip('/') or 'grade'}-1280-dark")


def faults(page: Any) -> list[str]:
    """What axe-core finds that a person with a screen reader, a keyboard or weak eyes stumbles over."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{fault['id']} at {node['target']}" for fault in found for node in fault["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(browser: Any, served: str, photographs: Path, scheme: str) -> None:
    with opened(browser, served, color_scheme=scheme) as page:
        found = {}
        for address in ("/", "/worklist", "/patient?id=P2", "/statistics", "/statistics?bundle=none@0", "/about"):
            page.goto(f"{served}{address}")
            page.wait_for_load_state("networkidle")
            found[address] = faults(page)
        page.goto(served)
        send(page, photographs / "Q1_OD_2026-05-02.png", photographs / "notes.png")
        page.locator("article.result").first.wait_for()
        found["results"] = faults(page)
        assert {address: met for address, met in found.items() if met} == {}


def test_signing_in_and_problems_are_accessible(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    token = new_token(file, "guest", "read")
    with on_a_socket(make_app(tmp_path, token_file=file)) as port:
        context = browser.new_context()  # a problem's status is an error in the browser's console
        page, found = context.new_page(), {}
        page.set_default_timeout(WAIT)
        page.goto(f"http://127.0.0.1:{port}/worklist")
        found["login"] = faults(page)
        for given in ("wrong", token):
            page.fill("input[name=token]", given)
            with page.expect_navigation():
                page.keyboard.press("Enter")
            found[f"after {given}"] = faults(page)
        page.goto(f"http://127.0.0.1:{port}/nothing")
        found["404"] = faults(page)
        context.clear_cookies()
        page.goto(f"http://127.0.0.1:{port}/statistics")
        assert "/login?next=%2Fstatistics" in page.url
        context.close()
    assert {place: met for place, met in found.items() if met} == {}
