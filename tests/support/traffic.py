"""Steady requests to several gateways, each answer held against what it must be."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import httpx

from tests.support.stack import Gateway, bearer

LONGEST_WAIT_SECONDS = 60.0


class Traffic:
    """For each gateway a caller who asks for everything that is expected, round after round.

    `expect` says which status a path may have for a customer; none while it is being changed, and then nothing is said.
    An answer counts where the same was expected before its request and after it.
    """

    def __init__(self, gateways: list[Gateway]) -> None:
        self.wrong: list[str] = []
        self._gateways = gateways
        self._expected: dict[tuple[str, str], tuple[int, ...]] = {}
        self._rounds = [0] * len(gateways)
        self._moved = threading.Condition()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(len(gateways))]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def again(self) -> Traffic:
        """The same expectations, of callers who are not on their way yet."""
        traffic = Traffic(self._gateways)
        traffic._expected = self._expected
        return traffic

    def expect(self, path: str, customer: str, *statuses: int) -> None:
        self._expected = {**self._expected, (path, customer): statuses}

    def go_round(self, times: int = 1) -> None:
        """Until every caller has asked for everything so often, from now on; nothing was wrong until then."""
        with self._moved:
            wanted = [rounds + times + 1 for rounds in self._rounds]
            came = self._moved.wait_for(
                lambda: all(now >= then for now, then in zip(self._rounds, wanted, strict=True)), LONGEST_WAIT_SECONDS
            )
        assert came, f"the callers did not come around: {self._rounds} of {wanted}"
        assert self.wrong == []

    def _ask(self, number: int) -> None:
        base = self._gateways[number].base
        with httpx.Client(verify=False, trust_env=False, timeout=30) as client:
            while not self._over.is_set():
                for path, customer in self._expected:
                    self._ask_once(client, base, path, customer)
                with self._moved:
                    self._rounds[number] += 1
                    self._moved.notify_all()

    def _ask_once(self, client: httpx.Client, base: str, path: str, customer: str) -> None:
        before = self._expected[path, customer]
        try:
            answer = client.get(f"{base}{path}", headers=bearer(customer))
            got, why = answer.status_code, answer.headers.get("x-gateway-reason", "forwarded")
        except httpx.HTTPError as error:
            got, why = 0, repr(error)
        if before and before == self._expected[path, customer] and got not in before:
            self.wrong.append(f"{base}{path} of {customer}: {got} ({why}) and not {before}")
