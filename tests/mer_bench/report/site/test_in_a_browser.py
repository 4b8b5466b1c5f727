"""The site in a real Chromium, opened from the file system."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from tests.browser import Browser
from tests.mer_bench.report.site.conftest import Written


def pages_of(written: Written) -> list[str]:
    """One page of each kind, of runs one with epochs and one without."""
    runs = (written.runs[name] for name in ("majority", "hostile", "ststnet") if name in written.runs)
    few = ["index.html", "curves.html", *(f"runs/{run.path.name}.html" for run in runs)]
    if written.site.samples:
        few += ["samples.html", "samples/samm-s01-c2.html", "subjects/samm-s01.html"]
    return few


@pytest.mark.slow
@pytest.mark.parametrize("which", ["small", "official"])
def test_every_kind_of_page_is_sound(which: str, request: pytest.FixtureRequest, browser: Browser) -> None:
    """At 375 and 1,440 px: no scroll to the side, no error, no request outside, no broken picture."""
    written = request.getfixturevalue(which)
    for page in pages_of(written):
        browser.assert_sound(written.folder / page)


@pytest.mark.parametrize("which", ["small", "official"])
def test_every_link_leads_somewhere(which: str, request: pytest.FixtureRequest, browser: Browser) -> None:
    written = request.getfixturevalue(which)
    for page in pages_of(written):
        browser.open(written.folder / page)
        links = browser.script("return [...document.querySelectorAll('a')].map((a) => a.href)")
        assert links
        for link in links:
            address = urlparse(link)
            assert address.scheme == "file", (page, link)
            target = Path(unquote(address.path))
            assert target.is_file() and target.is_relative_to(written.folder), (page, link)
            if address.fragment and target.name == page:
                found = browser.script("return !!document.getElementById(arguments[0])", address.fragment)
                assert found, (page, link)


def names(browser: Browser) -> list[str]:
    return browser.visible("data-name")


def test_the_board_sorts(small: Written, browser: Browser) -> None:
    browser.open(small.folder / "index.html")
    first = names(browser)
    assert first[-1].endswith("[CONTROL: labels shuffled, seed 3]")
    head = "document.querySelector('button[data-sort=\"-gap\"]')"
    browser.script(f"{head}.click()")
    gaps = [float(gap) for gap in browser.visible("data-gap") if gap]
    assert gaps == sorted(gaps, reverse=True) and len(gaps) == 3
    assert names(browser)[-1] == "Majority class"  # has no gap, so comes last
    assert browser.script(f"return {head}.closest('th').ariaSort") == "descending"
    browser.script(f"{head}.click()")
    assert [float(gap) for gap in browser.visible("data-gap") if gap] == gaps[::-1]
    assert names(browser)[-1] == "Majority class"
    browser.script("document.querySelector('button[data-sort=\"order\"]').click()")
    assert names(browser) == first


def test_the_board_filters(official: Written, browser: Browser) -> None:
    browser.open(official.folder / "index.html")
    every = names(browser)
    assert browser.script("return document.querySelector('[data-count]').textContent") == str(len(every))
    browser.script("document.querySelector('input[value=published]').click()")
    assert len(names(browser)) == 2 and set(browser.visible("data-kind")) == {"run"}
    browser.script("document.querySelector('button[type=reset]').click()")
    assert names(browser) == every
    browser.script("document.querySelector('input[name=leaks]').click()")
    assert set(browser.visible("data-leaks")) == {"no"} and "HTNet" not in names(browser)
    browser.script("document.querySelector('input[name=leaks]').click()")
    browser.choose("find", "htnet")
    assert "HTNet" in names(browser) and len(names(browser)) < len(every)
    browser.choose("find", "no such thing")
    assert names(browser) == [] and browser.script("return !!document.querySelector('.none').offsetParent")


@pytest.mark.parametrize("width", [375, 700, 1440])
def test_no_cell_lies_over_another(small: Written, browser: Browser, width: int) -> None:
    browser.open(small.folder / "index.html", width)
    assert browser.script(OVERLAPS) == []


OVERLAPS = """
const found = [];
for (const row of document.querySelectorAll("tr")) {
  const cells = [...row.children].filter((cell) => cell.offsetParent);
  const boxes = cells.map((cell) => (cell.querySelector(".plot") || cell).getBoundingClientRect());
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
    const [x, y] = [[a.left, a.right, b.left, b.right], [a.top, a.bottom, b.top, b.bottom]]
      .map(([p, q, r, s]) => Math.min(q, s) - Math.max(p, r));
    if (x > 1 && y > 1) found.push(cells[i].innerText + " / " + cells[i + 1 + j].innerText);
  }));
}
return found;
"""


def test_a_leaking_figure_says_so_in_words(official: Written, browser: Browser) -> None:
    """Not by colour alone: what is drawn in the colour of leaking has the word beside it."""
    browser.open(official.folder / "index.html")
    leaking = browser.script(
        "return [...document.querySelectorAll('tr[data-leaks=yes]')].map((row) => row.innerText)"
    )
    assert leaking and all("LEAKS" in row for row in leaking)
    marks = browser.script(
        "return [...document.querySelectorAll('.plot:has(.diamond)')].map((plot) => plot.ariaLabel)"
    )
    assert marks and all("which leaks" in mark for mark in marks)


def test_the_keyboard_reaches_everything(small: Written, browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(small.folder / "index.html")
    browser.keys(Keys.TAB)
    assert browser.script("return document.activeElement.className") == "skip"
    browser.keys(Keys.ENTER)
    assert browser.script("return document.activeElement.id") == "main"
    seen = set()
    for _ in range(40):
        browser.keys(Keys.TAB)
        seen.add(
            browser.script("const e = document.activeElement; return e.dataset.sort ?? e.name ?? e.innerText")
        )
    assert {"find", "kind", "-uf1", "-gap"} <= seen
    head = "document.querySelector('button[data-sort=\"-uf1\"]')"
    browser.script(f"{head}.focus()")
    browser.keys(Keys.ENTER)
    assert browser.script(f"return {head}.closest('th').ariaSort") == "descending"
    assert browser.script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_samples_are_found(small: Written, browser: Browser) -> None:
    browser.open(small.folder / "samples.html")
    assert len(names(browser)) == 54
    browser.choose("database", "samm")
    browser.choose("class", "surprise")
    assert len(names(browser)) == 6 and all(name.startswith("samm/") for name in names(browser))
    browser.choose("database", "")
    browser.script(
        "const s = document.querySelector('select[data-sort]'); s.value = 'rate';"
        "s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    rates = [float(rate) for rate in browser.visible("data-rate")]
    assert rates == sorted(rates)


def test_it_prints_without_controls(small: Written, browser: Browser) -> None:
    browser.open(small.folder / "index.html")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.script("return document.querySelector('.filters').offsetParent === null")
        assert len(names(browser)) == 4
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_text_stands_out(small: Written, browser: Browser) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.1, AA) for every text on a plain ground."""
    for page in pages_of(small):
        browser.open(small.folder / page)
        assert browser.script(CONTRAST) == [], page


CONTRAST = """
const parts = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
  .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (colour.startsWith("color(")) return null;
    const [r, g, b, a = 1] = parts(colour);
    if (a === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
const faint = new Set();
for (const e of document.body.querySelectorAll("*")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.offsetParent || e.closest("select, option, meter")) continue;
  const under = ground(e);
  if (!under) continue;
  const [x, y] = [light(parts(getComputedStyle(e).color)), light(under)].sort((a, b) => b - a);
  if ((x + 0.05) / (y + 0.05) < 4.5) faint.add(`${e.tagName}.${e.className} ${e.textContent}`);
}
return [...faint];
"""
