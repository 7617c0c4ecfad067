"""`TreeOfThoughts`: the method, from a request to its answers and the tree that they come from."""

import random
from collections.abc import Mapping
from typing import Any

from esamp.engines.base import Completion, Engine, Progress, Request, Sample
from esamp.errors import OptionError
from esamp.options import Options
from esamp.sampling import Sampling
from esamp.search.base import SearchMethod
from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.calls import Calls, call_sampling
from esamp.search.tree_of_thoughts.evaluate import Evaluator
from esamp.search.tree_of_thoughts.family import prompts_for
from esamp.search.tree_of_thoughts.grow import Grower
from esamp.search.tree_of_thoughts.prompts import Prompts
from esamp.search.tree_of_thoughts.tree import Node, Tree
from esamp.search.tree_of_thoughts.walk import Walk


class TreeOfThoughts(SearchMethod):
    """Searches a tree of partial answers that the model itself proposes and judges."""

    name = "tree_of_thoughts"
    summary = "a search through a tree of thoughts that the model proposes and judges, breadth or depth first"
    citation = "Yao et al. 2023, arXiv 2305.10601"
    options = TreeOfThoughtsOptions

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The sampler of every call: the request's, at temperature .7 where it sets none."""
        return call_sampling(options, sampling)

    @classmethod
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        """Answer `request` with at most ``request.n`` different answers, the best first.

        A sample's text is the whole answer; for a number game the steps and the answer, as a model would have written
        them in one go. Its token ids are those of the last call that led to it, so they need not spell the text.
        With n = 1, of several states that are worth the same one is followed; with more, they stay apart where they
        lead to different answers. Where no answer was reached, the samples are the furthest partial answers, with the
        finish reason "length".
        `Completion.spent` counts all calls; `Completion.details` holds the tree:

        * ``nodes``: id, parent, depth, thought, state, value, judgements, and the flags selected, pruned, backtracked,
          cached, duplicate_of, finished, solved; order is the place in the order of expansion
        * ``answers``: the node of each sample; ``paths``: the ids from the root to each of them
        * ``budget``, ``cache``, ``rejected``, ``prompts``, ``levels``, ``options``

        Raises:
            OptionError: the prompts that the options name do not fit the request, or no call fits the budget.
            InactiveMethodError: the method underneath (``over``) should have acted and never did.
        """
        options = request.own_options
        assert isinstance(options, TreeOfThoughtsOptions)
        if request.n < 1:
            raise OptionError(f"request {request.id!r}: n = {request.n} must be at least 1")
        prompts = prompts_for(request, options)
        calls = Calls(engine, request, request.own_sampling, options, progress)
        levels = options.thought_steps or prompts.steps
        grower, evaluator = (
            Grower(prompts, calls, options, levels),
            Evaluator(prompts, calls, options, apart=request.n > 1),
        )
        calls.check(grower.first_ask(prompts.root))
        tree = Tree(prompts.root, prompts.label(prompts.root))
        walk = Walk(tree, grower, evaluator, options, random.Random(request.own_seed), request.n)
        walk.run()
        calls.check_active()
        best = walk.best(request.n)
        samples = tuple(_sample(index, node, prompts) for index, node in enumerate(best))
        if progress is not None:
            progress(len(samples), 0)
        spent = calls.meter.cost()
        details = {
            "method": cls.name,
            "prompts": prompts.name,
            "levels": levels,
            "options": options.model_dump(mode="json"),
            "nodes": [node.record() for node in tree.nodes],
            "answers": [node.id for node in best],
            "paths": [tree.path(node) for node in best],
            **_books(calls, evaluator, grower),
        }
        return Completion(request, samples, spent.prompt_tokens, spent.seconds, spent=spent, details=details)


def _sample(index: int, node: Node, prompts: Prompts) -> Sample:
    return Sample(index, prompts.text(node.state), node.tokens, "stop" if node.state.finished else "length")


def _books(calls: Calls, evaluator: Evaluator, grower: Grower) -> Mapping[str, Any]:
    cache = {"hits": evaluator.hits, "states": evaluator.valued}
    return {"budget": calls.record(), "cache": cache, "rejected": grower.record()}
