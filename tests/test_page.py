"""Reports as files: the same Markdown as .md with pictures beside it, and as one .html that runs and loads nothing."""

from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.brief import escaped
from lab.errors import SettingError
from lab.page import drawn, write_page

PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
TEXT = "# Night\n\n![the best](best.png)\n\n| line | idea |\n|---:|---|\n| 3 | a \\| b |\n"
HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![a](http://x.y/z.png)",
    "[a](data:text/html;base64,PHNjcmlwdD4=)", "</style></body>", "<svg/onload=alert(1)>", "`code` **bold**", "# head",
    "| a | b |", "<http://x.y>", "www.x.y", "&lt;script&gt;", "- list", "1. list", "![a](best.png)",
)  # fmt: skip


class Page(HTMLParser):
    """The tags with their attributes, and the text of the body."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.style, self.inside = [], "", "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside == "style":
            self.style += data
        else:
            self.text += data

    def handle_endtag(self, tag):
        self.inside = ""


def html(tmp_path, text, pictures=None):
    out = tmp_path / "page.html"
    assert write_page(out, "Night", text, pictures or {}) == [out]
    return out.read_text()


def test_markdown_has_its_pictures_beside_it(tmp_path):
    out = tmp_path / "my night (1).md"
    picture = tmp_path / "my night (1)-best.png"
    assert write_page(out, "Night", TEXT, {"best.png": PNG}) == [picture, out]
    assert picture.read_bytes() == PNG
    assert out.read_text() == TEXT.replace("(best.png)", "(my%20night%20%281%29-best.png)")


def test_html_holds_its_pictures_and_aligns_by_class(tmp_path):
    page = Page(html(tmp_path, TEXT, {"best.png": PNG}))
    source = "data:image/png;base64," + b64encode(PNG).decode()
    assert ("img", {"src": source, "alt": "the best"}) in page.tags
    assert ("th", {"class": "right"}) in page.tags
    assert "a | b" in page.text


def test_the_policy_allows_the_style_of_the_page_and_nothing_else(tmp_path):
    page = Page(html(tmp_path, TEXT))
    policy = next(tag["content"] for name, tag in page.tags if name == "meta" and "http-equiv" in tag)
    digest = b64encode(sha256(page.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not [tag for _, tag in page.tags if "style" in tag]


def test_the_title_is_text(tmp_path):
    out = tmp_path / "page.html"
    write_page(out, "</title><script>", "x", {})
    assert "script" not in [name for name, _ in Page(out.read_text()).tags]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_makes_nothing_that_runs_or_loads(tmp_path, text):
    page = Page(html(tmp_path, f"{text}\n\nplain {text}\n"))
    assert {name for name, _ in page.tags} <= {
        "html", "head", "meta", "link", "title", "style", "body", "p", "a", "code", "strong", "h1", "ul", "ol", "li",
    }  # fmt: skip
    for _, tag in page.tags:
        assert not [name for name in tag if name.startswith("on")]
        assert tag.get("href", "").partition(":")[0] in ("", "http", "data")
        assert tag.get("href", "data:,").startswith(("http", "data:,"))


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_shown_as_it_is(tmp_path, text):
    page = Page(html(tmp_path, f"| a |\n|---|\n| {escaped(text)} |\n\n- {escaped(text)}\n", {"best.png": PNG}))
    assert page.text.count(text) == 2
    assert not {"a", "img", "code", "strong", "script"} & {name for name, _ in page.tags}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="<>[]()!`*_#|-\\&\"'=:/. \nabjs1", max_size=60))
def test_no_text_makes_a_tag_that_markdown_has_not(tmp_path, text):
    names = {name for name, _ in Page(html(tmp_path, text)).tags}
    assert not names & {"script", "iframe", "object", "svg", "img", "form", "input"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("page.pdf", "ends in .pdf; name a file that ends in .md or .html"),
        ("page", "ends in nothing; name a file that ends in .md or .html"),
        ("nowhere/page.md", "there is no folder"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_its_pictures(tmp_path, name, message):
    with pytest.raises(SettingError, match=message):
        write_page(tmp_path / name, "x", TEXT, {"best.png": PNG})
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_drawn_to_bytes():
    assert drawn(lambda out: Path(out).write_bytes(PNG) and None) == PNG
