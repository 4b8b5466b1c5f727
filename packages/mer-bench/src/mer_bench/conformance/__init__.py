"""Conformance: what every registered model must keep, as checks that a plug-in's author can run too.

On the command line `mer-bench check --conformance NAME`. In a plug-in's own tests:

    import pytest
    from mer_bench.conformance import Subject, checks_for, write_reference_store
    from my_package import SPECS

    @pytest.fixture(scope="session")
    def store(tmp_path_factory):
        return write_reference_store(tmp_path_factory.mktemp("conformance") / "reference.h5")

    CASES = [(spec, check) for spec in SPECS for check in checks_for(spec)]

    @pytest.mark.parametrize(("spec", "check"), CASES, ids=lambda case: case.name)
    def test_conforms(spec, check, store):
        check(Subject(spec, store))
"""

from __future__ import annotations

from mer_bench.conformance.checks import Check, Finding, checks_for, examine
from mer_bench.conformance.inputs import write_reference_store
from mer_bench.conformance.subject import Subject

__all__ = ["Check", "Finding", "Subject", "checks_for", "examine", "write_reference_store"]
