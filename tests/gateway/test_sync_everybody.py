"""`gateway sync --all` seen from outside: on a terminal and through a pipe, stopped and killed in the middle, and gone on with."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ledgers import fresh_sqlite
from tests.support.simulator import Running, running_simulator
from tests.support.stack import plain_environment

COUNT = 10
PAGE = 2
IN_THE_MIDDLE = 4
"""So many were looked at, in whole pages, when Stripe falls silent over the next."""

GATEWAY = f"""
import sys
import admin.stripe.everybody, admin.stripe.shared_budget
admin.stripe.everybody.PAGE = {PAGE}
admin.stripe.shared_budget.CALLS_PER_SECOND = admin.stripe.shared_budget.CALLS_AT_ONCE = 1000.0
from gateway.entry import main
main()
"""
"""The real command, but for pages that ten customers fill and a budget that lets a test not wait."""

CONFIG = """
version: 1
database: {ledger}
upstreams: {{api: {{targets: ["http://127.0.0.1:9"]}}}}
tiers:
  - name: free
  - {{name: pro, prices: [price_pro_monthly]}}
billing:
  stripe: {{secret_key: sk_test_simulator, api_base: "{stripe}"}}
routes:
  - {{path: /**, access: public}}
"""


@dataclass(frozen=True, slots=True)
class Business:
    """Ten paying customers, by the ids that Stripe has for them in the order in which they are looked at."""

    stripe: Running
    directory: Path
    ids: list[str]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", GATEWAY, *words]

    def piped(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.directory,
            env=plain_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def cancel(self, *places: int) -> None:
        """The webhook of which never came."""
        for place in places:
            [one] = self.stripe.stripe().v1.subscriptions.list({"customer": self.ids[place]}).data
            self.stripe.stripe().v1.subscriptions.cancel(one.id)

    def kept(self) -> int:
        """How many are behind the place that the ledger keeps."""
        with contextlib.closing(sqlite3.connect(self.directory / "ledger.db")) as connection:
            found = connection.execute("SELECT value FROM meta WHERE key LIKE 'stripe.sync.%'").fetchone()
        return int(json.loads(found[0])[1]) if found and found[0] else 0


class Terminal:
    """A command on a terminal of its own, and everything that it has written there."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            command, cwd=directory, env=plain_environment(TERM="xterm"), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.text = ""
        self.status: int | None = None
        """Once it has ended."""

    def until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < deadline, self.text
            self._read(0.05)

    def to_its_end(self) -> None:
        self.until(lambda: self.process.poll() is not None)
        while self._read(0):
            pass
        os.close(self._screen)
        self.status = self.process.wait()

    def counts(self) -> list[int]:
        """How many the bar said were done, one after the other."""
        return [int(done) for done in re.findall(rf"(\d+)/{COUNT}\b", self.text)]

    def _read(self, seconds: float) -> bool:
        if not select.select([self._screen], [], [], seconds)[0]:
            return False
        try:
            said = os.read(self._screen, 65536)
        except OSError:  # what Linux says of a terminal that nobody holds any more
            return False
        self.text += said.decode()
        return bool(said)


@pytest.fixture(scope="module")
def business(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Business]:
    directory = tmp_path_factory.mktemp("business")
    with running_simulator() as stripe:
        (directory / "gateway.yaml").write_text(CONFIG.format(ledger=fresh_sqlite(directory), stripe=stripe.base))
        ids = []
        for number in range(COUNT):
            made = stripe.stripe().v1.customers.create({"metadata": {"user_id": f"user-{number}"}}).id
            stripe.simulator.world.store.customers[made].card = "works"
            stripe.stripe().v1.subscriptions.create({"customer": made, "items": [{"price": "price_pro_monthly"}]})
            ids.append(made)
        found = Business(stripe, directory, sorted(ids))
        imported = found.piped("import", "--match", "metadata:user_id", "--write")
        assert imported.returncode == 0, imported.stderr
        yield found


def cut_off(business: Business, number: int) -> Terminal:
    """On a terminal, and sent that signal in the middle: Stripe doesn't answer about the customer after the fourth."""
    silent_about = business.ids[IN_THE_MIDDLE]
    business.stripe.control("faults", api="hang", seconds=600, count=1, customer=silent_about)
    shown = Terminal(business.command("sync", "--all"), business.directory)
    shown.until(lambda: max(shown.counts(), default=0) == IN_THE_MIDDLE + 1)  # the other of that page is done
    assert business.kept() == IN_THE_MIDDLE
    shown.process.send_signal(number)
    shown.to_its_end()
    assert business.stripe.http.delete(f"{business.stripe.base}/_sim/faults").is_success
    return shown


def test_stopped_in_the_middle_it_says_so_and_goes_on_there_with_every_count_true(business: Business) -> None:
    business.cancel(0, IN_THE_MIDDLE + 1, COUNT - 1)
    stopped = cut_off(business, signal.SIGINT)
    assert stopped.status == 130
    assert stopped.text.rstrip().endswith("gateway: stopped; run it again to go on from there.")
    assert stopped.text.rindex("\x1b[?25h") > stopped.text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert stopped.counts() == sorted(stopped.counts())

    went_on = Terminal(business.command("sync", "--all"), business.directory)
    went_on.to_its_end()
    assert went_on.status == 0
    assert went_on.text.startswith(f"gateway: going on after the first {IN_THE_MIDDLE}; --anew begins again.")
    assert min(went_on.counts()) >= IN_THE_MIDDLE
    assert went_on.counts()[-1] == COUNT
    assert went_on.counts() == sorted(went_on.counts())
    told = f"{COUNT} Stripe customers fetched, 3 of them were not as Stripe has them."
    assert went_on.text.rstrip().endswith(told), "what the stopped one had mended is counted, too"
    assert business.kept() == 0


def test_killed_in_the_middle_it_goes_on_behind_the_last_whole_page_and_a_pipe_is_told_in_plain_words(
    business: Business,
) -> None:
    business.cancel(1, COUNT - 2)
    killed = cut_off(business, signal.SIGKILL)
    assert killed.status == -signal.SIGKILL
    assert business.kept() == IN_THE_MIDDLE

    gone = business.ids[IN_THE_MIDDLE]
    business.stripe.control("faults", api="500", count=100, customer=gone)
    went_on = business.piped("sync", "--all")
    assert went_on.returncode == 1
    assert went_on.stdout == f"{COUNT - 1} Stripe customers fetched, 2 of them were not as Stripe has them.\n"
    first, named, last = went_on.stderr.splitlines()
    assert first == f"gateway: going on after the first {IN_THE_MIDDLE}; --anew begins again."
    assert named == f"  {gone}: Stripe answered 500"
    assert last == "gateway: 1 could not be fetched; run it again, or `gateway sync` each."
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", went_on.stdout + went_on.stderr), "no control characters"
    assert business.kept() == 0
