"""report.html in a real browser: everything drawn, nothing asked for, readable by eye, keyboard and screen reader.

Chromium is Debian's (.ci/run installs it). Without one these tests are skipped, but not in CI.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from browser import Page, browser, chromium
from report_runs import HOSTILE, report_run

from autoquant.reports.comparison import comparison_view
from autoquant.reports.page import render
from autoquant.reports.run_files import RunFiles, RunReader
from autoquant.reports.view import report_view
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.study.run_folder import RunFolder

PROGRAM = chromium()
AXE = find_spec("axe_core_python")
"""The package that carries Deque's axe-core, axe.min.js."""
pytestmark = pytest.mark.skipif(
    (PROGRAM is None or AXE is None) and not os.environ.get("CI"), reason="there is no Chromium, or no axe-core"
)
CHARTS = ("drop-chart", "trade-off-chart", "history-chart", "history-chart-samples", "layers-chart")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert PROGRAM is not None, "CI has Chromium: .ci/run installs it"
    with browser(PROGRAM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFiles]:
    """Runs in every state."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "certified": report_run(folder / "certified"),
        "missed": report_run(folder / "missed", verdict=Verdict.MISSED, trials=6),
        "going on": report_run(folder / "going", verdict=None, trials=3),
        "hostile": report_run(folder / "hostile", name=HOSTILE.replace("/", "|"), hosts=(HOSTILE, "b")),
        "begun": begun(folder / "begun"),
    }
    return {name: RunReader(run).read(going_on=name in ("going on", "begun")) for name, run in made.items()}


def begun(folder: Path) -> RunFolder:
    """A run without a trial."""
    run = RunFolder(folder)
    run.create()
    digests = dict.fromkeys(("model", "data", "calibration", "metric"), "0" * 64)
    run.write_request({"request": {"model": "/m.pb", "data": "/d.npz", "tolerance": "1%"}, "digests": digests})
    return run


@pytest.fixture(scope="module")
def files(runs: dict[str, RunFiles], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Their pages, and one that compares two."""
    folder = tmp_path_factory.mktemp("pages")
    pages = {name: render("report.html.j2", **report_view(run)) for name, run in runs.items()}
    pages["compared"] = render("comparison.html.j2", **comparison_view([runs["certified"], runs["hostile"]]))
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


NAMES = ("certified", "missed", "going on", "hostile", "begun", "compared")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_nothing_to_the_console_and_asks_for_nothing(page: Page, files: dict[str, Path], name: str) -> None:
    page.show()
    page.open(files[name])
    page.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.log == []
    asked = [address for address in page.requests if not address.startswith("data:")]
    assert asked == [files[name].resolve().as_uri()]
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("[...document.images].every(one => one.complete && one.naturalWidth > 0)")


@pytest.mark.parametrize("name", ["certified", "missed"])
def test_every_chart_is_drawn_with_a_title_and_a_text(page: Page, files: dict[str, Path], name: str) -> None:
    page.show()
    page.open(files[name])
    found: dict[str, Any] = page.run(
        """Object.fromEntries([...document.querySelectorAll('svg.chart')].map(one => [one.id, {
            box: one.getBoundingClientRect().toJSON(),
            marks: [...one.querySelectorAll('use, rect.cell, rect[data-r]')].filter(mark => {
                const box = mark.getBoundingClientRect(), all = one.getBoundingClientRect();
                return box.width > 0 && box.height > 0 && box.right >= all.left && box.left <= all.right;
            }).length,
            all: one.querySelectorAll('use, rect.cell, rect[data-r]').length,
            words: one.getAttribute('aria-labelledby').split(' ').map(id => document.getElementById(id).textContent),
        }]))"""
    )
    assert tuple(found) == CHARTS
    for chart in found.values():
        assert chart["box"]["width"] > 600
        assert chart["marks"] == chart["all"] > 0
        assert all(len(words) > 10 for words in chart["words"])


