"""The shop, used from the page of `make serve` in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from local.servers import find_servers

pytestmark = [pytest.mark.server, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
INSTALL = "apt-get install -y --no-install-recommends chromium chromium-driver"


@dataclass
class Page:
    """The page in a browser."""

    browser: webdriver.Chrome

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def wait_for(self, selector: str, pattern: str, seconds: float = 30) -> str:
        """The element's text, once it matches."""

        def matches(_: object) -> bool:
            return re.search(pattern, self.find(selector).text) is not None

        wait = WebDriverWait(self.browser, seconds, ignored_exceptions=[Exception])
        wait.until(matches, f"{selector} does not become {pattern!r}")
        return self.find(selector).text

    def call(self, function: str, event: str, seconds: float = 30) -> str:
        """Choose the event and send it; the status that comes."""
        self.find(f"[data-name={function}]").click()
        Select(self.find("#sample")).select_by_visible_text(event)
        self.browser.execute_script("document.getElementById('result').replaceChildren()")
        self.find("#send").click()
        return self.wait_for("#status", ".", seconds)

    def first_row(self) -> list[str]:
        """The newest line: time, status, request, function, ms, opened, destroyed, cold start."""
        cells = self.find("#entries tr.entry").find_elements(By.TAG_NAME, "td")
        return [cell.text for cell in cells]

    def look_at(self, scheme: str) -> None:
        """In the light, or in the dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    if not (CHROMIUM and DRIVER):
        pytest.skip(f"the page is not tested: there is no Chromium here; `{INSTALL}`")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for one in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1320,1000"):
        options.add_argument(f"--{one}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not find_servers():
        pytest.skip("the page is not tested: no database server; `make servers` installs one")
    nowhere = tmp_path_factory.mktemp("no-database")
    command = [sys.executable, "-m", "local.serve", "--port", "0", "--database", str(nowhere)]
    environ = {**os.environ, "COLUMNS": "300"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as serve:
        assert serve.stdout
        said = ""
        for line in serve.stdout:
            said += line
            if found := re.search(r"the page at (http://127\.0\.0\.1:\d+/_local/)", line):
                break
        else:
            pytest.fail(f"make serve did not start:\n{said}")
        # Its lines must be read, or it stops at a full pipe.
        reader = subprocess.Popen(["cat"], stdin=serve.stdout, stdout=subprocess.DEVNULL)
        try:
            yield found[1]
        finally:
            serve.send_signal(signal.SIGINT)
            assert serve.wait(20) == 0
            reader.wait(20)


@pytest.fixture
def page(browser: webdriver.Chrome, url: str) -> Page:
    browser.get(url)
    page = Page(browser)
    page.wait_for("#database", "database running")
    page.wait_for("#swagger", "/orders", 60)
    return page


def test_an_order_is_placed_from_the_page_and_refused_when_stock_is_out(page: Page) -> None:
    assert page.call("orders_api", "place") == "201 Created"
    order = json.loads(page.find("#result pre").text)
    assert order["customer"] == "Ada"
    page.wait_for("#entries tr.entry", "POST /orders")
    _, status, request, function, _, opened, destroyed, _ = page.first_row()
    assert (status, request, function) == ("201", "POST /orders", "orders_api")
    assert (opened, destroyed) == ("1", "1")
    assert page.call("orders_api", "place_again") == "200 OK"
    assert page.call("orders_api", "not_enough_stock") == "409 Conflict"
    assert "left" in page.find("#result pre").text


def test_an_order_is_placed_with_swagger_ui(page: Page) -> None:
    page.browser.execute_script("arguments[0].scrollIntoView()", page.find("#swagger"))
    page.find("#swagger .opblock-post .opblock-summary-control").click()
    block = "#swagger .opblock-post"
    page.wait_for(block, "(?i)idempotency-key")
    page.find(f"{block} .parameters input").send_keys(str(uuid.uuid4()))
    body = page.find(f"{block} textarea.body-param__text")
    order = {"customer": "Grace", "lines": [{"product_id": 2, "quantity": 1}]}
    body.send_keys(Keys.CONTROL, "a")
    body.send_keys(json.dumps(order))
    execute = page.find(f"{block} button.execute")
    page.browser.execute_script("arguments[0].click()", execute)
    assert (
        page.wait_for(f"{block} .live-responses-table .response .response-col_status", r"\d")
        == "201"
    )


def test_queue_and_schedules_are_invoked_from_the_same_page(page: Page) -> None:
    assert page.call("stock_worker", "one message") == "ok"
    assert json.loads(page.find("#result pre").text) == {"batchItemFailures": []}
    assert page.call("sales_report", "now") == "ok"
    assert page.call("connection_census", "now") == "ok"
    assert json.loads(page.find("#result pre").text)["limit"] >= 65


def test_many_at_once_leave_warm_environments_and_no_connection(page: Page) -> None:
    page.call("orders_api", "products")
    page.find("#many").click()
    page.wait_for("#said", r"^20 . 200$", 120)
    page.wait_for("#entries tr.sentence", r"20 at once: 20 connections opened, 20 destroyed")
    page.wait_for("#now", "^0$")
    page.wait_for("#environments tr", r"[1-9]\d* of \d+")
    assert 1 <= int(page.find("#peak").text) <= int(page.find("#limit").text)


def test_with_the_database_stopped_there_is_503_and_afterwards_all_is_as_before(page: Page) -> None:
    assert page.call("orders_api", "products") == "200 OK"
    page.find("#switch").click()
    page.wait_for("#database", "database stopped")
    assert page.call("orders_api", "products", 40) == "503 Service Unavailable"
    assert "Retry-After" in page.find("#result").text
    assert page.first_row()[5:7] == ["?", "?"]
    page.find("#switch").click()
    page.wait_for("#database", "database running")
    assert page.call("orders_api", "products") == "200 OK"


CONTRASTS = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (!colour.startsWith("rgba(0, 0, 0, 0)")) return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("main *:not(#swagger *)")]
  .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
    && one.checkVisibility() && !one.disabled)
  .map((one) => {
    const [a, b] = [luminance(getComputedStyle(one).color), luminance(ground(one))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 80)];
  })
  .filter(([contrast]) => contrast < 4.5);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible(page: Page, scheme: str) -> None:
    """A contrast of 4.5 at least, as WCAG 2.1 asks for at level AA."""
    page.look_at(scheme)
    page.call("orders_api", "place_again")
    page.call("orders_api", "no_such_product")
    page.wait_for("#entries tr.entry", "404")
    faint: list[Any] = page.browser.execute_script(CONTRASTS)
    assert faint == []


def test_the_page_fetches_nothing_from_elsewhere_and_has_no_error_of_its_own(
    page: Page, url: str
) -> None:
    names: list[str] = page.browser.execute_script(
        "return performance.getEntriesByType('resource').map((one) => one.name)"
    )
    assert names
    origin = url.removesuffix("_local/")
    assert [name for name in names if not name.startswith((origin, "data:"))] == []
    faults = [entry["message"] for entry in page.browser.get_log("browser")]
    # That an answer had the status 404 is the API's affair.
    assert [fault for fault in faults if "the server responded with a status" not in fault] == []
