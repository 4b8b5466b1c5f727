"""What the pages of a site say, against the figures that the tables have."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from tests.mer_bench.report.site.conftest import HOSTILE, Written

from mer_bench.errors import UsageError
from mer_bench.report.entries import read_entries
from mer_bench.report.pairs import Pair, paired
from mer_bench.report.site.write import write_site
from mer_bench.runs.directory import runs_below
from mer_bench.scores.compare import compare_runs
from mer_bench.scores.metrics import FULL
from mer_bench.scores.selection import select
from mer_bench.scores.summary import complete_records, summarise


def rows_of(page: str) -> list[dict[str, str]]:
    """The data attributes of a leaderboard's rows."""
    return [
        dict(re.findall(r'data-(\w+)="([^"]*)"', row))
        for row in re.findall(r"<tr role=\"row\" class.*?>", page)
    ]


def test_the_board_has_the_scores_of_the_tables(small: Written) -> None:
    rows = {row["name"]: row for row in rows_of(small.text())}
    assert small.site.runs == len(rows) == 4
    for name in ("majority", "network", "hostile", "control"):
        summary = summarise(small.runs[name])
        row = rows[summary.title.replace("<", "&lt;").replace(">", "&gt;")]
        figure = summary.selections[summary.headline][FULL].figures["uf1"]
        assert float(row["uf1"]) == pytest.approx(figure.mean)
        if name != "majority":
            picked = summary.selections["oracle"][FULL].figures["uf1"].mean
            assert float(row["picked"]) == pytest.approx(picked)
            assert float(row["gap"]) == pytest.approx(picked - figure.mean)
    kinds = [row["kind"] for row in rows_of(small.text())]
    assert kinds == ["run", "run", "run", "control"]


def test_the_control_is_a_line_through_the_plot(small: Written) -> None:
    control = summarise(small.runs["control"]).selections
    honest, picked = (control[name][FULL].figures["uf1"].mean for name in ("last", "oracle"))
    text = small.text()
    assert f"labels permuted: {honest:.3f}" in text
    assert f"labels permuted, epoch picked: {picked:.3f}" in text
    assert text.count('<i class="rule" style') == text.count('<i class="rule leaks" style') == 4


def test_incomplete_and_damaged_runs_are_named_without_scores(small: Written) -> None:
    assert len(small.site.left_out) == 2
    tail = small.text().partition("Not scored")[2]
    assert "1 of 9 missing" in tail and "cannot be read" in tail
    assert small.runs["broken"].path.name in tail
    assert not (small.folder / "runs" / f"{small.runs['broken'].path.name}.html").exists()


def test_names_are_escaped(small: Written) -> None:
    pages = [path.read_text(encoding="utf-8") for path in small.folder.rglob("*.html")]
    assert len(pages) > 60
    assert not any(HOSTILE in page or "<img src=x" in page for page in pages)
    assert "&lt;img src=x" in small.text() and "&lt;script&gt;alert(1)" in small.text()
    for path in small.folder.rglob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_published_scores_stand_below_with_their_source(official: Written) -> None:
    rows = rows_of(official.text())
    assert [row["kind"] for row in rows[:2]] == ["run", "run"]
    htnet = next(row for row in rows if row["name"] == "HTNet")
    assert htnet["kind"] == "published" and htnet["leaks"] == "yes" and float(htnet["uf1"]) == 0.8603
    assert (
        "its code LEAKS (test subject chooses)" in official.text() and "arXiv:2307.14637" in official.text()
    )
    assert not list(official.folder.glob("samples*"))


def test_a_run_without_epochs_has_no_curve(small: Written) -> None:
    majority = small.text(f"runs/{small.runs['majority'].path.name}.html")
    assert "there is no epoch to pick" in majority and "<img" not in majority
    network = small.text(f"runs/{small.runs['network'].path.name}.html")
    assert "hardest samples" in network and network.count('class="strip') == 12
    assert (small.folder / "figures" / f"{small.runs['network'].path.name}.svg").exists()