@pytest.mark.parametrize(
    ("name", "dark"), [("hostile", False), ("hostile", True), ("compared", False), ("begun", False)]
)
def test_axe_finds_nothing_to_complain_of(page: Page, files: dict[str, Path], name: str, dark: bool) -> None:
    """Contrast of text, labels, headings, roles, tables, focus."""
    page.show(dark=dark)
    page.open(files[name])
    page.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert AXE is not None
    assert AXE.submodule_search_locations is not None
    page.run((Path(AXE.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8") + "; 0")
    found = page.run(
        """axe.run({resultTypes: ['violations']}).then(result => result.violations.map(one =>
            one.id + ': ' + one.nodes.slice(0, 3).map(node => node.html + ' ' + node.failureSummary).join(' | ')))"""
    )
    assert found == []


LUMINANCE = """
const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = color => {
  const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(value => channel(value / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
"""
"""Contrast as WCAG 2.2 defines it (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio)."""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_marks_stand_out_from_paper_and_zone(page: Page, files: dict[str, Path], dark: bool) -> None:
    """Three to one, which WCAG asks of what must be seen; axe looks at text alone, and not at text in charts."""
    page.show(dark=dark)
    page.open(files["certified"])
    found: dict[str, float] = page.run(
        f"""(() => {{ {LUMINANCE}
        const paper = getComputedStyle(document.body).backgroundColor, least = {{}};
        const zone = getComputedStyle(document.querySelector('.zone')).fill;
        const note = (name, value) => least[name] = Math.min(least[name] ?? 99, value);
        for (const mark of document.querySelectorAll('svg.chart use')) {{
            const style = getComputedStyle(mark), color = style.fill === 'none' ? style.stroke : style.fill;
            note('mark', Math.min(contrast(color, paper), contrast(color, zone)));
        }}
        for (const line of document.querySelectorAll('.tolerance, .front, .whisker, .hatch, .crossed'))
            note(line.getAttribute('class'), contrast(getComputedStyle(line).stroke, paper));
        for (const bar of document.querySelectorAll('.bar, .s0, .s1, .s2, .s3, .s4'))
            note('bar', contrast(getComputedStyle(bar).fill, paper));
        for (const text of document.querySelectorAll('svg text'))
            note('text', Math.min(contrast(getComputedStyle(text).fill, paper),
                                  contrast(getComputedStyle(text).fill, zone)));
        return least; }})()"""
    )
    assert found.pop("text") >= 4.5
    assert {"mark", "tolerance", "front", "whisker", "hatch", "crossed", "bar"} == found.keys()
    assert {name: value for name, value in found.items() if value < 3.0} == {}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wider_than_a_phone(page: Page, files: dict[str, Path], name: str) -> None:
    page.show(width=360, height=740)
    page.open(files[name])
    page.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.run("document.documentElement.scrollWidth") <= 360
    assert page.run("Math.min(...[...document.querySelectorAll('svg.chart')].map(one => one.clientWidth), 400)") > 300


def test_a_name_is_shown_as_it_is_and_does_nothing(page: Page, files: dict[str, Path]) -> None:
    page.show()
    page.open(files["hostile"])
    shown = HOSTILE.replace("/", "|").replace("\x1b", "⟨U+001B⟩").replace("\u202e", "⟨U+202E⟩")
    assert page.run("document.querySelector('h1').textContent") == f"Quantization of {shown}"
    assert page.run("document.querySelector('.warnings').textContent").strip() == f"a warning about {shown}"
    assert page.run("document.querySelectorAll('main script, header script').length") == 0
    assert "49" not in page.run("document.title")


def test_marks_are_reached_by_mouse_and_by_keyboard(page: Page, files: dict[str, Path]) -> None:
    page.show()
    page.open(files["certified"])
    page.run("document.getElementById('history-chart').focus()")
    page.press("ArrowRight")
    first = page.run("document.getElementById('tip').innerText")
    page.press("ArrowRight")
    second = page.run("document.getElementById('tip').innerText")
    assert first.startswith("Trial 0")
    assert second.startswith("Trial 1")
    page.press("Escape")
    assert page.run("document.getElementById('tip').hidden")
    x, y = page.run(
        """(() => { const one = document.querySelector('#layers-chart rect[data-r="2"]'); one.scrollIntoView();
        const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"""
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert page.run("document.getElementById('tip').innerText").startswith("Layer l0002")


def test_a_table_is_sorted_by_its_headings(page: Page, files: dict[str, Path]) -> None:
    page.show()
    page.open(files["certified"])
    costs = "[...document.querySelectorAll('#layers tbody tr')].map(row => Number(row.cells[3].dataset.v))"
    unsorted = page.run(costs)
    for order in (sorted(unsorted), sorted(unsorted, reverse=True)):
        page.run("document.querySelectorAll('#layers th')[3].querySelector('button').click()")
        assert page.run(costs) == order
    assert page.run("document.querySelectorAll('#layers th')[3].getAttribute('aria-sort')") == "descending"


def test_without_scripts_everything_is_there(page: Page, files: dict[str, Path]) -> None:
    page.show()
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(files["certified"])
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert page.run("document.querySelectorAll('th button').length") == 0
    assert page.run("document.querySelectorAll('svg.chart').length") == len(CHARTS)
    assert page.run("document.querySelector('#history tbody').rows.length") > 0


def test_a_picture_of_it_is_not_blank_and_it_can_be_printed(page: Page, files: dict[str, Path], tmp_path: Path) -> None:
    page.show()
    page.open(files["certified"])
    page.screenshot(tmp_path / "page.png")
    page.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_a_page_without_pictures_is_small(files: dict[str, Path]) -> None:
    assert files["going on"].stat().st_size < 100_000
