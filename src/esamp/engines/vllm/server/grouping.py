"""The header ``X-ESamp-Group``: requests of one sample each that explore together, as evaluation harnesses send them.

A harness that draws 16 samples with 16 requests can set a header for the whole run. Requests share a group if all of
these are equal: the header, the API key, the model, the prompt, the method and its options. The name that the engine
gets is a hash of the first four, so no request of another user can have it, whatever it says in its body.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers

from esamp.engines.vllm.params import RequestOptions
from esamp.errors import OptionError

HEADER = "x-esamp-group"
KEYS = ("authorization", "x-api-key")
"""Headers with a user's key."""
CONTENT = ("model", "prompt", "messages", "input", "system", "instructions", "tools")
"""Fields of a request's body that make up its prompt, for all kinds of requests."""
GROUP = "group"


def grouped(request: Mapping[str, Any], xargs: str, headers: Headers, prompts: int) -> dict[str, Any] | None:
    """The request with the group of its header among its parameters; None without the header.

    Args:
        request: the body of a request that explores.
        xargs: the field of the body with the parameters.
        headers: of the request.
        prompts: the number of prompts in the body.

    Raises:
        OptionError: the name is too short or given twice, or the request has several prompts.
    """
    name = headers.get(HEADER)
    if name is None:
        return None
    try:
        RequestOptions.parse({GROUP: name})
    except OptionError as error:
        raise OptionError(f"header X-ESamp-Group: {error}") from None
    given = request.get(xargs) or {}
    if GROUP in given:
        raise OptionError("the group is named twice: leave out 'group' in vllm_xargs, or the header X-ESamp-Group")
    if prompts > 1:
        raise OptionError(
            f"header X-ESamp-Group: the samples of one prompt form a group, and this request has {prompts} prompts: "
            "send each prompt in a request of its own"
        )
    return {**request, xargs: {**given, GROUP: _digest(name, request, headers)}}


def _digest(name: str, request: Mapping[str, Any], headers: Headers) -> str:
    """32 hexadecimal digits that nobody can guess who does not know the API key, or else the name."""
    identity = [name, [headers.get(key) for key in KEYS], [request.get(field) for field in CONTENT]]
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