def test_predictions_to_download_are_those_of_the_run(small: Written) -> None:
    run = small.runs["network"]
    with (small.folder / "runs" / f"{run.path.name}-predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * 54
    labels, classes = run.column("labels"), run.manifest.classes
    for seed, folds in complete_records(run).items():
        said = {row["sample"]: row["predicted"] for row in table if row["seed"] == str(seed)}
        picked = select(folds, labels)
        ids = run.column("sample_ids")[picked.index]
        assert said == {name: classes[c] for name, c in zip(ids, picked.predicted, strict=True)}


def test_pages_of_samples_say_what_every_run_says(small: Written) -> None:
    assert small.site.samples == 54
    entries, _ = read_entries(runs_below(small.runs["network"].path.parent))
    sample = "samm/s01/c2"
    page = small.text("samples/samm-s01-c2.html")
    for entry in entries:
        answer = entry.answers[sample]
        told = "right" if answer.rate == 1 else "wrong" if answer.rate == 0 else "1 of 2 seeds right"
        if entry.is_control:
            assert entry.key not in page
        else:
            assert re.search(rf"{entry.key}\.html.*?{told}", page, re.S)
    assert "../subjects/samm-s01.html" in page and page.count('rel="next"') == page.count('rel="prev"') == 1
    assert small.text("subjects/samm-s01.html").count('class="strip') == 6


def test_answers_of_several_seeds(small: Written) -> None:
    entries, _ = read_entries([small.runs["network"].path])
    (entry,) = entries
    hits = (entry.predicted == entry.labels[entry.tested]).sum(0)
    for row, right in zip(entry.tested, hits, strict=True):
        answer = entry.answers[entry.ids[row]]
        assert (answer.right, answer.seeds) == (right, 2)
        assert answer.shares.sum() == pytest.approx(1)
        assert answer.says == answer.truth or right < 2


def test_pairs_are_those_of_compare(small: Written) -> None:
    entries, _ = read_entries(runs_below(small.runs["network"].path.parent))
    found = paired(entries)
    key = {name: small.runs[name].path.name for name in small.runs}
    ours = found[key["network"]][key["majority"]]
    theirs = compare_runs(small.runs["network"], small.runs["majority"]).tests[FULL]
    assert isinstance(ours, Pair) and ours.seeds == 2  # the classifier's one seed against both
    assert (ours.uf1, ours.uar) == (theirs["uf1"], theirs["uar"])
    turned = found[key["majority"]][key["network"]]
    assert isinstance(turned, Pair) and turned.uf1.low == -ours.uf1.high
    assert "other labels" in str(found[key["network"]][key["control"]])
    assert "different headlines" in str(found[key["network"]][key["hostile"]])


def test_a_store_of_other_samples_is_refused(small: Written, official: Written, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds none of the samples"):
        write_site([official.runs["ststnet"].path], tmp_path / "site", store=small.store)


def test_only_damaged_runs(small: Written, tmp_path: Path) -> None:
    site = write_site([small.runs["broken"].path], tmp_path / "site", store=small.store)
    assert (site.runs, len(site.left_out)) == (0, 1)
    assert "No complete run" in site.page.read_text() and "Not scored" in site.page.read_text()


def test_the_command(call, small: Written, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    runs = small.runs["network"].path.parent
    code, out, err = call(
        "report", runs, "--html", tmp_path / "site", "--store", small.store, "--seeds", "0,"
    )
    assert code == 1 and "4 runs, 54 samples with a page" in out
    assert err.count("without scores") == 2
    code, _, err = call("report", runs, "--html", tmp_path / "site", "--json")
    assert code == 2 and "--html goes without" in err
    code, _, err = call("report", runs, "--html", runs)
    assert code == 2 and "is not empty and holds no pages" in err


def test_the_same_runs_give_the_same_site(small: Written, tmp_path: Path) -> None:
    runs = [small.runs["network"].path, small.runs["majority"].path]
    for name in ("a", "b"):
        write_site(runs, tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) > 8
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_a_run_made_of_others_names_its_members(call, small: Written, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    members = [small.runs["network"].path, small.runs["majority"].path]
    assert call("ensemble", *members, "--name", "both", "--out", tmp_path / "runs")[0] == 0
    (both,) = runs_below(tmp_path / "runs")
    write_site([both, members[0]], tmp_path / "site")
    page = (tmp_path / "site" / "runs" / f"{both.name}.html").read_text()
    assert "Made of finished runs" in page and page.count("50 %</td>") == 2
    training = page.partition("Made of")[2].partition("</table>")[0]
    assert training.count("<a href=") == 1 and f'href="{members[0].name}.html"' in training
