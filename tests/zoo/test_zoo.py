"""The quick part of `make zoo`, and a check that it would detect a fault."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch
from examine import Finding, examine
from instances import QUICK, instances
from sweep import ROOT, entries_of, entry_of, table

from workers.layers.taps import find_taps

_QUICK = {one.name: one for one in instances() if one.quick}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Use one thread: with many tiny operators, threads would spend their time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def _found(name: str) -> Finding:
    one = _QUICK[name]
    return examine(one.name, one.build, one.size)


def test_the_quick_part_names_instances_of_the_sweep() -> None:
    assert _QUICK.keys() == QUICK


@pytest.mark.filterwarnings("ignore")  # libraries warn while they build
@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_network_of_each_kind_has_no_fault(name: str) -> None:
    found = _found(name)
    assert found.skipped is None
    assert found.faults == []
    assert name in table({name: entry_of(found)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm crossvit_9_240", "acts on one token"),
        ("timm mixer_s32_224", "they have no spatial position"),
        ("transformers mobilevitv2", "rows and columns do not correspond to those of the image"),
        ("transformers perceiver", "does not depend on the pixels"),
        ("transformers swin", "windows"),
    ],
)
def test_outputs_that_are_not_maps_are_left_out_with_their_reason(name: str, reason: str) -> None:
    reasons = {entry.reason for entry in _found(name).left_out}
    assert any(reason in given for given in reasons), reasons


@pytest.mark.filterwarnings("ignore")
def test_the_sweep_sees_places_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hiera's tokens read row by row, as if they had not been reordered."""
    one = _QUICK["transformers hiera"]
    honest = _found(one.name)
    monkeypatch.setattr(
        "examine.find_taps", lambda model: tuple(replace(tap, order=None) for tap in find_taps(model))
    )
    wrong = examine(one.name, one.build, one.size)
    assert honest.moved == honest.examined
    assert wrong.moved < wrong.examined


@pytest.mark.filterwarnings("ignore")
def test_more_prefix_tokens_than_any_network_had_are_still_no_patches() -> None:
    one = _QUICK["timm vit_tiny_patch16_224 with 20 registers"]
    assert _found(one.name).taps == 9


def test_a_sweep_that_resumes_keeps_what_the_page_has() -> None:
    page = (ROOT / "docs/zoo.md").read_text()
    assert table(entries_of(page)) == page
    fewer = entries_of(page)
    del fewer["timm resnet18"]
    assert "- timm resnet18: the sweep was stopped before it" in table(fewer)
    assert "timm resnet18" not in entries_of(table(fewer))
