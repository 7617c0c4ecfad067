"""`ExploringGRPOTrainer`: TRL's GRPO trainer with exploring rollouts."""

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from typing_extensions import override

from esamp.errors import OptionError
from esamp.options import Options
from esamp.rl.ratio import importance_weights, ratio_metrics
from esamp.rl.requirements import check_arguments
from esamp.rl.rollouts import Rollouts

if TYPE_CHECKING:
    from esamp.engines.vllm.engine import VLLMEngine


class ExploringGRPOTrainer(GRPOTrainer):
    """``trl.GRPOTrainer`` whose samples are drawn with a decoding method, and whose loss knows their probabilities.

    The samples of a prompt form a group, which the method explores with. The policy that is trained is the plain model
    at the trainer's temperature; the tokens come from the steered distribution. The ratio of both enters the loss
    through per-token advantages, which TRL's loss accepts from subclasses (see `esamp.rl.ratio`):

        A[b, t] = A[b] * min(pi_old(y_t) / b(y_t), ratio_cap)

    pi_old is computed by the trainer's own forward pass, as TRL does for samples of vLLM, so that the ratio also
    corrects for differences of precision between generation and training.
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Any,
        args: GRPOConfig | None = None,
        *,
        method: str = "esamp",
        options: Options | None = None,
        ratio_cap: float = 3.0,
        engine: "VLLMEngine | None" = None,
        **kwargs: Any,
    ) -> None:
        """Set up the training.

        Args:
            model: as in TRL.
            reward_funcs: as in TRL.
            args: as in TRL; ``num_generations`` is the size of a group.
            method: name of a decoding method; "vanilla" is plain sampling.
            options: the method's options; None means its defaults.
            ratio_cap: largest importance weight of a token; ``math.inf`` truncates none.
            engine: an engine of vLLM that generates, see `Rollouts`; None generates with `model` itself.
            **kwargs: further arguments of ``GRPOTrainer``.

        Raises:
            OptionError: no groups (``num_generations`` below 2), no such method or option, a cap below 1.
            UnsupportedError: a setting of the trainer, or a model, that exploring rollouts do not support.
        """
        if "rollout_func" in kwargs or "environment_factory" in kwargs or kwargs.get("tools"):
            raise OptionError("leave rollout_func, environment_factory and tools out: the rollouts are of this class")
        if not ratio_cap >= 1:
            raise OptionError(f"ratio_cap = {ratio_cap}: give a number of at least 1")
        if args is not None:
            check_arguments(args)
        rollouts = Rollouts(method, options, engine)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)
            super().__init__(model, reward_funcs, args, rollout_func=rollouts, **kwargs)
        self.rollouts, self.ratio_cap = rollouts, ratio_cap
        check_arguments(self.args)
        rollouts.check(self.accelerator.unwrap_model(self.model), self.processing_class)

    @override
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch, with per-token advantages and with the log-probabilities of the policy at the rollout."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        sampled, mask = output["sampling_per_token_logps"], output["completion_mask"]
        policy = output.get("old_per_token_logps")
        if policy is None:
            policy = output["old_per_token_logps"] = self._policy_logps(output)
        weights = importance_weights(policy, sampled, mask, self.ratio_cap)
        output["advantages"] = output["advantages"].unsqueeze(1) * weights
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in ratio_metrics(policy, sampled, mask, self.ratio_cap).items():
            metrics[name].append(value)
        return output

    def _policy_logps(self, batch: dict[str, Any]) -> Tensor:
        """``log pi(y_t)`` `[B, T]` of the batch's tokens under the present weights, at the trainer's temperature."""
        completions = batch["completion_ids"]
        train = self.model.training
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            logps: Tensor = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([batch["prompt_ids"], completions], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                completions.size(1),
                self.args.per_device_train_batch_size if train else self.args.per_device_eval_batch_size,
            )[0]
        return logps
