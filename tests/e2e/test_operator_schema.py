"""Schemathesis at the operator's API of a real gateway: what its document allows and what it forbids, and never a 5xx (P9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.stack import OPERATOR_TOKEN

if TYPE_CHECKING:
    from tests.support.stack import Stack

EXAMPLES = 8
BELOW_THE_API = {413, 414, 431}
"""What the listener says of a request that is too large for it."""
CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_whatever_is_sent_to_the_operators_api_it_answers_as_its_document_says(
    stack: Stack, mode: GenerationMode
) -> None:
    document: dict[str, Any] = stack.gateway.operator_get("/openapi.json").json()
    tried: set[str] = set()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()  # type: ignore[union-attr] # an operation that can't be read raises here
        described = document["paths"][operation.path][operation.method]
        in_query = any(one["in"] == "query" for one in described.get("parameters", []))
        if mode is GenerationMode.NEGATIVE and not in_query and "requestBody" not in described:
            continue  # what takes nothing, or any name, can't be asked wrongly

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(mode))
        def answers(case: schemathesis.Case[Any]) -> None:
            answer = case.call(
                base_url=f"http://127.0.0.1:{stack.gateway.operator}",
                headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"},
            )
            tried.add(f"{case.method} {case.operation.path}")
            if answer.status_code not in BELOW_THE_API:
                case.validate_response(answer, checks=CHECKS)

        answers()
    assert {"POST /api/grant/{customer}", "GET /api/events", "GET /api/explain"} <= tried
    assert stack.gateway.status("/free/x", "after-the-schema") == 200
