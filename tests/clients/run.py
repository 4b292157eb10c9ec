"""Runs the test suites of requests and urllib3, as released, without the gateway and through it, and compares every test.

A test that comes out otherwise through the gateway is a fault of the gateway, or stands in `EXPLAINED` with the reason.
A test that fails both ways says something about this machine and nothing about the gateway; it is named, too.

    python -m tests.clients.run --venv .venv-clients
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
SUITE_SECONDS: Final = 300
# These dial an address at which nobody answers, so that no server is reached and a sandbox without routes fails them.
NOT_OF_A_SERVER: Final = "not connect_timeout and not total_timeout_connect and not total_applies_connect"

_HOP = "Proxy-Authorization is meant for the next hop alone (RFC 9110, section 7.6.1), so that it stops at the gateway."
_ADDED = (
    "It compares all headers that the server got, and the gateway adds X-Forwarded-For, -Proto, -Host and X-Request-Id."
)
_POOLS = "test/with_dummyserver/test_poolmanager.py::TestPoolManager::"
EXPLAINED: Final = {
    "tests/test_requests.py::TestRequests::test_proxy_authorization_preserved_on_request": _HOP,
    _POOLS + "test_redirect_cross_host_no_remove_headers": _HOP,
    _POOLS + "test_redirect_cross_host_set_removed_headers": _HOP,
    _POOLS + "test_headers_http_header_dict": _ADDED,
    _POOLS + "test_merge_headers_with_pool_manager_headers": _ADDED,
    _POOLS + "test_headers_http_multi_header_multipart": _ADDED,
}


@dataclass(frozen=True, slots=True)
class Suite:
    """What of a released source archive is run: the tests that talk to a server which a gateway can stand before."""

    package: str
    files: tuple[str, ...]


SUITES: Final = (
    Suite("requests", ("tests/test_requests.py", "tests/test_lowlevel.py")),
    Suite("urllib3", ("test/with_dummyserver/test_connectionpool.py", "test/with_dummyserver/test_poolmanager.py")),
)


def unpacked(package: str, released: Path, into: Path) -> Path:
    """The directory of the source archive of this package."""
    [archive] = released.glob(f"{package}-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    return into / archive.name.removesuffix(".tar.gz")


def outcomes(suite: Suite, source: Path, python: Path, *, gateway: Path | None) -> dict[str, str]:
    """What each test came to."""
    place = source / "outcomes.json"
    place.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    environment |= {"PYTHONPATH": str(HERE), "OUTCOMES": str(place), "NO_PROXY": "127.0.0.1,localhost"}
    if gateway is not None:
        environment["GATEWAY"] = str(gateway)
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "behind_gateway",
        "-p",
        "no:cacheprovider",
        "-k",
        NOT_OF_A_SERVER,
    ]
    done = subprocess.run(
        [*command, *suite.files],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SUITE_SECONDS,
        check=False,
    )
    if not place.exists():
        sys.exit(f"{suite.package}'s tests did not run:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    result: dict[str, str] = json.loads(place.read_text())
    return result


def compare(suite: Suite, source: Path, python: Path, gateway: Path) -> bool:
    """Run both ways and tell; whether everything is the same or explained."""
    direct = outcomes(suite, source, python, gateway=None)
    through = outcomes(suite, source, python, gateway=gateway)
    passed = sum(outcome == "passed" for outcome in through.values())
    print(f"{source.name}: {len(through)} tests, {passed} pass through the gateway")
    for test in sorted(direct.keys() | through.keys()):
        before, after = direct.get(test, "not run"), through.get(test, "not run")
        if before == after == "failed":
            print(f"  fails without the gateway, too: {test}")
        elif before != after:
            print(f"  {before} without, {after} through the gateway: {test}\n    {EXPLAINED.get(test, 'UNEXPLAINED')}")
    unexplained = {test for test in direct.keys() | through.keys() if direct.get(test) != through.get(test)}
    stale = {test for test in EXPLAINED if test in direct and direct[test] == through.get(test)}
    for test in sorted(stale):
        print(f"  explained, and yet the same both ways: {test}")
    return not (unexplained - EXPLAINED.keys()) and not stale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, required=True, help="where the suites' own dependencies are")
    venv = parser.parse_args().venv.absolute()
    gateway = Path(sys.executable).with_name("gateway")
    with tempfile.TemporaryDirectory() as directory:
        fine = [
            compare(
                suite,
                unpacked(suite.package, venv / "released", Path(directory)),
                venv / "bin" / "python",
                gateway,
            )
            for suite in SUITES
        ]
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
