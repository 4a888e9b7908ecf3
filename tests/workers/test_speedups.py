"""Each optimization that CONVSCOPE_SPEEDUPS names can be disabled, and changes results only by rounding."""

import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.settings import SPEEDUPS, Settings
from db.stores.images import ImageStore
from db.stores.results import ResultStore
from workers.attribution.gradients import logit_gradients
from workers.jobs.attack_context import AttackContext
from workers.jobs.context import JobContext
from workers.jobs.loaded_models import LoadedModels
from workers.models import speedups
from workers.models.speedups.pointwise import PointwiseLinear
from workers.models.speedups.runtime import SETTINGS
from workers.models.vision import VisionModel, load_model

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
# A command that restarts itself as all commands do, then prints a hash of logits and a setting of the restart.
COMMAND = """
import hashlib, os
from commands.stores import restart_for_torch
restart_for_torch()
import torch
torch.manual_seed(0)
torch.set_num_threads(1)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
    torch.nn.Flatten(), torch.nn.Linear(16 * 900, 10),
).eval()
with torch.inference_mode():
    logits = network(torch.rand(4, 3, 32, 32))
print(hashlib.sha256(logits.numpy().tobytes()).hexdigest(), os.environ.get("MALLOC_MMAP_THRESHOLD_"))
"""


def models(settings: Settings, *names: str) -> LoadedModels:
    return LoadedModels(dataclasses.replace(settings, speedups=frozenset(names)), CPU)


def loaded(kept: LoadedModels, name: str) -> VisionModel:
    model = load_model(name)
    return kept.get(name=name, source=name, digest=model.digest(model.weights_sha256()))


def test_the_setting_names_the_modules_there_are() -> None:
    (folder,) = speedups.__path__
    assert {path.stem for path in Path(folder).glob("*.py")} == {"__init__", *SPEEDUPS}


def test_with_and_without_pointwise_layers_logits_and_gradients_are_equal_up_to_rounding(
    settings: Settings,
) -> None:
    plain, quick = (loaded(models(settings, *names), "convnext-demo") for names in ((), ("pointwise",)))
    assert not any(isinstance(module, PointwiseLinear) for module in plain.modules())
    assert any(isinstance(module, PointwiseLinear) for module in quick.modules())
    pixels = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(quick(pixels), plain(pixels), rtol=1e-4, atol=1e-4)
    targets = torch.tensor([3, 500])
    expected, found = (logit_gradients(model, pixels, targets) for model in (plain, quick))
    assert (found - expected).norm() / expected.norm() < 1e-4


def test_with_and_without_folding_logits_are_equal_up_to_rounding(settings: Settings, ledger: Ledger) -> None:
    def bench(*names: str) -> AttackContext:
        kept = models(settings, *names)
        return AttackContext(
            JobContext(Atlas(settings), ImageStore(settings), ResultStore(settings), ledger, kept)
        )

    on, off = bench("folding"), bench()
    model = loaded(off.context.models, "efficientnet-lite0")
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert off.folded(model, pixels) is None
    quick = on.folded(model, pixels)
    assert quick is not None
    with torch.inference_mode():
        expected, found = model(pixels), quick(pixels)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc and its OpenMP"
)
def test_with_and_without_the_runtime_settings_logits_are_the_same_bits(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND)

    def said(value: str) -> list[str]:
        inherited = {name: text for name, text in os.environ.items() if name not in SETTINGS}
        done = subprocess.run(
            [sys.executable, str(script)],
            env=inherited | {"PYTHONPATH": str(ROOT), "CONVSCOPE_SPEEDUPS": value},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    on, off = said("all"), said("folding,pointwise")
    assert (on[1], off[1]) == (SETTINGS["MALLOC_MMAP_THRESHOLD_"], "None")
    assert on[0] == off[0]
