"""The laboratory in a real browser: operated by keyboard and mouse, and shared by its address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import browser
import pytest
import website

pytestmark = pytest.mark.needs("browser")


@pytest.fixture(scope="module")
def visit() -> Iterator[Callable[..., Any]]:
    """Open the laboratory with some settings, in a window of its own."""
    website.build()
    with website.served() as address, browser.chromium() as chromium:

        def open_page(query: str = "", motion: str = "no-preference", **options: Any) -> Any:
            page = chromium.new_context(reduced_motion=motion, **options).new_page()
            page.goto(f"{address}book/laboratory.html{query}")
            page.wait_for_selector("#lab:not([hidden]) svg[data-run]")
            return page

        yield open_page


def said(page: Any) -> str:
    """What a screen reader is told."""
    return page.text_content("[role=status]")


def wait_until_finished(page: Any) -> None:
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent.includes('Finished')"
    )


def press(page: Any, control: str, key: str) -> None:
    page.focus(control)
    page.keyboard.press(key)


def test_nothing_moves_before_a_reader_asks(visit):
    page = visit()
    page.wait_for_timeout(200)
    assert "At the start, update 0 of 300" in said(page)
    assert page.inner_text("[data-lab=update]") == "Update 0 of 300"


def test_a_keyboard_operates_it(visit):
    page = visit()
    press(page, "[name=data]", "ArrowDown")
    press(page, "[name=share]", "ArrowRight")
    press(page, "[name=objectives][value=nll]", "Space")
    assert "?data=triangle&share=0.81&objectives=nll,code,damped#" in page.evaluate("location.href")
    press(page, "[data-lab=one]", "Enter")
    press(page, "[data-lab=ten]", "Space")
    assert "Paused, update 11 of 300. NLL: " in said(page)
    press(page, "[data-lab=run]", "Enter")
    page.wait_for_function(
        "!document.querySelector('[data-lab=update]').textContent.includes(' 11 ')"
    )
    page.keyboard.press("Enter")
    assert "Paused" in said(page)
    page.keyboard.press("Enter")
    wait_until_finished(page)
    assert page.evaluate("document.activeElement.dataset.lab") == "reset"
    page.keyboard.press("Enter")
    assert "At the start, update 0 of 300" in said(page)


def test_an_address_holds_the_start_and_the_update(visit):
    page = visit()
    page.click("#lab summary")
    page.fill("[aria-label='component 1: mean, x']", "3.5")
    page.keyboard.press("Tab")
    press(page, "[data-lab=ten]", "Enter")
    query = page.evaluate("location.search")
    assert "start=own&components=0.5,3.5," in query
    other = visit(query)
    assert said(other).strip() == said(page).strip()
    picture = "document.querySelector('#lab-picture-0').innerHTML"
    assert other.evaluate(picture) == page.evaluate(picture)


def test_a_mouse_drags_the_start(visit):
    page = visit("?data=line&k=3#lab-run", viewport={"width": 1280, "height": 900})
    number = page.locator("#lab-picture-0 .lab-number").nth(1)
    number.hover()  # once nothing moves any more
    box = number.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.down()
    page.mouse.move(x + 40, y)
    page.mouse.up()
    page.mouse.move(x - 40, y)
    assert number.bounding_box()["x"] == pytest.approx(box["x"] + 40, abs=2)
    assert page.input_value("[name=start]") == "own"


def test_a_link_runs_where_motion_is_welcome(visit):
    link = "main ol a[href^='?']"
    page = visit()
    press(page, link, "Enter")
    wait_until_finished(page)
    assert "nGEM, paper's code: 1.770 nats, weights 0.25, 0.75" in said(page)
    page.go_back()
    assert "At the start" in said(page)

    calm = visit(motion="reduce")
    press(calm, link, "Enter")
    calm.wait_for_timeout(200)
    assert "At the start" in said(calm)
    press(calm, "[data-lab=run]", "Enter")
    wait_until_finished(calm)


def test_a_value_out_of_range_is_refused(visit):
    page = visit()
    page.click("#lab summary")
    before = page.evaluate("location.href")
    page.fill("[aria-label='component 1: weight']", "7")
    page.keyboard.press("Tab")
    assert page.evaluate("location.href") == before


def test_the_table_of_five_components_fits_a_phone(visit):
    page = visit("?k=5", viewport={"width": 380, "height": 800})
    page.click("#lab summary")
    assert page.evaluate("document.documentElement.scrollWidth") == 380
