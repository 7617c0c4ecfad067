"""`render_tree`: the tree of a search as one HTML file without a script, or as a section of another page."""

from collections.abc import Mapping
from typing import Any

from esamp.report.pages.html import asset, document, escape
from esamp.report.pages.tree_list import nested
from esamp.report.pages.tree_map import draw
from esamp.report.pages.tree_view import TreeView, read_tree

LEGEND = {"way": "way to the best answer", "kept": "kept", "back": "searched, left again", "cut": "not followed"}


def render_tree(details: Mapping[str, Any], title: str = "Tree of thoughts") -> str:
    """The tree in `Completion.details` as an HTML page. Write it with ``encoding="utf-8"``, open it in a browser.

    All texts are untrusted and escaped. The page has no script; its Content-Security-Policy admits only its own style.

    Raises:
        InputError: the details contain no tree.
    """
    view = read_tree(details)
    lead = f'<p class="lead">{escape(_lead(view, details))}</p>'
    slots = {"lead": lead, "section": _section(view, "node")}
    return document("tree.html", slots, title=title, style=asset("page.css") + tree_style())


def tree_section(details: Mapping[str, Any], name: str = "node") -> str:
    """The tree as a ``<section>`` for a page whose style contains page.css and `tree_style`.

    The ids of its elements begin with `name`, so that a page can have several trees.

    Raises:
        InputError: the details contain no tree.
        ValueError: `name` has characters other than letters.
    """
    if not (name.isascii() and name.isalpha()):
        raise ValueError(f"name = {name!r}: expected ASCII letters only")
    return _section(read_tree(details), name)


def tree_style() -> str:
    """The CSS rules of a tree, to be used together with page.css."""
    return asset("tree.css")


def _section(view: TreeView, name: str) -> str:
    legend = "".join(f'<span class="{kind}">{words}</span>' for kind, words in LEGEND.items())
    answers = "".join(_answer(view, answer, name) for answer in view.answers)
    statistics = "".join(f'<p class="note">{escape(words)}</p>' for words in view.statistics)
    return (
        f'<section class="tree"><h3>Answers</h3><ol class="samples answers">{answers}</ol>'
        f"<h3>The tree</h3>{statistics}"
        f'<h3>Map</h3><div class="legend">{legend}</div>'
        f'<div class="map" role="region" aria-label="Map of the tree" tabindex="0">{draw(view, name)}</div>'
        f"<h3>All thoughts</h3>{nested(view, name)}</section>"
    )


def _answer(view: TreeView, answer: int, name: str) -> str:
    node = view.nodes[answer]
    thoughts = []
    while node.parent is not None:
        thoughts.append(node.thought)
        node = view.nodes[node.parent]
    words = "\n".join(thoughts[::-1]) or "No thought was found."
    facts = "; ".join(view.nodes[answer].facts[1:3])
    return (
        f'<li class="{view.nodes[answer].kind}"><span class="thought" dir="auto">{escape(words)}</span>'
        f'<span class="facts">{escape(facts)} · <a href="#{name}-{answer}">show in the tree</a></span></li>'
    )


def _lead(view: TreeView, details: Mapping[str, Any]) -> str:
    finished = [answer for answer in view.answers if details["nodes"][answer]["finished"]]
    solved = [answer for answer in finished if details["nodes"][answer]["solved"]]
    if solved:
        return f"Solved: {len(solved)} {'answers' if len(solved) > 1 else 'answer'} found to be right."
    if finished:
        right = (
            "none of them right" if details["nodes"][finished[0]]["solved"] is False else "which nothing could check"
        )
        return f"{len(finished)} {'answers' if len(finished) > 1 else 'answer'}, {right}."
    return "No answer was reached; the furthest thoughts are shown."
