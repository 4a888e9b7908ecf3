"""The definition of an attack: a description, and how it perturbs an image within epsilon.

An attack is one module in `workers.attacks.methods` that defines `ATTACK`, and one line in
`workers.attacks.registry`. The web process reads the descriptions, so a module imports torch and everything
that needs torch inside its function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.requests.parameters import MethodDescription

if TYPE_CHECKING:
    from workers.attacks.steps import Perturb


@dataclass(frozen=True, kw_only=True)
class Attack(MethodDescription):
    """One attack.

    Attributes:
        perturb: given the parameters, returns what perturbs images within an epsilon. None: images are
            perturbed along the signs of the gradient, which is computed once for all epsilons.
    """

    perturb: "Callable[[Mapping[str, Any]], Perturb] | None"

    def perturbation(self, parameters: Mapping[str, Any]) -> "Perturb | None":
        """The perturbation for these parameters; see `perturb`."""
        return None if self.perturb is None else self.perturb(parameters)
