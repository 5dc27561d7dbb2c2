"""The few pieces of HTML the report is made of; every text is escaped here and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from ..escapes import printable

STYLE = """
:root { --ink: #20252c; --soft: #5b6570; --line: #dde2e7; --paper: #ffffff; --card: #f6f8fa; --accent: #2f6fb0;
        --good: #2e9d6b; --bad: #c8453c; --warn: #b9770e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #a3adb8; --line: #353c45; --paper: #15181c; --card: #1d2228; --accent: #6fa8dc;
          --good: #5cc596; --bad: #ef8078; --warn: #e0a84a; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 940px; margin: 0 auto; padding: 28px 24px 64px }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px } h2 { font-size: 1.35rem; margin: 0 0 4px }
h3 { font-size: 1.05rem; margin: 26px 0 6px } p { margin: 4px 0 12px; max-width: 78ch }
.soft, figcaption, .lead { color: var(--soft) } a { color: var(--accent) }
nav { margin: 18px 0 8px; padding: 10px 0; border-block: 1px solid var(--line); display: flex; flex-wrap: wrap; gap: 4px 18px }
nav a { text-decoration: none } section { margin-top: 44px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0 }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25 } .tile span { color: var(--soft); font-size: .88rem }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 8px 0 16px; font-size: .93rem }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--soft) } tbody th { color: var(--ink) }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums } tr.best td, tr.best th { font-weight: 700; color: var(--good) }
figure { margin: 10px 0 18px } figure svg, figure img { max-width: 100%; height: auto; display: block }
figure img { border-radius: 8px; border: 1px solid var(--line) } figcaption { font-size: .88rem; margin-top: 4px }
.row { display: flex; flex-wrap: wrap; gap: 8px 26px; align-items: flex-start }
.row figure { flex: 1 1 300px; max-width: 430px }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .5em }
pre, code { font-family: ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; font-size: .88rem }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; overflow-x: auto; white-space: pre-wrap }
details { margin: 6px 0 12px } summary { cursor: pointer; color: var(--accent) }
.absent { color: var(--soft); font-style: italic } .error { color: var(--bad) } .warning { color: var(--warn) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: .93rem } dt { font-weight: 600 } dd { margin: 0 }
@media (max-width: 640px) { dl { grid-template-columns: 1fr } dd { margin-bottom: 8px } }
@media print {
  :root { --ink: #000; --soft: #444; --line: #ccc; --paper: #fff; --card: #fff; --accent: #1d4f86;
          --good: #1c6e49; --bad: #96271f; --warn: #80530a; }
  nav { display: none } figure, tr, pre, .tiles { break-inside: avoid } h2, h3, .lead { break-after: avoid }
  main { max-width: none; padding: 0 }
  details::details-content { content-visibility: visible; block-size: auto } }
"""


class Markup(str):
    """Text that is HTML already and is not escaped again."""


def text(value: object) -> Markup:
    """A value as HTML text."""
    return value if isinstance(value, Markup) else Markup(escape(printable(str(value))))


def joined(parts: Iterable[str], between: str = "\n") -> Markup:
    """Pieces of HTML one after the other."""
    return Markup(between.join(text(part) for part in parts))


def element(tag: str, content: object, css: str = "") -> Markup:
    """`content` in an element, with an optional class."""
    attribute = f' class="{css}"' if css else ""
    return Markup(f"<{tag}{attribute}>{text(content)}</{tag}>")


def paragraph(content: object, css: str = "") -> Markup:
    """A paragraph, with an optional class."""
    return element("p", content, css)


def absent(sentence: str) -> Markup:
    """The one line that stands where something does not exist yet."""
    return paragraph(sentence, "absent")


def section(anchor: str, title: str, lead: str, *content: str) -> Markup:
    """A section with its heading and one sentence that says what it shows."""
    head = joined([element("h2", title), paragraph(lead, "lead")])
    return Markup(f'<section id="{text(anchor)}">\n{head}\n{joined(content)}\n</section>')


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], numbers: bool = True, best: int | None = None
) -> Markup:
    """A table whose first column names the row; the others are right-aligned numbers unless `numbers` is false."""
    css = "number" if numbers else ""
    head = joined([element("th", cell, css if i else "") for i, cell in enumerate(header)], "")
    lines = [
        element(
            "tr",
            joined([element("td" if i else "th", cell, css if i else "") for i, cell in enumerate(row)], ""),
            "best" if index == best else "",
        )
        for index, row in enumerate(rows)
    ]
    return Markup(
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{joined(lines)}</tbody></table></div>'
    )


def tiles(values: Iterable[tuple[object, str]]) -> Markup:
    """Large numbers with what they are."""
    cards = [Markup(f'<div class="tile"><b>{text(v)}</b><span>{text(what)}</span></div>') for v, what in values]
    return Markup(f'<div class="tiles">{joined(cards)}</div>')


def picture(png: bytes, description: str, caption: object = "") -> Markup:
    """A PNG inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return figure(Markup(f'<img alt="{text(description)}" src="data:image/png;base64,{data}">'), caption)


def figure(content: str, caption: object = "") -> Markup:
    """A drawing (SVG or img) with its caption."""
    below = element("figcaption", caption) if caption else ""
    return Markup(f"<figure>{content}{below}</figure>")


def row(*content: str) -> Markup:
    """Pieces beside each other where the page is wide enough."""
    return Markup(f'<div class="row">{joined(content)}</div>')


def folded(summary: str, *content: str) -> Markup:
    """Content the reader opens when wanted."""
    return Markup(f"<details><summary>{text(summary)}</summary>{joined(content)}</details>")


def definitions(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Terms and their explanations."""
    items = [joined([element("dt", term), element("dd", meaning)], "") for term, meaning in pairs]
    return element("dl", joined(items))


def code(lines: str) -> Markup:
    """Lines to type, as they are."""
    return element("pre", element("code", lines))


def swatch(color: tuple[int, int, int]) -> Markup:
    """A small square of a label's colour."""
    return Markup('<span class="swatch" style="background: rgb({}, {}, {})"></span>'.format(*color))


def page(title: str, body: str) -> str:
    """The whole document: nothing in it comes from elsewhere."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{text(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
