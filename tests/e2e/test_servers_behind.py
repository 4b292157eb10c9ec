"""P1 with the servers themselves: what nginx and Starlette make of a path never needs more than the gateway asked for.

A bounded part of `make targets`; models of other servers are in `tests/policies/test_routes_respelling.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.normalisers import merged_slashes, rfc3986_dots, starlette
from tests.support.respelling import TABLES, asks_too_little
from tests.support.route_tables import route, table_of
from tests.targets.run import nginx_is_here, search
from tests.targets.servers import Readings, nginx_reads, starlette_reads

SEEDS = range(1000)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readings]:
    if not nginx_is_here():
        pytest.skip("there is no nginx: on Debian, `apt install nginx-light`")
    with nginx_reads(tmp_path_factory.mktemp("nginx") / "run") as reads:
        yield reads


@pytest.fixture(scope="module")
def starlette_itself() -> Iterator[Readings]:
    with starlette_reads() as reads:
        yield reads


def test_nginx_reads_nothing_that_was_let_through_as_a_path_that_needs_more(nginx: Readings) -> None:
    tally = search(SEEDS, [nginx], models=False)
    assert tally.faults == []
    assert tally.readings > 200


def test_starlette_reads_nothing_that_was_let_through_as_a_path_that_needs_more(starlette_itself: Readings) -> None:
    tally = search(SEEDS, [starlette_itself], models=False)
    assert tally.faults == []
    assert tally.readings > 200


def test_the_tables_have_a_default_of_authenticated_and_an_open_route_for_everything() -> None:
    assert {"default authenticated", "open /**"} <= TABLES.keys()


@pytest.mark.parametrize(
    "raw", ["/v1//models", "/v1/./models/../x", "/%70ro/x", "/x%3Fy", "/a%253Bb", "/%c3%b3", "/x;y"]
)
def test_the_models_of_both_say_what_they_do(nginx: Readings, starlette_itself: Readings, raw: str) -> None:
    assert nginx([raw]) == [[rfc3986_dots(merged_slashes(raw))]]
    assert starlette(raw) in starlette_itself([raw])[0]


def test_a_gateway_that_compared_only_what_was_sent_would_be_found(nginx: Readings, starlette_itself: Readings) -> None:
    table = table_of(route("/v1/Reports", tier="pro", spelling="exact"), route("/**"))
    for server in (nginx, starlette_itself):
        (readings,) = server(["/v1/%52eports"])
        assert all(asks_too_little(table, "/v1/%52eports", reading) is None for reading in readings)
        # As if the escape had been compared as it stands, and so been judged by /**.
        assert any(asks_too_little(table, "/v1/reports", reading) is not None for reading in readings)
