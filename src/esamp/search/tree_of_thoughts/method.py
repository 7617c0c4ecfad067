"""`TreeOfThoughts`: the method, from a request to its answers and their tree."""

import random
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from esamp.engines.base import Completion, Engine, Progress, Request, Sample
from esamp.engines.titles import title
from esamp.errors import OptionError, RefusedError
from esamp.options import Options
from esamp.sampling import Sampling
from esamp.search.base import SearchMethod
from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.arithmetic import stated_problem, trace_problem
from esamp.search.tree_of_thoughts.budget import BudgetedCalls
from esamp.search.tree_of_thoughts.few_shot import FewShotPrompts
from esamp.search.tree_of_thoughts.general import GeneralPrompts
from esamp.search.tree_of_thoughts.prompts import Prompts, problem_text
from esamp.search.tree_of_thoughts.search import Search
from esamp.search.tree_of_thoughts.thoughts import StateEvaluator, ThoughtGenerator
from esamp.search.tree_of_thoughts.trace import TracePrompts
from esamp.search.tree_of_thoughts.tree import Node, Tree

TEMPERATURE = 0.7
"""Temperature of the calls (Yao et al. 2023) if the request sets none."""


class TreeOfThoughts(SearchMethod):
    """Searches a tree of partial answers that the model itself proposes and evaluates."""

    name = "tree_of_thoughts"
    summary = "a search through a tree of thoughts that the model proposes and judges, breadth or depth first"
    citation = "Yao et al. 2023, arXiv 2305.10601"
    options = TreeOfThoughtsOptions

    @classmethod
    @override
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        return sampling if "temperature" in sampling.model_fields_set else sampling.replace(temperature=TEMPERATURE)

    @classmethod
    @override
    def run(cls, engine: Engine, request: Request, *, progress: Progress | None = None) -> Completion:
        """Answer `request` with at most ``request.n`` different answers, the best first.

        A sample's text is the whole answer; in a number game, the steps and the answer in the format of a single
        generation. Its token ids are those of the last call on the way to it, so they may not spell the text. With
        n = 1 only one of several states with equal keys is followed; with n > 1 such states are kept apart if they lead
        to different answers. Without an answer, the samples are the deepest partial answers, with the finish reason
        "length".

        `Completion.spent` counts all calls. `Completion.details` holds the tree:

        * ``nodes``: the fields of each `Node` as JSON; ``order`` is the place in the order of expansion
        * ``answers``: the node of each sample; ``paths``: the ids from the root to each of them
        * ``budget``, ``cache``, ``rejected``, ``prompts``, ``levels``, ``options``

        Raises:
            OptionError: the prompts named by the options do not fit the request, or the budget is below one call.
            InactiveMethodError: the inner method (``over``) should have acted and never did.
        """
        options = request.own_options
        assert isinstance(options, TreeOfThoughtsOptions)
        if request.n < 1:
            raise OptionError(f"{title(request)}: n = {request.n} must be at least 1")
        prompts = prompts_for(request, options)
        calls = BudgetedCalls(engine, request, request.own_sampling, options, progress)
        levels = options.thought_steps or prompts.steps
        generator = ThoughtGenerator(prompts, calls, options, levels)
        evaluator = StateEvaluator(prompts, calls, options, several_answers=request.n > 1)
        calls.check_budget(generator.first_query(prompts.root))
        tree = Tree(prompts.root, prompts.label(prompts.root))
        search = Search(tree, generator, evaluator, options, random.Random(request.own_seed), request.n)
        search.run()
        calls.check_active()
        best = search.best(request.n)
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
            **_statistics(calls, evaluator, generator),
        }
        return Completion(request, samples, spent.prompt_tokens, spent.seconds, spent=spent, details=details)


def prompts_for(request: Request, options: TreeOfThoughtsOptions) -> Prompts:
    """The prompts that the options name; with "auto" they depend on the form of the request's prompt.

    A text that is exactly ``Numbers 3 5 8 9 target 24`` gets the trace prompts of the embedded model. Any other number
    game, or one in a chat, gets the worked examples. Everything else gets the general prompts.

    Raises:
        RefusedError: the options name prompts for number games, but the request states no number game.
    """
    name, text = options.thought_prompts, problem_text(request.prompt)
    game = stated_problem(text)
    if name == "auto":
        is_trace = isinstance(request.prompt, str) and trace_problem(request.prompt) is not None
        name = "trace" if is_trace else "general" if game is None else "numbers"
    if name == "general":
        return GeneralPrompts(request.prompt)
    if game is None:
        raise RefusedError(
            f"option 'thought_prompts' = {name!r} is for number games, and {title(request)} states none: write "
            "'Numbers 3 5 8 9 target 24', or use 'general'"
        )
    return TracePrompts(game) if name == "trace" else FewShotPrompts(game, request.prompt)


def _sample(index: int, node: Node, prompts: Prompts) -> Sample:
    return Sample(index, prompts.text(node.state), node.tokens, "stop" if node.state.finished else "length")


def _statistics(calls: BudgetedCalls, evaluator: StateEvaluator, generator: ThoughtGenerator) -> Mapping[str, Any]:
    cache = {"hits": evaluator.hits, "states": evaluator.cached_states}
    return {"budget": calls.record(), "cache": cache, "rejected": generator.record()}
