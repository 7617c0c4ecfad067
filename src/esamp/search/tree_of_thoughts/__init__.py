"""Tree of Thoughts (Yao et al. 2023): a search through partial answers that the model itself proposes and evaluates."""

from esamp.search.options import TreeOfThoughtsOptions

from .method import TreeOfThoughts

__all__ = ["TreeOfThoughts", "TreeOfThoughtsOptions"]
