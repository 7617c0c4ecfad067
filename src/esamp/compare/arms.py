"""Arms of plain sampling and ESamp, and decoding the same prompts with an arm."""

from collections.abc import Sequence

from esamp.engines.base import Completion, Engine, Progress, completions
from esamp.explorer.config import ESampConfig
from esamp.methods.vanilla import VanillaOptions
from esamp.runs.decode import decode
from esamp.runs.prompts import Prompt
from esamp.sampling import Sampling
from esamp.study.arm import Arm


def vanilla_arm(label: str, sampling: Sampling | None = None) -> Arm:
    """Plain sampling with these settings of the sampler; by default at temperature 1 without filters."""
    return Arm(label, "vanilla", VanillaOptions(), sampling or Sampling())


def esamp_arm(label: str, options: ESampConfig | None = None, *, temperature: float = 1.0) -> Arm:
    """ESamp with these options; by default its defaults."""
    return Arm(label, "esamp", options or ESampConfig(), Sampling(temperature=temperature))


def decode_prompts(
    engine: Engine,
    arm: Arm,
    prompts: Sequence[Prompt],
    *,
    n: int,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> tuple[Completion, ...]:
    """Decode all prompts with one arm.

    Args:
        engine: runs the requests.
        arm: the method, its options and the settings of the sampler.
        prompts: with distinct ids. The seed of a repeated prompt is raised by its number of earlier repeats.
        n: samples of each prompt.
        seed: seed of the run.
        max_tokens: longest sample; by default that of the arm's sampler.
        progress: called with the samples finished and the tokens generated.

    Returns:
        One completion per prompt, in the order of the prompts.

    Raises:
        RequestError: a request failed; the others are not finished.
        InactiveMethodError: the method should have acted on a prompt and did not.
    """
    sampling = arm.sampling if max_tokens is None else arm.sampling.replace(max_tokens=max_tokens)
    arm = Arm(arm.label, arm.method, arm.options, sampling)
    requests = [arm.request(prompt.id, prompt.content, n, seed + prompt.repeat) for prompt in prompts]
    found = {
        completion.request.id: completion for completion in completions(decode(engine, requests, progress=progress))
    }
    return tuple(found[request.id] for request in requests)
