"""The main text of pages, in Chinese and English, and of pages that are broken."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.read.html import main_text
from miao.corpus.read.problems import Problem
from miao.corpus.read.readers import read_objects

NEWS = """<!DOCTYPE html><html><head><title>标题 - 某网</title><style>p{color:red}</style>
<script>var a = "<p>脚本</p>";</script></head><body>
<div class="top-nav"><a href="/">首页</a><a href="/x">新闻</a></div>
<ul><li><a href="1">第一个很长很长的链接标题在这里出现</a></li><li><a href="2">第二个</a></li></ul>
<div id="main"><h1>苗圃里的新苗</h1>
<p>春天到了，苗圃里的小苗一天天长高，园丁每天清晨都来浇水，<b>叶子</b>上的露珠闪着光。</p>
<p>他说：&ldquo;慢一点，<br>不着急。&rdquo;</p>
<pre>for x in y:
    print(x)</pre>
<p>到了秋天，它们会被移到山坡上去，在那里长成一片能够挡住风沙的树林，<a href="#">详情</a>。</p></div>
<div class="related"><p>推荐阅读：一篇与本文没有什么关系但是写得很长很长的广告文字，请点击这里。</p></div>
<h3>评论</h3><footer>版权所有 © 某网 京ICP备00000000号</footer></body></html>"""

NEWS_TEXT = """苗圃里的新苗
春天到了，苗圃里的小苗一天天长高，园丁每天清晨都来浇水，叶子上的露珠闪着光。
他说：“慢一点，
不着急。”
for x in y:
    print(x)
到了秋天，它们会被移到山坡上去，在那里长成一片能够挡住风沙的树林，详情。"""


def test_a_page_with_menus_and_advertising() -> None:
    assert main_text(NEWS) == NEWS_TEXT


def test_article_wins_over_the_rest() -> None:
    page = (
        "<body><p>Subscribe to our newsletter and never miss a story again.</p><article>"
        + "<p>The seedling stood in the rain for seven days and did not complain at all.</p>" * 3
        + "</article></body>"
    )
    assert main_text(page).count("\n") == 2 and "newsletter" not in main_text(page)


def test_unclosed_tags_and_short_notes() -> None:
    assert main_text("<p>one<p>two") == "one\ntwo"
    assert main_text("<p>好") == "好"
    assert main_text("plain text, no tags at all") == "plain text, no tags at all"
    assert main_text("<nav><a>x</a></nav><script>1</script>") == ""


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["<p>", "</p>", "<a>", "</div>", "<nav>", "<pre>", "<!--", "-->",
                                 "<![CDATA[", "&#x110000;", "&amp", "<", "\0", "文字文字文字文字文字", "a b"]),
                max_size=30).map("".join) | st.text(max_size=100))  # fmt: skip
def test_any_page_is_read(page: str) -> None:
    assert isinstance(main_text(page), str)


@pytest.mark.parametrize("ending", ["html", "htm"])
def test_pages_as_files(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a.{ending}"
    file.write_bytes(NEWS.encode("gbk", "xmlcharrefreplace"))
    said: list[str] = []
    objects = list(read_objects(file, on_repair=lambda _, how: said.append(how)))
    assert objects == [(1, {"text": NEWS_TEXT})] and said == ["read as GB18030"]
    file.write_text("<nav><a href=x>menu</a></nav>", "utf-8")
    problems: list[Problem] = []
    assert list(read_objects(file, problems.append)) == []
    assert [problem.line for problem in problems] == [1] and "menu" in problems[0].raw
