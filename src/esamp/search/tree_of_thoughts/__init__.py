"""Tree of Thoughts (Yao et al. 2023): thoughts that the model generates and judges, searched as a tree."""

from esamp.search.options import TreeOfThoughtsOptions

from .method import TreeOfThoughts

__all__ = ["TreeOfThoughts", "TreeOfThoughtsOptions"]
