"""The dashboard in a real browser: each page, what can be done there, by mouse, keyboard and on a phone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import TOKEN, chromium, looking, new_lab, web
from lab import Lab
from playwright.sync_api import Browser, Page, expect
from support import eventually

PAGES = {"": "Overview", "jobs": "Jobs", "workers": "Workers", "timeline": "Timeline", "log": "Log"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One yard for all: a job that is done, two that failed, one that keeps all slots busy."""
    lab = new_lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.start_master()
        lab.start_workers(2, slots="2", host="birch")
        with lab.yard() as yard:
            yard.submit("pictures:square", range(5000), name="squares").wait(20)
            yard.submit("pictures:resize", range(55, 65), name="thumbnails", max_attempts=1).wait(20)
            yard.submit("pictures:fail", range(7), name="broken", max_attempts=1).wait(20)
            yard.submit("pictures:wait", range(8), name="models")
        eventually(lambda: sum(len(worker.running) for worker in lab.status().workers) == 4, "all run")
        yield lab
    finally:
        lab.stop()


@pytest.fixture
def page(browser: Browser, lab: Lab) -> Iterator[Page]:
    with looking(browser, lab) as page:
        yield page


def turn(page: Page, lab: Lab, name: str) -> None:
    page.goto(f"{web(lab)}/#/{name}")
    expect(page.locator("h1")).to_have_text(PAGES[name])


def filled(page: Page, name: str) -> None:
    """Wait until the page shows something of the yard."""
    shown = {"": "td", "jobs": "td", "workers": "td >> nth=8", "timeline": "rect", "log": ".log p"}
    page.wait_for_selector(f"main {shown[name]}")


def test_the_overview_shows_the_yard(page: Page) -> None:
    figures = page.locator(".figures")
    expect(figures).to_contain_text("slots busy4/4")
    expect(figures).to_contain_text("completed5,009")
    expect(figures).to_contain_text("failed for good8")
    row = page.get_by_role("row", name="thumbnails")
    expect(row).to_contain_text("failed in part")
    expect(row).to_contain_text("picture 60 has no pixels")
    expect(page.get_by_role("row", name="models")).to_contain_text("running")
    expect(page.get_by_role("img", name=re.compile("Tasks completed a second"))).to_be_visible()


def test_workers_by_host_with_what_they_run(page: Page, lab: Lab) -> None:
    turn(page, lab, "workers")
    expect(page.get_by_role("region", name="Hosts")).to_contain_text("birch")
    expect(page.get_by_role("region", name="2 of 2 workers")).to_contain_text("models task")
    page.get_by_role("searchbox").fill("nobody")
    expect(page.locator("main")).to_contain_text("none is like that")


def test_the_timeline_has_what_ran_and_what_runs(page: Page, lab: Lab) -> None:
    turn(page, lab, "timeline")
    page.get_by_label("How far back").select_option("10 minutes")
    expect(page.locator("rect.running")).to_have_count(4)
    titles = page.locator("rect.dead title").all_text_contents()
    assert [title for title in titles if title.startswith("thumbnails, pictures:resize: task 5, dead")]
    expect(page.locator(".legend")).to_contain_text("pictures:wait")
    hold = page.get_by_role("button", name="Hold still")
    hold.click()
    expect(hold).to_have_attribute("aria-pressed", "true")


def test_the_log_by_worker(page: Page, lab: Lab) -> None:
    name = lab.status().workers[0].id
    page.goto(f"{web(lab)}/#/log/{name}")
    expect(page.locator(".log p")).to_have_count(1)
    expect(page.locator(".log")).to_contain_text(f"worker {name} joined from birch")
    page.get_by_label("Only lines about this worker").fill("")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator(".log p")).not_to_have_count(1)


def test_many_jobs_are_found_by_name_and_by_page(page: Page, lab: Lab) -> None:
    with lab.yard() as yard:
        for number in range(60):
            yard.submit("pictures:square", range(1), name=f"night-{number:02}")
    turn(page, lab, "jobs")
    expect(page.get_by_role("navigation", name="More of them")).to_contain_text("1 to 50 of 64")
    page.get_by_role("button", name="After").click()
    expect(page.locator("tbody tr")).to_have_count(14)
    page.get_by_role("searchbox").fill("night-3")
    expect(page.locator("tbody tr")).to_have_count(10)
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Only jobs that are").select_option("with failed tasks")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("link", name="thumbnails").click()
    expect(page.locator("h1")).to_contain_text("thumbnails")


