"""A home with four generated images, a ledger, and a job runner in this process."""

import threading
from typing import Any

import torch
from synthetic_atlas import import_pictures, painted_pictures

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.ledger.jobs import NewJob
from db.settings import Settings
from db.stores.images import ImageStore
from db.stores.results import ResultStore
from workers.jobs.attack import AttackJobs
from workers.jobs.attack_context import AttackContext
from workers.jobs.context import JobContext
from workers.jobs.followups import AblationJobs, ComparisonJobs, TransferJobs
from workers.jobs.loaded_models import LoadedModels
from workers.jobs.saliency import FaithfulnessJobs, SaliencyJobs
from workers.queue.runner import Runner
from workers.requests.attacks import attack_job
from workers.requests.models import ModelRef
from workers.requests.saliency import saliency_job
from workers.requests.submit import JobSubmitter


class Lab:
    """Everything except the broker and the worker processes."""

    def __init__(self, settings: Settings, reference: ModelRef) -> None:
        self.settings = settings
        self.reference = reference
        import_pictures(settings, painted_pictures(4), image_set="painted")
        self.ledger = Ledger(settings)
        self.ledger.migrate()
        self.submitter = JobSubmitter(settings, self.ledger)
        self.results = ResultStore(settings)
        self.models = LoadedModels(settings, torch.device("cpu"))
        self.context = JobContext(
            Atlas(settings), ImageStore(settings), self.results, self.ledger, self.models
        )
        self.attacks = AttackContext(self.context)
        self.runner = Runner(
            settings,
            self.ledger,
            {
                "saliency": SaliencyJobs(self.context),
                "faithfulness": FaithfulnessJobs(self.context),
                "attack": AttackJobs(self.attacks),
                "comparison": ComparisonJobs(self.attacks),
                "transfer": TransferJobs(self.attacks),
                "ablation": AblationJobs(self.attacks),
            },
            worker="w",
            queues=("interactive", "batch"),
            stopping=threading.Event(),
        )

    def do(self, new: NewJob) -> int:
        """Submit a request and run its job."""
        job = self.submitter.submit(new).job
        self.runner.run(job)
        return job

    def run(self, **changes: Any) -> int:
        """Submit and run a saliency job."""
        options: dict[str, Any] = {
            "models": [self.reference],
            "image_set": "painted",
            "image_ids": [0, 1],
            "method": "smoothgrad",
            "parameters": {"samples": 4},
        }
        return self.do(saliency_job(self.context.atlas, **(options | changes)))

    def attack(self, **changes: Any) -> int:
        """Submit and run an attack job."""
        options: dict[str, Any] = {
            "models": [self.reference],
            "image_set": "painted",
            "image_ids": [0, 1],
            "parameters": {"cap": 0.05, "step": 0.002},
        }
        return self.do(attack_job(self.context.atlas, **(options | changes)))
