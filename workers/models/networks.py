"""The result that every model source returns, and the ways in which loading can fail."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from workers.models.preprocessing import Preprocessing
from workers.models.vocabularies import Vocabulary


class ModelError(Exception):
    """A model cannot be loaded; the message is one sentence for the user who named it."""


class UnknownModel(ModelError, ValueError):
    """The specification names no model that any source knows."""


class ModelUnavailable(ModelError):
    """The model exists, but its weights are neither installed nor downloadable."""


class WrongWeights(ModelError):
    """The weights do not belong to the architecture, or are not an image classifier's."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its weights, and everything that the configuration of its weights specifies.

    Attributes:
        network: takes normalized N,3,H,W; returns logits, or an object with `logits`.
        source: specification that loads this network again.
        preprocessing_note: one sentence if the preprocessing is assumed or approximate; None if it is the
            weights' own.
        preprocessing_source, vocabulary_source: where they were read, or whose they are assumed to be.
        notes: sentences about choices that the loader made for the user.
        variant: anything else that the numbers depend on and that neither weights nor preprocessing show.
        reverse_channels: the weights expect B, G, R.
    """

    network: nn.Module
    source: str
    architecture: str
    preprocessing: Preprocessing
    vocabulary: Vocabulary
    preprocessing_note: str | None = None
    reverse_channels: bool = False
    preprocessing_source: str = ""
    vocabulary_source: str = ""
    notes: tuple[str, ...] = ()
    variant: str = ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def check_problem(problem: object, folder: Path) -> None:
    """Reject heads whose outputs are not the logits of mutually exclusive classes.

    Raises:
        WrongWeights: `problem`, a configuration's `problem_type`, is one of the rejected values.
    """
    kinds = {
        "multi_label_classification": "a multi-label classifier, with a sigmoid per logit",
        "regression": "a regression model, whose outputs are not classes",
    }
    if isinstance(problem, str) and problem in kinds:
        raise WrongWeights(
            f"expected a classifier with one class per image in {folder}, got {kinds[problem]} "
            f"(problem_type {problem!r} in config.json)"
        )
