"""Requests made from the server's own OpenAPI schema, valid and not: no answer may be a 5xx, nor
other than the schema says. Skipped without schemathesis (`pip install schemathesis`). Longer, with
every phase, against a running server:

    schemathesis run http://127.0.0.1:8000/openapi.json --exclude-checks positive_data_acceptance

(That check is left out since a schema cannot say what depends on the model: ids below the size of
its vocabulary, prompts that fit its context.)
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


def operations(url: str) -> list[Any]:
    schema = schemathesis.openapi.from_url(url, wait_for_schema=30)
    return [found.ok() for found in schema.get_all_operations()]


def test_the_schema_is_kept(serve: Any) -> None:
    """Not by schemathesis' plugin, which knows no pytest 9."""
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    unknowable = [schemathesis.checks.positive_data_acceptance]
    with serve(context=64) as running:
        found = operations(f"{running.url.removesuffix('/v1')}/openapi.json")
        assert len(found) == 12
        cases = [one.as_strategy(generation_mode=mode) for one in found for mode in modes]

        @settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=st.one_of(cases))
        def ask(case: Any) -> None:
            case.call_and_validate(excluded_checks=unknowable)

        ask()
        running.wait_until_idle()
