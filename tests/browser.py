"""A real headless Chromium for the tests of pages: what it shows, logs and asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

#: Widths that a page must fit: a telephone and a desk, px.
WIDTHS = (375, 1440)
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


class Browser:
    """Opens pages of a folder and keeps what the browser logged since."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, page: Path, width: int = 1440, fragment: str = "") -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")  # another fragment alone would not load the page anew
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(page.resolve().as_uri() + fragment)

    def errors(self) -> list[str]:
        """What scripts and the loading of files complained of since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every address that was asked for since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def script(self, text: str, *arguments: Any) -> Any:
        """Return what a script in the page returns."""
        return self.driver.execute_script(text, *arguments)

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def choose(self, name: str, value: str) -> None:
        """Set a filter of the page by its name, as a person does."""
        from selenium.webdriver.support.ui import Select

        field = self.driver.find_element("css selector", f"form.filters [name='{name}']")
        if field.tag_name == "select":
            Select(field).select_by_value(value)
        else:
            field.clear()
            field.send_keys(value)

    def visible(self, attribute: str) -> list[str]:
        """Return an attribute of the items that are shown, in their order."""
        return self.script(
            "return [...document.querySelectorAll('[data-items] > *')].filter((item) => item.offsetParent)"
            ".map((item) => item.getAttribute(arguments[0]))",
            attribute,
        )

    def assert_sound(self, page: Path) -> None:
        """Check a page at both widths: it fits, nothing fails, nothing leaves the file system."""
        for width in WIDTHS:
            self.open(page, width)
            assert self.script("return document.documentElement.scrollWidth") <= width, (page, width)
            asked = self.requests()
            assert asked and all(url.startswith(("file:", "data:")) for url in asked), (page, asked)
            assert self.errors() == [], page
            broken = "return [...document.images].filter((i) => !(i.complete && i.naturalWidth)).length"
            assert self.script("[...document.images].forEach((i) => i.loading = 'eager');" + broken) == 0, (
                page
            )
            assert self.script("return document.querySelectorAll('img:not([alt])').length") == 0, page


def start() -> Browser:
    """Start Debian's Chromium; skips where it, its driver or selenium is absent."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Browser(webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1])))
