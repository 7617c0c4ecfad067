"""Exploratory Sampling inside ``model.generate(custom_generate=...)``: a thin layer over the package ``esamp``."""

from typing import Any

from esamp import explore
from esamp.methods import registry


def generate(
    model: Any,
    *args: Any,
    method: str = "esamp",
    samples_per_prompt: int | None = None,
    slots: int = 64,
    **kwargs: Any,
) -> Any:
    """``model.generate(*args, **kwargs)`` while a decoding method of ``esamp`` acts.

    Args:
        model: any decoder-only transformers model.
        *args: as of ``model.generate``.
        method: name of the decoding method; ``esamp methods`` lists them.
        samples_per_prompt: rows that form a group; by default neighbouring rows with the same prompt, as
            ``num_return_sequences`` lays them out.
        slots: most groups in one call.
        **kwargs: options of the method, such as ``beta`` or ``preset``; everything else goes to ``model.generate``.

    Raises:
        esamp.EsampError: an option does not exist or is out of range, or the model cannot be explored.
    """
    chosen = registry.get(method)
    options = chosen.options.parse({name: kwargs.pop(name) for name in chosen.options.model_fields if name in kwargs})
    with explore(model, options, method=method, samples_per_prompt=samples_per_prompt, slots=slots) as run:
        return run.generate(*args, **kwargs)
