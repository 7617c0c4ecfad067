"""`push_weights`: the trained weights into an engine of vLLM."""

from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from esamp.errors import UnsupportedError

if TYPE_CHECKING:
    from esamp.engines.vllm.engine import VLLMEngine


def push_weights(model: PreTrainedModel, engine: "VLLMEngine") -> None:
    """Copy all weights of `model` into vLLM, and drop its cache of prefixes, which are those of the old weights.

    Raises:
        UnsupportedError: the engine runs in another process, where the tensors would have to be sent to.
    """
    if not engine.in_process:
        raise UnsupportedError(
            "the trained weights can be copied only into an engine of this process: VLLMEngine.load(in_process=True)"
        )
    named = [(name, parameter.detach()) for name, parameter in model.named_parameters()]
    engine.llm.collective_rpc("reload_weights", args=(iter(named),))  # vLLM's own, which repacks them where it must
    engine.llm.reset_prefix_cache()
