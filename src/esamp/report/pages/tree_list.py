"""The tree as nested lists that open and close without a script."""

from collections.abc import Mapping, Sequence

from esamp.report.pages.html import escape
from esamp.report.pages.tree_view import NodeView, TreeView

FEW = 3
"""So many states that were not followed are shown at once; more are folded away behind a line that counts them."""


def nested(view: TreeView, name: str) -> str:
    """All states below the root, each an element with the id ``NAME-ID``."""
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
    if len(others) > FEW:
        rest = (
            f'<li><details class="others"><summary>{len(others)} more thoughts, not followed</summary>'
            f"<ul>{rest}</ul></details></li>"
        )
    return f"{opening}<details open><summary>{_words(node)}</summary><ul>{items}{rest}</ul></details></li>"


def _words(node: NodeView) -> str:
    fate, *more = node.facts
    facts = f'<span class="{node.kind}">{escape(fate)}</span>{"".join(f" · {escape(fact)}" for fact in more)}'
    return f'<span class="thought" dir="auto">{escape(node.thought)}</span><span class="facts">{facts}</span>'
