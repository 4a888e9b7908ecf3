"""PGD: several steps along the signs of the gradient, each projected back into the epsilon box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workers.attacks.attack import Attack
from workers.requests.epsilons import GRID_PARAMETERS
from workers.requests.parameters import MAX_NUMBER, Parameter

if TYPE_CHECKING:
    from workers.attacks.steps import Perturb


def _perturb(parameters: Mapping[str, Any]) -> "Perturb":
    from workers.attacks.pgd import Pgd

    return Pgd(parameters["steps"], parameters["step_size"], parameters["seed"])


ATTACK = Attack(
    "pgd",
    "PGD",
    "Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018",
    (
        *GRID_PARAMETERS,
        Parameter("steps", 10, "Number of steps; each costs one backward pass.", 1, 1000),
        Parameter(
            "step_size",
            0.25,
            "Step size relative to epsilon; 2.5 / steps is usual.",
            0.001,
            2.0,
        ),
        Parameter("seed", 0, "Seed of the random start within epsilon.", 0, MAX_NUMBER),
    ),
    seeded=True,
    perturb=_perturb,
)
