"""Which prompts a request gets."""

from esamp.engines.base import Request
from esamp.errors import RefusedError
from esamp.search.options import TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.arithmetic import stated_problem, trace_problem
from esamp.search.tree_of_thoughts.few_shot import FewShotPrompts
from esamp.search.tree_of_thoughts.general import GeneralPrompts
from esamp.search.tree_of_thoughts.prompts import Prompts
from esamp.search.tree_of_thoughts.trace import TracePrompts
from esamp.search.tree_of_thoughts.words import problem_of


def prompts_for(request: Request, options: TreeOfThoughtsOptions) -> Prompts:
    """The prompts that the options name; by "auto" those that the form of the request's prompt asks for.

    A text that is exactly ``Numbers 3 5 8 9 target 24`` is for a model of traces. Any other number game, and one in a
    chat, gets the worked examples. Everything else gets the general prompts.

    Raises:
        RefusedError: the options name prompts of number games, and the prompt states none.
    """
    wanted, text = options.thought_prompts, problem_of(request.prompt)
    game = stated_problem(text)
    if wanted == "auto":
        plain = isinstance(request.prompt, str) and trace_problem(request.prompt) is not None
        wanted = "trace" if plain else "general" if game is None else "numbers"
    if wanted == "general":
        return GeneralPrompts(request.prompt)
    if game is None:
        raise RefusedError(
            f"option 'thought_prompts' = {wanted!r} is for number games, and request {request.id!r} states none: write "
            "'Numbers 3 5 8 9 target 24', or use 'general'"
        )
    return TracePrompts(game) if wanted == "trace" else FewShotPrompts(game, request.prompt)
