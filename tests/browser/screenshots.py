"""Makes docs/screenshots anew, of a yard that is busy with a bit of everything: `make screenshots`."""

import tempfile
from pathlib import Path

from browsing import chromium, looking, new_lab, web
from lab import Lab
from machine import ROOT
from playwright.sync_api import Browser, Page
from support import eventually

OUT = ROOT / "docs" / "screenshots"
WIDE = {"width": 1200, "height": 680}
PHONE = {"width": 360, "height": 640}


def shoot(page: Page, lab: Lab, name: str, place: str, ready: str) -> None:
    page.goto(f"{web(lab)}/#/{place}")
    page.wait_for_selector(ready)
    page.screenshot(path=OUT / f"{name}.png")


def all_of(browser: Browser, lab: Lab) -> None:
    with looking(browser, lab, viewport=WIDE) as page:
        eventually(
            lambda: len(page.locator(".stroke").first.get_attribute("points") or "") > 400, "a curve", 60
        )
        shoot(page, lab, "overview", "", "td")
        shoot(page, lab, "jobs", "jobs", "td")
        shoot(page, lab, "workers", "workers", "td li")
        shoot(page, lab, "job", "jobs/thumbnails", "summary")
        shoot(page, lab, "log", "log", ".log .print")
    with looking(browser, lab, viewport=WIDE, color_scheme="dark") as page:
        shoot(page, lab, "timeline-dark", "timeline", "rect.running")
    with looking(browser, lab, viewport=PHONE) as page:
        shoot(page, lab, "overview-phone", "", "td")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        lab = new_lab(Path(folder))
        try:
            lab.start_master()
            for number, host in enumerate(["ash", "birch", "cedar"] * 2):
                lab.start_worker(host=host, slots=str(1 + number % 2))
            eventually(lambda: len(lab.status().workers) == 6, "the workers have joined")
            with lab.yard() as yard:
                yard.submit("pictures:resize", range(6_000), name="thumbnails")
                yard.submit("pictures:train", range(200), name="models")
                yard.submit("pictures:faces", range(60), name="portraits")
                yard.submit("pictures:fail", range(12), name="broken", max_attempts=2)
            with chromium() as browser:
                all_of(browser, lab)
        finally:
            lab.stop()


if __name__ == "__main__":
    main()
