"""The action memory: predicts which tokens a group takes in similar states, to steer away from them."""

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.explorer.bank import PackedBank
from esamp.explorer.config import ESampConfig
from esamp.explorer.distiller import Past, Prediction, TrainingBatch
from esamp.explorer.record import StepRecord
from esamp.explorer.rls import RecursiveLeastSquares


class ActionMemory:
    """Least squares from final hidden states to the directions of the tokens taken there, with a bank of its own.

    The direction of a token z is ``w_z - sum_v p_v w_v``, w_v being the rows of the LM head and p the reference
    distribution. The gain is in nats: it is divided by the mean of ||w_v - mean w||^2.
    """

    def __init__(
        self,
        config: ESampConfig,
        final_size: int,
        slots: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        head_scale: float,
    ) -> None:
        """Allocate `slots` slots for final hidden states of size d; `head_scale` is the mean of ||w_v - mean w||^2."""
        self.gain = config.gain / head_scale
        self.regression = RecursiveLeastSquares(
            final_size,
            final_size,
            features=config.features,
            ridge=config.action_ridge,
            forgetting=config.forgetting_factor,
            gate=False,
            dtype=dtype,
            device=device,
            seed=config.seed + 1,
        )
        template = self.regression.template()
        self._learned = tuple(template)
        self.bank = PackedBank(template, {}, slots)
        self._zero = torch.zeros((), dtype=self.regression.exact, device=device)

    def predict(self, layout: RowLayout, final: Tensor, past: Past) -> Prediction:
        """Predicted action `[G, C, d]` of the group in each of the states `final` `[R, d]`."""
        state = self.bank.read(layout, *self.regression.predicts_from)
        return self.regression.predict(state, layout.arrange(final), past)

    def learn(self, record: StepRecord, action: Tensor, rows: Tensor, due: Tensor) -> None:
        """Learn the directions `action` `[G, C, d]` taken in `rows` `[G, C]`, in the groups `due` `[G]` bool."""
        prediction = record.predictions.memory
        if prediction is None:
            return
        missed = torch.where(rows.unsqueeze(-1), action - prediction.value, self._zero)
        batch = TrainingBatch(prediction, action, missed, rows, due)  # without a centre, it reads no target
        for piece in self.bank.pieces(record.layout, *self._learned, write=True):
            self.regression.learn(piece.state, batch.of(piece))
