"""Checks of a request before it runs, and of its completion."""

from esamp.engines.base import Completion, Request
from esamp.engines.titles import title
from esamp.errors import InactiveMethodError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod, Draw, Need


def refuse_search(request: Request) -> None:
    """Refuse a request whose method makes requests of its own, so that no engine can run it alone.

    Raises:
        UnsupportedError: it is one; names the function to call instead.
    """
    if registry.get(request.method).above_engines:
        raise UnsupportedError(
            f"method {request.method!r} makes many requests of its own: call esamp.answer(engine, requests) "
            "instead of engine.generate(requests)"
        )


def refuse_token_logprobs(name: str) -> None:
    """Refuse log-probabilities of tokens for a method whose samples are not drawn token by token from a distribution.

    Raises:
        UnsupportedError: the method, or a part of it, chooses the tokens of a group together.
    """
    for part in map(registry.part, name.split("+")):
        if issubclass(part, Draw) or Need.BEAMS in part.needs:
            raise UnsupportedError(
                f"method {part.name!r} chooses the tokens of a group together, so that a token has no probability of "
                "its own: use another method, or leave token_logprobs out"
            )


def check_active(completion: Completion) -> None:
    """Refuse a completion whose method should have steered rows and steered none.

    It should have if a sample has three tokens or more (the first comes from prefill, and before the second nothing was
    learned), or if telemetry says that the group was refused a slot.

    Raises:
        InactiveMethodError: the options ask for steering, and no row was steered.
    """
    request = completion.request
    method = registry.get(request.method)
    if not issubclass(method, DecodeMethod) or not method.steers(request.options or method.options()):
        return
    longest = max((len(sample.token_ids) for sample in completion.samples), default=0)
    refused = completion.telemetry.get("groups_refused", 0) > 0
    if (longest >= 3 or refused) and not completion.telemetry.get("rows_steered", 0):
        reported = ", ".join(f"{name} = {value:g}" for name, value in completion.telemetry.items()) or "nothing"
        raise InactiveMethodError(
            f"method {request.method!r} should have acted on {title(request)} and never did, so its samples are "
            f"those of plain sampling. Is warm-up longer than the samples? Its telemetry says: {reported}"
        )
