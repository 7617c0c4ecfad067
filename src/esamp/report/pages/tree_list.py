"""The tree as nested lists that can be folded without a script."""

from collections.abc import Mapping, Sequence

from esamp.report.pages.html import escape
from esamp.report.pages.tree_view import NodeView, TreeView

UNFOLDED = 3
"""If a node has more children that were not followed, they are folded behind a line with their number."""


def nested(view: TreeView, name: str) -> str:
    """All nodes as nested lists; the element of a node has the id ``NAME-ID``."""
    children = view.children()
    return f'<ul class="top">{_item(view.nodes[0], children, name)}</ul>'


def _item(node: NodeView, children: Mapping[int, Sequence[NodeView]], name: str) -> str:
    below = children[node.id]
    opening = f'<li class="{node.kind}" id="{name}-{node.id}">'
    if not below:
        return f'{opening}<div class="leaf">{_words(node)}</div></li>'
    followed = [child for child in below if child.kind != "cut" or children[child.id]]
    others = [child for child in below if child.kind == "cut" and not children[child.id]]
    items = "".join(_item(child, children, name) for child in followed)
    rest = "".join(_item(child, children, name) for child in others)
    if len(others) > UNFOLDED:
        rest = (
            f'<li><details class="others"><summary>{len(others)} more thoughts, not followed</summary>'
            f"<ul>{rest}</ul></details></li>"
        )
    return f"{opening}<details open><summary>{_words(node)}</summary><ul>{items}{rest}</ul></details></li>"


def _words(node: NodeView) -> str:
    status, *more = node.facts
    facts = f'<span class="{node.kind}">{escape(status)}</span>{"".join(f" · {escape(fact)}" for fact in more)}'
    return f'<span class="thought" dir="auto">{escape(node.thought)}</span><span class="facts">{facts}</span>'
