"""The training state between two epochs: create, save, load, and start the next stage."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from precompute.demo.data import Bytes, Images
from precompute.demo.network import new_network, student_features, to_pixels
from precompute.demo.recipe import TEACHER_FEATURES, Recipe
from precompute.demo.teacher import Answers


@dataclass
class Run:
    """The training state between two epochs.

    Attributes:
        begun: number of log lines that belong to earlier stages.
        average: the network with the running average of the weights.
        projection: linear map from the network's features to the teacher's.
        optimizers: Muon for the matrices, AdamW for the rest.
        log: one line per epoch.
    """

    recipe: Recipe
    begun: int
    network: nn.Module
    average: nn.Module
    projection: nn.Linear
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    log: list[dict[str, float]]

    @classmethod
    def new(cls, recipe: Recipe) -> "Run":
        """A run before its first epoch."""
        network, average = new_network(recipe.seed), new_network(recipe.seed)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        projection = nn.Linear(network.config.hidden_sizes[-1], TEACHER_FEATURES)
        weights = dict(network.named_parameters())
        matrices = [name for name in weights if ".pwconv" in name and weights[name].ndim == 2]
        shrinking = [name for name in weights if weights[name].ndim > 1 and name not in matrices]
        free = [weight for weight in weights.values() if weight.ndim <= 1]
        muon = torch.optim.Muon(
            [weights[name] for name in matrices], lr=recipe.matrix_peak, weight_decay=recipe.weight_decay
        )
        adam = torch.optim.AdamW(
            [
                {"params": [weights[name] for name in shrinking], "weight_decay": recipe.weight_decay},
                {"params": [*free, *projection.parameters()], "weight_decay": 0.0},
            ],
            lr=recipe.other_peak,
            fused=True,
        )
        return cls(recipe, 0, network, average.requires_grad_(False), projection, (muon, adam), [])

    @classmethod
    def following(
        cls, run: "Run", recipe: Recipe, images: Images, answers: Answers, classifier: nn.Linear
    ) -> "Run":
        """The next stage, before its first epoch.

        Its network has the averaged weights of `run`, rounded as in `export`. Its classifier is the teacher's
        composed with the projection, as one matrix (Chen et al. 2022, "Knowledge distillation with the reused
        teacher classifier"), so it predicts all classes from the start without labels.
        """
        following = cls.new(recipe)
        following.begun, following.log = len(run.log), run.log
        weights = {name: weight.half().float() for name, weight in run.average.state_dict().items()}
        following.network.load_state_dict(weights)
        some = slice(None, None, max(1, len(images) // 16_000))
        fit_projection(following, images.pixels[some], answers.features[some])
        merged = {
            "weight": classifier.weight @ following.projection.weight,
            "bias": classifier(following.projection.bias),
        }
        following.network.get_submodule("classifier").load_state_dict(merged)
        following.average.load_state_dict(following.network.state_dict())
        return following

    def save(self, path: Path) -> None:
        """Write the whole state; an interruption leaves the previous file intact."""
        part = path.with_suffix(".part")
        state = {
            "recipe": asdict(self.recipe),
            "begun": self.begun,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "projection": self.projection.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "log": self.log,
        }
        torch.save(state, part)
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Run":
        """Load the run written by `save`."""
        state = torch.load(path, weights_only=True)
        run = cls.new(Recipe(**state["recipe"]))
        run.begun, run.log = state["begun"], state["log"]
        for name in ("network", "average", "projection"):
            getattr(run, name).load_state_dict(state[name])
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return run


def fit_projection(run: Run, pixels: Bytes, features: npt.NDArray[np.float16]) -> None:
    """Fit the projection by ridge regression from the network's features to the teacher's."""
    run.network.eval()
    read = []
    with torch.inference_mode():
        for start in range(0, len(pixels), 128):
            views = F.interpolate(
                to_pixels(pixels[start : start + 128]),
                (run.recipe.large_side,) * 2,
                mode="bilinear",
                antialias=True,
            )
            read.append(student_features(run.network, views).double())
    ours = F.pad(torch.cat(read), (0, 1), value=1.0)
    theirs = torch.from_numpy(features).double()
    normal = ours.T @ ours + 30 * torch.eye(ours.shape[1], dtype=torch.double)
    solved = torch.linalg.solve(normal, ours.T @ theirs).float()
    run.projection.load_state_dict({"weight": solved[:-1].T, "bias": solved[-1]})
