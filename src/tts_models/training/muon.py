"""Muon for the matrices of a transformer, AdamW for everything else, in one optimizer."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


@torch.no_grad()
def orthogonalize(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Approximately the nearest (semi-)orthogonal matrix, by a quintic Newton-Schulz iteration in the input's dtype.

    The coefficients are those of Jordan et al. (2024): fastest growth of small singular values, which end between
    about 0.7 and 1.2.
    """
    transposed = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if transposed else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if transposed else x


class MuonAdamW(torch.optim.Optimizer):
    r"""
    Momentum orthogonalised by Newton-Schulz (Muon) for hidden matrices; AdamW for embeddings, heads, norms and biases.

    `torch.optim.Muon` iterates in bfloat16 and takes no convolutions; on a CPU without bfloat16 arithmetic that costs
    more than the training step itself.

    Args:
        model (`nn.Module`): Its trainable parameters are optimized. Weights of linear layers and dense convolutions,
            flattened to matrices, go to Muon, but for embeddings and `lm_head`.
        learning_rate (`float`): Of Muon: the spectral norm of one update.
        adam_learning_rate (`float`): Of AdamW.
        weight_decay (`float`): Decoupled, for the Muon matrices.
        momentum (`float`): Of Muon, Nesterov's.
        betas (`tuple[float, float]`): Of AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float = 0.02,
        adam_learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
    ):
        embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        matrices, others = [], []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                # A depthwise convolution is a filter per channel, not a map between channels.
                hidden = parameter.ndim >= 2 and parameter.shape[1] > 1 and id(parameter) not in embeddings
                (matrices if hidden and "lm_head" not in name else others).append(parameter)
        groups = [
            {"params": matrices, "lr": learning_rate, "muon": True, "weight_decay": weight_decay},
            {"params": others, "lr": adam_learning_rate, "muon": False, "weight_decay": 0.0},
        ]
        defaults = {"lr": learning_rate, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            self._muon_step(parameters, group) if group["muon"] else self._adam_step(parameters, group)
        return loss

    def _muon_step(self, parameters: Iterable[nn.Parameter], group: dict) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            update = orthogonalize(parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1))
            rows, columns = update.shape
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.view_as(parameter), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _adam_step(self, parameters: Iterable[nn.Parameter], group: dict) -> None:
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["step"] += 1
            state["mean"].lerp_(parameter.grad, 1 - beta1)
            state["square"].lerp_(parameter.grad.square(), 1 - beta2)
            mean = state["mean"] / (1 - beta1 ** state["step"])
            square = state["square"] / (1 - beta2 ** state["step"])
            parameter.addcdiv_(mean, square.sqrt().add_(1e-8), value=-group["lr"])