def test_a_failed_task_says_why(page: Page, lab: Lab) -> None:
    page.goto(f"{web(lab)}/#/jobs/thumbnails")
    failed = page.get_by_role("region", name="1 of 1")
    expect(failed).to_contain_text("ValueError: picture 60 has no pixels")
    failed.locator("summary").click()
    expect(failed.locator("pre")).to_contain_text("in resize")
    expect(failed.locator("details")).to_have_attribute("open", "")
    expect(page.locator("main")).to_contain_text("Slowest of the recent tasks")


def test_cancel_and_requeue_by_keyboard(page: Page, lab: Lab) -> None:
    """Everything is asked before it is done, and Escape means no."""
    with lab.yard() as yard:
        endless = yard.submit("pictures:wait", range(100), name="endless")
        page.goto(f"{web(lab)}/#/jobs/{endless.id}")
        cancel = page.get_by_role("button", name="Cancel job")
        cancel.focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Cancel job endless?")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert endless.status().cancelled == 0
        cancel.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_text("the job is cancelled")).to_be_visible()
        eventually(lambda: endless.status().state == "cancelled")
        page.goto(f"{web(lab)}/#/jobs/broken")
        (Path(lab.environ["TASKYARD_TASKS_DIR"]) / "open").touch()  # now nothing fails, and nothing waits
        page.get_by_role("button", name="Requeue failed tasks").click()
        page.get_by_role("button", name="Run again").click()
        expect(page.get_by_text("7 tasks run again")).to_be_visible()
        expect(page.locator(".actions .state")).to_have_text("done")


def test_the_log_shows_what_tasks_print_by_job(page: Page, lab: Lab) -> None:
    """As text, whatever it looks like; a job's page leads there."""
    (Path(lab.environ["TASKYARD_TASKS_DIR"]) / "open").touch()  # nothing waits any more
    with lab.yard() as yard:
        job = yard.submit("pictures:markup", range(3), name="chatter")
        job.wait(20)
    page.goto(f"{web(lab)}/#/jobs/{job.id}")
    page.get_by_role("main").get_by_role("link", name="Log").click()
    for n in range(3):
        line = f"[{job.id}/{n}] picture {n} <b>smiles</b>"
        expect(page.locator(".log p").filter(has_text=line)).to_have_count(1)
    page.get_by_label("Only lines about this job").fill("chatter")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator(".log")).to_contain_text("picture 2 <b>smiles</b>")
    page.get_by_label("Only lines about this job").fill("thumbnails")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator(".log")).not_to_contain_text("smiles")


def test_the_keyboard_goes_everywhere(page: Page, lab: Lab) -> None:
    """The skip link, the pages, and a header that stays in view."""
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Workers", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Workers")
    expect(page.locator("main")).to_be_focused()
    assert page.evaluate("scrollY") == 0
    expect(page.locator("nav a[aria-current=page]")).to_have_text("Workers")
    expect(page).to_have_title("Workers · taskyard")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screen_reader_and_weak_eyes_find_everything(browser: Browser, lab: Lab, scheme: str) -> None:
    """axe-core's rules, contrast among them, on every page in both colour schemes."""
    with looking(browser, lab, color_scheme=scheme, reduced_motion="reduce") as page:
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (ground == "rgb(20, 22, 26)") == (scheme == "dark")
        for name in PAGES:
            turn(page, lab, name)
            filled(page, name)
            found = Axe().run(page)
            assert found.violations_count == 0, f"{name}: {found.generate_report()}"


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, lab: Lab) -> None:
    with looking(browser, lab, viewport={"width": 360, "height": 740}) as page:
        for name in PAGES:
            turn(page, lab, name)
            filled(page, name)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
            expect(page.get_by_role("link", name="Log", exact=True)).to_be_in_viewport()


def test_the_login_asks_for_the_token(browser: Browser, lab: Lab) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{web(lab)}/")
    expect(page).to_have_url(re.compile("/login$"))
    assert Axe().run(page).violations_count == 0
    page.get_by_label("The yard's token").fill("wrong")
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_contain_text("not the token")
    page.get_by_label("The yard's token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#link")).to_have_text("live")
    assert "token" not in page.url
    context.close()


def test_it_comes_back_with_the_master(browser: Browser, lab: Lab) -> None:
    """Killed and started again: the page says so, and goes on by itself."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{web(lab)}/?token={TOKEN}")
    expect(page.locator("#link")).to_have_text("live")
    started = page.locator("main .small").text_content()
    lab.kill_master()
    expect(page.locator("#link")).to_contain_text("no answer")
    lab.start_master()
    expect(page.locator("#link")).to_have_text("live", timeout=15_000)
    expect(page.locator(".figures")).to_contain_text("workers2")
    expect(page.locator("main .small")).not_to_have_text(started or "", timeout=5_000)
    context.close()
