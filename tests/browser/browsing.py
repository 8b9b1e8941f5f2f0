"""A yard with a dashboard and a browser that looks at it; a test fails on anything its console says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import Lab, free_port
from machine import lacking
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
TOKEN = "a-token-for-tests"
TASKS = '''\
"""What the dashboard shows."""

import os
import time

GATE = os.path.join(os.path.dirname(__file__), "open")


def square(n):
    return n * n


def resize(n):
    time.sleep(0.03 + n % 7 * 0.02)
    if n % 61 == 60:
        raise ValueError(f"picture {n} has no pixels")
    return n


def train(n):
    time.sleep(2 + n % 3)
    return n


def faces(n):
    print(f"picture {n}: {n * 7 % 5} faces, the first looks {'left' if n % 3 else 'right'}")
    return n


def markup(n):
    print("picture", n, "<b>smiles</b>")
    return n


def wait(n):
    """Busy until the gate is open."""
    while not os.path.exists(GATE):
        time.sleep(0.01)
    return n


def fail(n):
    """Fails until the gate is open."""
    if not os.path.exists(GATE):
        raise ValueError(f"picture {n} has no pixels")
    return n
'''


def new_lab(folder: Path) -> Lab:
    """A lab whose master serves a dashboard; `lab.web` is its address."""
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "pictures.py").write_text(TASKS)
    address = f"127.0.0.1:{free_port()}"
    return Lab(folder, tasks, web=address, web_token=TOKEN)


def web(lab: Lab) -> str:
    return f"http://{lab.environ['TASKYARD_WEB']}"


@contextmanager
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        lacking("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def looking(browser: Browser, lab: Lab, **options: Any) -> Iterator[Page]:
    """A page that was let in; what the console says on the way is kept in `page.said`."""
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(15_000)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.goto(f"{web(lab)}/?token={TOKEN}")
    page.wait_for_selector("#link.up")
    try:
        yield page
        assert said == []
    finally:
        context.close()
