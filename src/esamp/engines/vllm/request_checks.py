"""Whether an engine can run a request: its number of samples, its method, and the layers that the method reads."""

from collections.abc import Collection

from esamp.engines.base import Request
from esamp.engines.checks import refuse_search, refuse_token_logprobs
from esamp.engines.titles import title
from esamp.engines.vllm.params import check_supported
from esamp.errors import OptionError, UnsupportedError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod


def check(request: Request, *, depth: int, layers: Collection[int], token_logprobs: bool) -> None:
    """Refuse a request that the engine cannot run.

    Args:
        request: the request.
        depth: the model's number of layers.
        layers: the depths of the residual stream that the engine keeps.
        token_logprobs: whether the engine reports each token's log-probability.

    Raises:
        OptionError: the request asks for no sample.
        UnsupportedError: its method cannot run inside vLLM, reads a layer that is not kept, or draws tokens that have
            no probability of their own.
    """
    if request.n < 1:
        raise OptionError(f"{title(request)}: n = {request.n} must be at least 1")
    refuse_search(request)
    if token_logprobs:
        refuse_token_logprobs(request.method)
    method = registry.get(request.method)
    try:
        check_supported(method)
    except OptionError as error:
        raise UnsupportedError(f"{title(request)}: {error}") from error
    if issubclass(method, DecodeMethod):
        missing = set(method.layers(request.own_options, depth)) - set(layers)
        if missing:
            raise UnsupportedError(
                f"{title(request)} reads layer {min(missing)}, but vLLM was started to keep layers "
                f"{', '.join(map(str, layers))}: load the engine with layers=({min(missing)},)"
            )
