"""A report that a person opens: Markdown with its pictures beside it, or one HTML file that holds them.

    pictures = {"progress.png": drawn(lambda out: plot_progress(cards, track, out))}
    write_page(Path("report.html"), "Last night", "# Last night\\n\\n![the best so far](progress.png)\\n", pictures)

Both are made of the same Markdown. The HTML has no script, loads nothing, follows the reader's light or dark, and
prints; HTML in the text stays text. What agents wrote goes through `lab.brief.escaped` before it comes here, so
that it is no Markdown either. Not covered: what a report says, and how its pictures are drawn.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from lab.errors import SettingError
from lab.store import replace

PAGES = (".md", ".html")
PICTURES = {".png": "image/png", ".svg": "image/svg+xml"}
_ALIGNED = {"text-align:left": "left", "text-align:center": "centre", "text-align:right": "right"}

STYLE = """
:root { color-scheme: light dark; --ink: #22272e; --quiet: #6b7480; --line: #dfe2e6; --row: #f6f7f8; --back: #ffffff;
  --good: #17795e }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d9dde2; --quiet: #929ba6; --line: #353b43; --row: #1f242a; --back: #16191d; --good: #58b998 }
  img { filter: invert(0.913) hue-rotate(180deg) }
}
* { box-sizing: border-box }
html { background: var(--back) }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.5rem 5rem; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1rem }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem }
p, ul, ol { margin: .6rem 0; max-width: 46rem }
li { margin: .2rem 0 }
a { color: var(--good) }
img { display: block; width: 100%; height: auto; margin: 1.2rem 0 }
code { font: .875em ui-monospace, "SF Mono", Menlo, Consolas, monospace }
pre { padding: .8rem 1rem; background: var(--row); white-space: pre-wrap }
blockquote { margin: .8rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--quiet) }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; font-size: .875rem; line-height: 1.4 }
th { text-align: left; font-weight: 600; color: var(--quiet); border-bottom: 1px solid var(--quiet) }
th, td { padding: .35rem .8rem .35rem 0; vertical-align: top }
th:last-child, td:last-child { padding-right: 0 }
td { border-bottom: 1px solid var(--line) }
.right { text-align: right; white-space: nowrap }
.centre { text-align: center }
@media (max-width: 40rem) { body { padding: 1.2rem 1rem 3rem } table { display: block; overflow-x: auto } }
@media print {
  :root { color-scheme: light; --ink: #000; --quiet: #444; --line: #bbb; --row: #f4f4f4; --back: #fff; --good: #000 }
  body { max-width: none; padding: 0; font-size: 10.5pt }
  img { filter: none }
  h2, h3 { break-after: avoid }
  img, tr, pre { break-inside: avoid }
}
"""
# Nothing is loaded, sent or run, whatever the text says: only this style, and pictures that are in the file.
POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"


def write_page(out: Path, title: str, text: str, pictures: Mapping[str, bytes]) -> list[Path]:
    """Write a report; the files written, the page last.

    `text` is Markdown with a heading of its own, in which `![words](name.png)` stands for `pictures["name.png"]`; a
    picture that is not among these is told by its words. Next to `report.md` it becomes `report-name.png`, in
    `report.html` a part of the file. `title` is what a browser shows for the page. SettingError, before anything is
    written, where `out` ends otherwise or has no folder. StoreError when a file cannot be written.
    """
    require_page(out)
    if out.suffix == ".html":
        replace(out, _html(title, text, pictures).encode("utf-8", "replace"))
        return [out]
    files = {name: out.with_name(f"{out.stem}-{name}") for name in pictures}
    for name, file in files.items():
        replace(file, pictures[name])
        text = re.sub(rf"(!\[[^\]\n]*\]\(){re.escape(name)}\)", rf"\g<1>{quote(file.name)})", text)
    replace(out, text.encode("utf-8", "replace"))
    return [*files.values(), out]


def require_page(out: Path) -> None:
    """SettingError where no page can be written to `out`: to be asked before the work that fills it."""
    if out.suffix not in PAGES:
        raise SettingError(f"--out {out} ends in {out.suffix or 'nothing'}; name a file that ends in .md or .html")
    if not out.parent.is_dir():
        raise SettingError(f"--out {out}: there is no folder {out.parent}; make it first")


def drawn(draw: Callable[[Path], None]) -> bytes:
    """The PNG that `draw` writes to the path it is given."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "picture.png")
        draw(file)
        return file.read_bytes()


def _html(title: str, text: str, pictures: Mapping[str, bytes]) -> str:
    """The whole page."""
    policy = POLICY.format(b64encode(sha256(STYLE.encode()).digest()).decode())
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{_body(text, pictures)}"
        f"</body>\n</html>\n"
    )


def _body(text: str, pictures: Mapping[str, bytes]) -> str:
    """The Markdown as HTML, with classes in place of style attributes, which the policy forbids."""
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        if style := token.attrs.pop("style", None):
            token.attrSet("class", _ALIGNED[str(style)])
        for at, child in enumerate(token.children or ()):
            if child.type == "image" and token.children:
                source = str(child.attrs["src"])
                if source in pictures:
                    data = b64encode(pictures[source]).decode()
                    child.attrSet("src", f"data:{PICTURES[Path(source).suffix]};base64,{data}")
                else:
                    token.children[at] = Token("text", "", 0, content=child.content)
    html: str = markdown.renderer.render(tokens, markdown.options, {})
    return html
