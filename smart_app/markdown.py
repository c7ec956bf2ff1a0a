"""GitHub-flavoured markdown as HTML that cannot run: no HTML of its own, no pictures, links as the renderer checks."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markupsafe import Markup

_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"]).disable("image")
)


def markdown(text: str, *, below: int = 1) -> Markup:
    """`below`: how many levels its headings go down, so that a page keeps one first heading. The alignment of a column
    becomes a class: the page's policy allows no inline style."""
    tokens = _MARKDOWN.parse(text)
    for token in tokens:
        if token.attrs.pop("style", None) == "text-align:right":
            token.attrSet("class", "right")
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + below)}"
    for heading, inner, end in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if heading.type == "th_open" and inner.type == "inline" and not inner.content:
            heading.tag = end.tag = "td"  # a header without words heads nothing
    html = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    return Markup(html)  # noqa: S704 - the renderer escapes; HTML in the text is switched off
