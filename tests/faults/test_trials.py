"""The harness itself: its parts try everything between them, and too little is a failure."""

from __future__ import annotations

from itertools import chain

import pytest
from tests.faults import trials
from tests.faults.trials import Trials

Told = list[tuple[str, object]]


def made(told: Told, share: float = 0.5, part: int | None = None) -> Trials:
    return Trials(lambda name, value: told.append((name, value)), "x killed", 2, 8, share, part)


def test_parts_try_different_things_and_all_of_them_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SOAK_SECONDS", 900.0)
    monkeypatch.setattr(trials, "PARTS", range(4))
    tried = [list(made([], part=part).among(range(8))) for part in range(4)]
    assert sorted(chain(*tried)) == list(range(8)) and all(len(one) == 2 for one in tried)


@pytest.mark.parametrize(("seconds", "reached"), [(900.0, False), (899.0, True)])
def test_a_count_below_the_promise_fails_unless_the_time_was_set_lower(
    seconds: float, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "SOAK_SECONDS", seconds)
    told: Told = []
    one = made(told, share=0.0)
    tried = len(list(one.among(range(100))))
    assert tried == 0
    if reached:
        one.end(tried, {})
    else:
        with pytest.raises(AssertionError, match="0 of 8 trials"):
            one.end(tried, {})
    ((name, value),) = told
    assert name == trials.TOLD and value["promised"] == 8  # type: ignore[index]


def test_what_went_wrong_fails_however_much_was_tried() -> None:
    with pytest.raises(AssertionError, match="an orphan"):
        made([]).end(100, {}, ["an orphan"])
