"""`esamp.rl`: reinforcement learning whose rollouts explore, with TRL's GRPO trainer.

from esamp.rl import ExploringGRPOTrainer

trainer = ExploringGRPOTrainer(model, reward_funcs=reward, args=GRPOConfig(...), train_dataset=prompts)
trainer.train()

trainer    `ExploringGRPOTrainer`: TRL's trainer, with the ratio of policy and sampling distribution in its loss
rollouts   `Rollouts`: TRL's rollout function, on transformers or vLLM
ratio      the importance weights
weights    the trained weights into vLLM
countdown  plain against exploring rollouts on Countdown, as a command
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esamp.rl.rollouts import Rollouts
    from esamp.rl.trainer import ExploringGRPOTrainer

__all__ = ["ExploringGRPOTrainer", "Rollouts"]

_HOME = {"ExploringGRPOTrainer": "esamp.rl.trainer", "Rollouts": "esamp.rl.rollouts"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use.

    Raises:
        MissingDependencyError: TRL is not installed.
        UnsupportedError: this release of TRL is not supported.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'esamp.rl' has no attribute {name!r}")
    from esamp.rl.requirements import check_trl

    check_trl()
    return getattr(import_module(_HOME[name]), name)
