"""A wrong name on the command line: the error names the nearest match and valid names, before torch is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.settings import read_settings

# Runs each command in one process and reports what it printed and whether it loaded torch.
PROGRAM = """
import contextlib, io, json, sys
from convscope import main
told = []
for words in json.loads(sys.argv[1]):
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.suppress(SystemExit):
        main(words.split(" "))
    told.append([printed.getvalue(), "torch" in sys.modules])
print(json.dumps(told))
"""
SET = "there is no image set 'paintd'; did you mean 'painted'? image sets are painted"
METHODS = "method: expected one of smoothgrad, gradient, "
CASES = {
    "index --model convnext-demo --images paintd": SET,
    "index --model convnext-dmo --images painted": "got 'convnext-dmo'; did you mean 'convnext-demo'?",
    "index --model convnext-demo --images painted --name a/b": "name: expected up to 100 letters, digits",
    "index --model convnext-demo --name synthetic --images painted --layers stage1.block1.dwconvn": (
        "layers of synthetic such as "
    ),
    "saliency --model convnext-demo --images paintd --ids 0": SET,
    "saliency --model convnext-demo --images painted --ids 60": "ids: painted has images 0 to 3, not 60",
    "saliency --model convnext-demo --images painted --ids 0 --method smoothgrd": (
        "got 'smoothgrd'; did you mean 'smoothgrad'?"
    ),
    "saliency --model convnext-demo --images painted --ids 0 --method zebra": METHODS,
    "saliency --model convnext-demo --images painted --ids 0 --set sampels=3": (
        "smoothgrad has no parameter 'sampels': it has samples, noise_level, seed, variant, agreement, colours, dtype; "
        "did you mean 'samples'?"
    ),
    "saliency --model convnext-demo --images painted --ids 0 --set variant=squred": "did you mean 'squared'?",
    "saliency --model convnext-demo --images painted --ids 0 --target predicton": "did you mean 'prediction'?",
    "saliency --model synthetic --model convnext-dmo --images painted --ids 0": "did you mean 'convnext-demo'?",
    "attack --model convnext-demo --images paintd --ids 0": SET,
    "attack --model convnext-demo --images paintd": SET,
    "attack --model convnext-demo --images painted --method fgms": (
        "method: expected one of fgsm, pgd, got 'fgms'; did you mean 'fgsm'?"
    ),
    "attack --model convnext-demo --images painted --set stepsize=3 --method pgd": "did you mean 'step_size'?",
    "models doctor convnext-demo --images paintd": SET,
    "models doctor convnext-dmo --images painted": "did you mean 'convnext-demo'?",
    "models show convnext-dmo": "did you mean 'convnext-demo'?",
    "images remove paintd --yes": SET,
    "images rename paintd other": SET,
    "images describe paintd text": SET,
    "images show paintd 0": SET.partition(" image sets")[0],
    "jobs list --state donne": "got 'donne'; did you mean 'done'?",
    "worker --queues interactiv": "got 'interactiv'; did you mean 'interactive'?",
    "sql --tables actvations": "did you mean 'activations'?",
    "sql FROM\nactvations": "did you mean 'activations'?",
    "imges list": "Did you mean 'images'?",
    "index --modle x": "--model",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bool]]:
    home: Path = tmp_path_factory.mktemp("names") / "home"
    settings = read_settings({"CONVSCOPE_HOME": str(home)})
    import_pictures(settings, painted_pictures(4), image_set="painted")
    add_run(settings, image_set="painted")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(list(CASES))],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "CONVSCOPE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(CASES, map(tuple, json.loads(done.stdout)), strict=True))


@pytest.mark.parametrize("words", CASES)
def test_a_wrong_name_is_reported_before_torch_is_loaded(
    words: str, told: dict[str, tuple[str, bool]]
) -> None:
    said, loaded = told[words]
    assert CASES[words] in said
    assert not loaded
