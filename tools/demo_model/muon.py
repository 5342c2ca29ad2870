"""Muon: momentum whose matrix updates are made orthogonal. In float32 and batched by shape, which on
a CPU is many times faster than torch.optim.Muon's bfloat16. The workers share the matrices out among
them. A convolution's kernel is the matrix of its output channels by all the rest."""

from __future__ import annotations

import torch

from run_state import Team

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalise(updates: torch.Tensor) -> torch.Tensor:
    """updates: [n, rows, columns]. Newton-Schulz steps towards the nearest semi-orthogonal matrices."""
    tall = updates.shape[1] > updates.shape[2]
    x = updates.transpose(1, 2) if tall else updates
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """The step's size is scaled to that of AdamW (0.2 root mean square), so the same rates fit."""

    def __init__(self, parameters, team: Team, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self._team = team

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                rows = parameter.shape[0]
                by_shape.setdefault((rows, parameter.numel() // rows), []).append(parameter)
            updates = [self._updates(shape, parameters, group["momentum"]) for shape, parameters in by_shape.items()]
            flat = torch.cat([update.flatten() for update in updates])
            self._team.sum(flat)
            for (shape, parameters), update in zip(by_shape.items(), flat.split([u.numel() for u in updates])):
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, values in zip(parameters, update.view(len(parameters), -1)):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(values.view(parameter.shape), alpha=rate)

    def _updates(self, shape: tuple[int, int], parameters: list[torch.nn.Parameter], momentum: float) -> torch.Tensor:
        """[n, rows, columns]: this worker's share of the matrices, zero for the others'."""
        result = torch.zeros(len(parameters), *shape)
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - momentum)
            directions.append(torch.lerp(parameter.grad, state["momentum"], momentum).reshape(shape))
        mine = slice(self._team.rank, None, self._team.size)
        if directions[mine]:
            result[mine] = orthogonalise(torch.stack(directions[mine]))
        return result
