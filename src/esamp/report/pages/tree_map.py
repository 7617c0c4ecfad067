"""The tree as a picture: an SVG with a dot for each node, one row for each level."""

from collections.abc import Mapping, Sequence
from itertools import count

from esamp.report.pages.html import escape
from esamp.report.pages.tree_view import NodeView, TreeView

ACROSS, DOWN, MARGIN = 20, 58, 18
"""Pixels between neighbours, between levels, and around the picture."""
RADIUS = {"way": 8, "kept": 6.5, "back": 6.5, "cut": 4.5}
ORDER = ("cut", "back", "kept", "way")
"""Drawing order of the kinds of nodes; later ones cover earlier ones."""


def draw(view: TreeView, name: str) -> str:
    """The picture. Each dot links to the node's entry in the list (``#NAME-ID``).

    The list serves keyboards and screen readers; the tab key skips the dots.
    """
    places = _places(view)
    width = max(x for x, _ in places.values()) + MARGIN
    height = max(y for _, y in places.values()) + MARGIN
    lines, dots = [], []
    for node in sorted(view.nodes, key=lambda node: ORDER.index(node.kind)):
        x, y = places[node.id]
        if node.parent is not None:
            parent_x, parent_y = places[node.parent]
            lines.append(f'<line class="{node.kind}" x1="{parent_x:g}" y1="{parent_y:g}" x2="{x:g}" y2="{y:g}"/>')
        words = escape(f"{node.thought}\n{'; '.join(node.facts)}")
        dot = (
            f'<circle class="{node.kind}" cx="{x:g}" cy="{y:g}" r="{RADIUS[node.kind]}"><title>{words}</title></circle>'
        )
        dots.append(f'<a href="#{name}-{node.id}" tabindex="-1">{dot}</a>')
    levels = max(node.depth for node in view.nodes) + 1
    label = f"{len(view.nodes)} states on {levels} levels; the list below says all of it"
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return f'<svg role="img" aria-label="{label}" {size}>{"".join(lines)}{"".join(dots)}</svg>'


def _places(view: TreeView) -> Mapping[int, tuple[float, float]]:
    """Positions by node: leaves side by side in the order of the list, parents above the middle of their children."""
    children = view.children()
    across: dict[int, float] = {}
    leaves = count()
    for node in _postorder(view.nodes[0], children):
        own = [across[child.id] for child in children[node.id]]
        across[node.id] = (own[0] + own[-1]) / 2 if own else MARGIN + ACROSS * next(leaves)
    return {node.id: (across[node.id], MARGIN + DOWN * node.depth) for node in view.nodes}


def _postorder(node: NodeView, children: Mapping[int, Sequence[NodeView]]) -> list[NodeView]:
    """A node after all of its descendants."""
    return [below for child in children[node.id] for below in _postorder(child, children)] + [node]
