"""The picture of two modes in a real browser: operated by keyboard, moving, still, and missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import browser
import pytest
import website

pytestmark = pytest.mark.needs("browser")

ADDRESS = "book/variational/reverse_kl.html"
READY = "#two-modes:not([hidden]) polygon"
LARGEST = 10.0  # distance
PHONE = {"width": 380, "height": 800}


@pytest.fixture(scope="module")
def visit() -> Iterator[Callable[..., Any]]:
    """Open the page in a window of its own, without waiting for the picture."""
    website.build()
    with website.served() as address, browser.chromium() as chromium:

        def open_page(motion: str = "no-preference", blocked: str = "", **options: Any) -> Any:
            page = chromium.new_context(reduced_motion=motion, **options).new_page()
            page.set_default_timeout(120_000)  # a busy machine fetches slowly through a route
            if blocked:
                nothing = {"body": "", "content_type": "text/javascript"}
                page.route(blocked, lambda route: route.fulfill(**nothing))
            page.complaints = []
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.on("console", lambda message: page.complaints.append(message.text)
                    if message.type in ("error", "warning") else None)  # fmt: skip
            page.goto(address + ADDRESS)
            return page

        yield open_page


def said(page: Any) -> str:
    """What a screen reader is told."""
    return page.text_content("#two-modes [role=status]")


def distance(page: Any) -> float:
    return float(page.input_value("[name=distance]"))


def press(page: Any, control: str, key: str, times: int = 1) -> None:
    page.focus(control)
    for _ in range(times):
        page.keyboard.press(key)


def wait_until_said(page: Any, text: str) -> None:
    page.wait_for_function(
        "(text) => document.querySelector('#two-modes [role=status]').textContent.includes(text)",
        arg=text,
    )


def table(page: Any) -> list[float]:
    return [float(text) for text in page.locator("#two-modes tbody td").all_inner_texts()]


def test_nothing_moves_before_a_reader_asks(visit):
    page = visit()
    page.wait_for_selector(READY)
    before = page.inner_html("#two-modes")
    page.wait_for_timeout(300)
    assert page.inner_html("#two-modes") == before
    assert not page.is_visible("#two-modes-absent")


def test_a_keyboard_operates_it(visit):
    """Far apart, on one mode and on the other; with the mass changed; and from the middle."""
    page = visit()
    page.wait_for_selector(READY)
    press(page, "[name=distance]", "End")
    wait_until_said(page, "Distance 10.0, mass of the right mode 0.30. Reverse fit at −5.00 ")
    assert table(page)[:2] == [0.36, 14.39]
    press(page, "[data-two=other]", "Enter")
    wait_until_said(page, "Reverse fit at 5.00 with scale 1.00: reverse 1.20, forward 34.39 nats.")
    assert "do without the left mode, of mass 0.70, costs −log(1 − 0.70) = 1.20" in said(page)
    press(page, "[name=mass]", "ArrowRight", 2)
    wait_until_said(page, "mass of the right mode 0.40. Reverse fit at 5.00 ")
    assert table(page)[0] == 0.92
    press(page, "[data-two=middle]", "Space")
    wait_until_said(page, "Reverse fit at −0.99 with scale 4.11: reverse 3.31, forward 0.98 nats.")
    press(page, "[name=mass]", "ArrowLeft", 2)
    wait_until_said(page, "mass of the right mode 0.30. Reverse fit at −5.00 ")
    press(page, "[name=distance]", "Home")
    wait_until_said(page, "Distance 0.0")
    assert table(page) == [0.0] * 4
    assert page.complaints == []


def test_it_plays_and_pauses(visit):
    page = visit()
    page.wait_for_selector(READY)
    press(page, "[name=distance]", "Home")
    wait_until_said(page, "Distance 0.0")
    press(page, "[data-two=play]", "Enter")
    page.wait_for_function("document.querySelector('[name=distance]').value > 0.5")
    assert page.inner_text("[data-two=play]") == "Pause"
    assert "Distance 0.0" in said(page)  # no chatter on the way
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('[data-two=play]').textContent === 'Play'")
    stopped = distance(page)
    assert 0.5 < stopped < LARGEST
    page.wait_for_timeout(200)
    assert distance(page) == stopped
    assert f"Distance {stopped:.1f}" in said(page)
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('[name=distance]').value > {stopped + 0.2}")
    press(page, "[name=distance]", "End")
    wait_until_said(page, "Distance 10.0")
    assert page.inner_text("[data-two=play]") == "Play"


def test_a_round_ends_where_it_began(visit):
    """From the right mode: it is lost when the modes meet, and not found again."""
    page = visit()
    page.wait_for_selector(READY)
    page.clock.install()
    press(page, "[data-two=other]", "Enter")
    page.clock.run_for(3000)
    wait_until_said(page, "Distance 6.0, mass of the right mode 0.30. Reverse fit at 2.")
    press(page, "[data-two=play]", "Enter")
    page.clock.run_for(20000)
    wait_until_said(page, "Distance 6.0, mass of the right mode 0.30. Reverse fit at −2.")
    assert page.inner_text("[data-two=play]") == "Play"


def test_where_less_motion_is_wished_for_it_takes_steps(visit):
    page = visit(motion="reduce")
    page.wait_for_selector(READY)
    seen = []
    for _ in range(6):
        press(page, "[data-two=play]", "Enter")
        seen.append(distance(page))  # at once
        assert f"Distance {seen[-1]:.1f}" in said(page)
    assert seen == [7, 8, 9, 10, 9, 8]
    press(page, "[name=distance]", "Home")
    press(page, "[data-two=play]", "Enter")
    assert distance(page) == 1


def test_it_fits_a_phone(visit):
    page = visit(viewport=PHONE)
    page.wait_for_selector(READY)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    parts = page.locator("#two-modes :is(input, button, label, svg, table, p)").all()
    boxes = [part.bounding_box() for part in parts]
    assert max(box["x"] + box["width"] for box in boxes) <= PHONE["width"]
    for label in page.locator("#two-modes label").all():
        assert label.bounding_box()["height"] < 40  # one line


@pytest.mark.parametrize("blocked", ["**/two_modes.js", "**/fits.js"])
def test_without_its_scripts_the_page_says_so(visit, blocked):
    page = visit(blocked=blocked)
    page.wait_for_load_state("networkidle")
    assert page.is_visible("#two-modes-absent")
    assert page.is_hidden("#two-modes")
    assert page.complaints == []


def test_without_javascript_the_page_says_so(visit):
    page = visit(java_script_enabled=False)
    assert page.is_visible("#two-modes-absent")
    assert page.is_hidden("#two-modes")
    assert re.search(r"starts in the built book", page.inner_text("main"))
