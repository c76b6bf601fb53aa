"""The pages in a real browser, at two widths, dark and light; skipped where none is installed and none is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import Browser, browser, find_browser
from tests.report.made_run import made_evaluation, made_further, make_run
from tests.report.test_audit_page import made_audit
from tests.report.test_comparison import two_runs
from unlora.artifacts import write_json
from unlora.report import write_audit_page, write_comparison, write_report

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no browser is installed")
LONG = "a-run-with-a-name-that-goes-on-and-on-without-a-place-to-break-it-in-two"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    runs = [*two_runs(folder), *(make_run(folder / f"{LONG}-{number}") for number in range(6))]
    for run in runs[:6]:
        write_json(run / "evaluation.json", made_evaluation() | {"others": made_further()})
    for run in runs[2:5]:
        write_json(run / "audit" / "audit.json", made_audit(run=LONG))
    return {
        "run": write_report(runs[0]),
        "audit": write_audit_page(runs[0] / "audit"),
        "comparison": write_comparison(runs, folder / "page.html"),
    }


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    assert PROGRAM is not None
    with browser(PROGRAM) as found:
        yield found


@pytest.mark.parametrize("name", ["run", "audit", "comparison"])
def test_page_is_whole_at_every_width_and_in_both_colours(pages: dict[str, Path], opened: Browser, name: str):
    backgrounds = set()
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            opened.open(pages[name], width=width, scheme=scheme)
            assert opened.value("window.innerWidth") == width
            assert opened.value("document.documentElement.scrollWidth") <= width, (width, scheme)
            assert opened.value("document.querySelectorAll('h2').length") > 1
            assert opened.picture().startswith(b"\x89PNG")
            backgrounds.add(opened.value("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2
    assert opened.complaints == []


def test_a_browser_that_is_asked_for_is_not_passed_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNLORA_BROWSER", "no-such-browser")
    with pytest.raises(AssertionError, match="UNLORA_BROWSER: there is no no-such-browser"):
        find_browser()


def test_a_fault_would_be_heard(opened: Browser, tmp_path: Path):
    page = tmp_path / "page.html"
    page.write_text("<h2>x</h2><div style='width: 3000px'>x</div><script>nothing.there</script>")
    opened.open(page, width=390, scheme="light")
    assert opened.value("document.documentElement.scrollWidth") > 390
    assert any("nothing is not defined" in one for one in opened.complaints)
    opened.complaints.clear()
