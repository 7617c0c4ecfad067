"""The transformers engine: `HFEngine` for requests, `explore` around one's own generate call.

Requests
    engine           `HFEngine`: batches of requests, waves of samples
    batched_request  `BatchedRequest`: a request whose samples are rows of a batch
    following        `Step`: the tokens of each decode step, for callers who follow samples while they are drawn
    arguments        a request's sampler settings as arguments of ``model.generate``
    beam_search      the decoding loop of methods that keep hypotheses
    score            likelihoods of given samples
    loading          models and tokenizers onto a device

Exploring
    explore          the context manager `explore`
    run              `Run`: the user's side of a block, and the listener of the model's hooks
    exploration      `HFExploration`: prefill, decode step, sample, finish
    generate_call    the driver of ``run.generate(...)``
    observed/        the driver of plain ``model.generate(...)`` calls
    groups           `PromptGroups`: groups by prompt, and their slots
    prompt_batch     `PromptBatch`: which rows have the same prompt
    hooks            `ModelHooks`: PyTorch hooks on layers and LM head
    head             `HFHead`, and `probe`, which measures a model

Both
    generate         one ``model.generate`` call with callbacks
    plain_call       the same where no method acts on decode steps
    processors       logits processors
    stopping         stopping criteria
    traces           `Trace`: measurements of every token
"""

from esamp.engines.hf.engine import HFEngine
from esamp.engines.hf.explore import InactiveMethodWarning, explore
from esamp.engines.hf.observed.calls import GroupingWarning
from esamp.engines.hf.observed.endings import EndingsWarning
from esamp.engines.hf.run import Run
from esamp.engines.hf.traces import Trace

__all__ = [
    "EndingsWarning",
    "GroupingWarning",
    "HFEngine",
    "InactiveMethodWarning",
    "Run",
    "Trace",
    "explore",
]
