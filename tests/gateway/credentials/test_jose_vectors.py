"""The public JOSE vectors: C2SP Wycheproof's 401 signatures and the cookbook of RFC 7520."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.credentials.compact import Compact, take_apart
from gateway.credentials.issuers import signature_fits
from gateway.credentials.keys import VerificationKey, key_from_jwk
from policies.schema import Algorithm

JOSE = Path(os.environ.get("FIXTURES") or Path(__file__).resolve().parents[3].parent / "shared" / "fixtures") / "jose"
WYCHEPROOF = JOSE / "json_web_signature_test.json"
ALL_ALGORITHMS: tuple[str, ...] = Algorithm.__args__  # type: ignore[attr-defined]

# Called valid there, and refused here: 346 and 350 use PS384 with a key that says PS256, 347 and 351 a key for "ES521",
# which is no algorithm; 372 and 373 hold a character that is outside base64url.
REFUSED_ALL_THE_SAME = {346, 347, 350, 351, 372, 373}

# Called invalid there because of padding that the files no longer hold: byte for byte they are 357, a valid one.
EQUAL_TO_A_VALID_ONE = {367: 357, 370: 357}

pytestmark = pytest.mark.fixtures


def vectors() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = json.loads(WYCHEPROOF.read_text())["testGroups"]
    return groups


def cases() -> list[Any]:
    if not WYCHEPROOF.is_file():
        return [pytest.param({}, {}, marks=pytest.mark.skip(f"the JOSE vectors are not at {JOSE}"))]
    return [
        pytest.param(group.get("public") or group["private"], case, id=f"{case['tcId']}-{case['comment']}")
        for group in vectors()
        for case in group["tests"]
    ]


def verified(jwk: dict[str, Any], token: str) -> bool:
    """What an issuer with this one key, for which every algorithm is pinned that the key is for, makes of the token."""
    key = key_from_jwk(jwk, (jwk["alg"],) if jwk.get("alg") in ALL_ALGORITHMS else _kind(jwk))
    parts = take_apart(token.encode())
    if not isinstance(key, VerificationKey) or not isinstance(parts, Compact):
        return False
    return parts.algorithm in key.algorithms and signature_fits(parts, key)


def _kind(jwk: dict[str, Any]) -> tuple[str, ...]:
    # The cookbook signs once with HS256 and twice with keys that name no algorithm.
    return ("HS256",) if jwk["kty"] == "oct" else ALL_ALGORITHMS


@pytest.mark.parametrize(("jwk", "case"), cases())
def test_wycheproof_signatures_are_judged_as_it_says(jwk: dict[str, Any], case: dict[str, Any]) -> None:
    expected = case["result"] == "valid" and case["tcId"] not in REFUSED_ALL_THE_SAME
    if case["tcId"] in EQUAL_TO_A_VALID_ONE:
        others = {one["tcId"]: one for group in vectors() for one in group["tests"]}
        twin = others[EQUAL_TO_A_VALID_ONE[case["tcId"]]]
        assert (twin["jws"], twin["result"]) == (case["jws"], "valid")
        expected = True
    assert verified(jwk, case["jws"]) is expected


@pytest.mark.parametrize(
    "name",
    ["4_1.rsa_v15_signature", "4_2.rsa-pss_signature", "4_3.ecdsa_signature", "4_4.hmac-sha2_integrity_protection"],
)
def test_the_cookbook_of_rfc_7520_verifies_and_a_changed_signature_does_not(name: str) -> None:
    path = JOSE / "jws" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"the JOSE vectors are not at {JOSE}")
    example = json.loads(path.read_text())
    jwk, token = example["input"]["key"], example["output"]["compact"]
    public = {member: value for member, value in jwk.items() if jwk["kty"] == "oct" or member in _PUBLIC_MEMBERS}
    assert verified(public, token)
    changed = token[:-12] + ("A" if token[-12] != "A" else "B") + token[-11:]
    assert not verified(public, changed)


def test_a_detached_payload_is_refused() -> None:
    path = JOSE / "jws" / "4_5.signature_with_detached_content.json"
    if not path.is_file():
        pytest.skip(f"the JOSE vectors are not at {JOSE}")
    example = json.loads(path.read_text())
    assert not verified(example["input"]["key"], example["output"]["compact"])


_PUBLIC_MEMBERS = {"kty", "kid", "use", "n", "e", "crv", "x", "y"}
