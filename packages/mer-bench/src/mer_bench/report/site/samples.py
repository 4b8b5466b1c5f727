"""The pages of samples and of subjects: maps, what is known of them, and what every run said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_bench.report.entries import slugs
from mer_bench.report.site.board import Board
from mer_bench.report.site.runs import answers_of
from mer_flow.pictures.web.pages import Pages
from mer_flow.pictures.web.sprites import Sprites, write_sprites
from mer_flow.pictures.web.store_page import facts_of, fallbacks_of
from mer_flow.samples import Sample
from mer_flow.store.reader import FlowStore


@dataclass(frozen=True)
class Gallery:
    """The samples that have pages.

    Attributes:
        samples: By id, in the order of the store.
        pages: Sample id to its page.
        subjects: Subject to its page.
        sprites: Their thumbnails.
        absent: How many tested samples the store does not hold.
    """

    samples: Mapping[str, Sample]
    pages: Mapping[str, str]
    subjects: Mapping[str, str]
    sprites: Sprites
    absent: int
    fallbacks: Mapping[str, Sequence[str]]


def build_gallery(pages: Pages, store: FlowStore, boards: Sequence[Board]) -> Gallery | None:
    """Draw the thumbnails of every tested sample of a store; None where it holds none of them."""
    tested = {sample for board in boards for entry in board.entries for sample in entry.answers}
    table = [sample for sample in store.table() if sample.sample_id in tested]
    if not table:
        return None
    ids = [sample.sample_id for sample in table]
    subjects = list(dict.fromkeys(sample.subject for sample in table))
    return Gallery(
        {sample.sample_id: sample for sample in table},
        dict(zip(ids, (f"samples/{slug}.html" for slug in slugs(ids)), strict=True)),
        dict(zip(subjects, (f"subjects/{slug}.html" for slug in slugs(subjects)), strict=True)),
        write_sprites(pages, store, ids),
        len(tested) - len(ids),
        fallbacks_of(store),
    )


def write_gallery(pages: Pages, gallery: Gallery, boards: Sequence[Board]) -> None:
    """Write the list of all samples, that of all subjects, and a page for each."""
    said = {sample: _said(sample, boards) for sample in gallery.samples}
    rates = {sample: _rate(answers) for sample, answers in said.items()}
    shared = {"gallery": gallery, "sprites": gallery.sprites, "rates": rates}
    ids = list(gallery.samples)
    for place, (sample_id, sample) in enumerate(gallery.samples.items()):
        pages.write(
            gallery.pages[sample_id],
            "sample.html",
            **shared,
            sample=sample,
            facts=facts_of(sample),
            said=said[sample_id],
            before=ids[place - 1] if place else None,
            after=ids[place + 1] if place + 1 < len(ids) else None,
        )
    of_subject: dict[str, list[str]] = {}
    for sample in gallery.samples.values():
        of_subject.setdefault(sample.subject, []).append(sample.sample_id)
    for subject, own in of_subject.items():
        pages.write(
            gallery.subjects[subject], "subject.html", **shared, subject=subject, own=own, said=said,
            runs=_runs_on(own, boards),
        )  # fmt: skip
    truths = {sample: _truth(answers) for sample, answers in said.items()}
    pages.write("samples.html", "samples.html", **shared, truths=truths, of_subject=of_subject)


def _said(sample: str, boards: Sequence[Board]) -> list[dict[str, Any]]:
    """Return what the runs of each leaderboard said of a sample."""
    found = []
    for board in boards:
        answers = answers_of(sample, board.entries)
        if answers:
            classes = board.entries[0].run.manifest.classes
            found.append({"board": board, "classes": classes, "answers": answers})
    return found


def _rate(said: Sequence[dict[str, Any]]) -> float | None:
    """Return the share of runs that have a sample right, seeds counted by their share."""
    rates = [answer.rate for group in said for _, answer in group["answers"]]
    return float(np.mean(rates)) if rates else None


def _truth(said: Sequence[dict[str, Any]]) -> str:
    """Return the class that a sample has, that of each scheme."""
    truths = [group["classes"][group["answers"][0][1].truth] for group in said]
    return ", ".join(dict.fromkeys(truths)) or "not tested"


def _runs_on(samples: Sequence[str], boards: Sequence[Board]) -> list[dict[str, Any]]:
    """Return how many of some samples each run has right."""
    found = []
    for board in boards:
        for entry in board.entries:
            rates = [entry.answers[sample].rate for sample in samples if sample in entry.answers]
            if rates and not entry.is_control:
                found.append(
                    {"entry": entry, "samples": len(rates), "right": sum(rates), "rate": np.mean(rates)}
                )
    return found
