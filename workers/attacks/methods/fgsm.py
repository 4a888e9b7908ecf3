"""FGSM: one step along the signs of the gradient."""

from workers.attacks.attack import Attack
from workers.requests.epsilons import GRID_PARAMETERS

ATTACK = Attack(
    "fgsm",
    "FGSM",
    "Goodfellow et al., Explaining and harnessing adversarial examples, ICLR 2015",
    GRID_PARAMETERS,
    perturb=None,
)
