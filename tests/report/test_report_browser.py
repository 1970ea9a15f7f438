"""The page of a run in a real browser: both languages, narrow, and on paper."""

from __future__ import annotations

from typing import Any

from miao.files import append_jsonl
from miao.report.page import write_report
from miao.rundir import RunDir
from tests.report.test_report_benchmarks import LINE
from tests.serve.browsing import browser_fixture, open_page_fixture  # noqa: F401

PHONE = {"width": 320, "height": 640}


def test_the_page_of_a_run(run: RunDir, open_page: Any) -> None:
    append_jsonl(run.eval_results, LINE)  # its radar is a chart without a read-out
    url = write_report(run).resolve().as_uri()
    page = open_page(url, viewport=PHONE, locale="en-US")
    assert page.inner_text("h2#scores .first.en") == "Scores"
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    last = page.locator("svg.chart[data-points]").last
    last.hover()
    assert "live" in last.get_attribute("class"), "charts below a radar answer the pointer"
    page.click("text=中文")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.locator("h2#scores .first.en").is_hidden()
    page.emulate_media(media="print", color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')")
    assert paper.strip() == "#fafbf8", "paper is white at night too"
    assert not [url for url in page.requested if not url.startswith("file:")]
