"""The models that a worker keeps loaded, so that the next map of a model starts immediately."""

from collections import OrderedDict

import torch

from db.settings import Settings
from workers.models.networks import WrongWeights
from workers.models.speedups.pointwise import optimize_for_inference
from workers.models.vision import VisionModel, load_model
from workers.queue.events import log


class LoadedModels:
    """An LRU cache of at most `settings.loaded_models` models on one device."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self.device = device
        self.speedups = settings.speedups
        self._settings = settings
        self._kept: OrderedDict[tuple[str, str], VisionModel] = OrderedDict()

    def get(self, *, name: str, source: str, digest: str) -> VisionModel:
        """The model of that specification, with the weights, preprocessing and classes that `digest` identifies.

        Raises:
            ModelError: it cannot be loaded, or has changed.
        """
        key = (source, digest)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        while len(self._kept) >= self._settings.loaded_models:
            _, dropped = self._kept.popitem(last=False)
            log("model.dropped", model=dropped.name)
        model = load_model(
            source,
            name=name,
            hub_timeout=self._settings.hub_timeout,
            models_folder=self._settings.home / "models",
            device=self.device,
        )
        found = model.digest(model.weights_sha256())
        if found != digest:
            raise WrongWeights(
                f"{name} ({source}) has other weights, preprocessing or classes than when the job was "
                "submitted: index it again, or submit the job again"
            )
        if "pointwise" in self.speedups:
            optimize_for_inference(model.network)
        self._kept[key] = model
        log("model.loaded", model=name, source=source, device=self.device)
        return model
