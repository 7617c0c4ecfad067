"""Checks before anything is trained: the release of TRL, and the settings of its trainer."""

from typing import Any

from packaging.version import Version

from esamp.errors import MissingDependencyError, OptionError, UnsupportedError
from esamp.extras import install_command, installed_version

OLDEST, NEXT = "1.16", "2"
"""The oldest supported release of TRL, and the first one that is not."""


def check_trl() -> None:
    """Check the installed release of TRL, without importing it.

    Raises:
        MissingDependencyError: TRL is not installed.
        UnsupportedError: the release is too old or too new.
    """
    installed = installed_version("trl")
    if installed is None:
        raise MissingDependencyError(f"esamp.rl needs TRL: {install_command('rl')}")
    if not Version(OLDEST) <= Version(installed) < Version(NEXT):
        raise UnsupportedError(
            f"esamp.rl works with TRL from {OLDEST} up to, not including, {NEXT}; this is {installed}: "
            f"{install_command('rl')}"
        )


def check_arguments(args: Any) -> None:
    """Check the settings of a trainer.

    Args:
        args: a ``trl.GRPOConfig``.

    Raises:
        OptionError: the prompts have no groups of samples.
        UnsupportedError: a setting for which the ratio would be wrong, or that would have no effect.
    """
    if min(args.num_generations, args.num_generations_eval or args.num_generations) < 2:
        raise OptionError(
            "exploring needs groups: set num_generations (and num_generations_eval) of GRPOConfig to at least 2, "
            "better 8 or more"
        )
    for used, feature in (
        (args.use_vllm, "use_vllm = True (pass engine=VLLMEngine.load(...) to the trainer instead)"),
        (args.use_liger_kernel, "use_liger_kernel, whose loss takes one advantage for a whole sample"),
        (args.use_transformers_continuous_batching, "use_transformers_continuous_batching"),
        (args.loss_type == "vespo", "loss_type = 'vespo', which has another formula for the ratio"),
        (bool(args.generation_kwargs), "generation_kwargs: the sampler's settings are those of GRPOConfig"),
        (bool(args.chat_template_kwargs), "chat_template_kwargs"),
        (args.distributed_state.distributed_type in ("FSDP", "DEEPSPEED"), "FSDP and DeepSpeed, which split the model"),
    ):
        if used:
            raise UnsupportedError(f"ExploringGRPOTrainer does not work with {feature}")
