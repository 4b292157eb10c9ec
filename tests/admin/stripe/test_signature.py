"""A webhook is believed only when a configured secret signed these very bytes, just now."""

from __future__ import annotations

import json

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from admin.stripe.signature import NotSigned, Signed, check_signature, split_secrets

NOW = 1_800_000_000.0
BODY = b'{"object":"event","id":"evt_1"}'


def sign(body: bytes, secret: str, at: float = NOW) -> str:
    return str(stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=int(at)))


def v1_of(header: str) -> str:
    return header.split("v1=")[1]


def test_what_the_sdk_signs_is_believed() -> None:
    assert check_signature(BODY, sign(BODY, "whsec_a"), (b"whsec_a",), NOW) == Signed(0)


@pytest.mark.parametrize("configured", ["whsec_old", "whsec_new", "whsec_old, whsec_new"])
def test_while_a_secret_is_rolled_either_one_is_enough(configured: str) -> None:
    header = f"t={int(NOW)},v1={v1_of(sign(BODY, 'whsec_old'))},v1={v1_of(sign(BODY, 'whsec_new'))}"
    assert check_signature(BODY, header, split_secrets(configured), NOW) == Signed(0)


def test_one_signature_is_tried_against_every_configured_secret() -> None:
    assert check_signature(BODY, sign(BODY, "b"), split_secrets("a,b,,"), NOW) == Signed(0)


def test_a_decoy_signature_alone_is_nothing() -> None:
    header = sign(BODY, "whsec_a").replace("v1=", "v0=")
    assert isinstance(check_signature(BODY, header, (b"whsec_a",), NOW), NotSigned)


@pytest.mark.parametrize(("at", "believed"), [(-301, False), (-300, True), (300, True), (301, False), (86_400, False)])
def test_a_signature_lives_for_five_minutes_in_either_direction(at: int, believed: bool) -> None:
    verdict = check_signature(BODY, sign(BODY, "whsec_a", NOW + at), (b"whsec_a",), NOW)
    assert verdict == Signed(-at) if believed else isinstance(verdict, NotSigned)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "t=,v1=",
        "v1=aa",
        "t=1",
        "garbage",
        "t=²,v1=aa",
        f"t={'9' * 400},v1=aa",
        f"t={int(NOW)},t={int(NOW)},v1=aa",
        f"t={int(NOW)},v1=é",
        f"t={int(NOW)},v1=\udcff",
        f"t=-5,v1={'a' * 64}",
        f"t={int(NOW)}," + ",".join(["v1=aa"] * 100),
        "=" * 100_000,
    ],
)
def test_a_header_that_is_not_one_is_refused_without_an_exception(header: str | None) -> None:
    assert isinstance(check_signature(BODY, header, (b"whsec_a",), NOW), NotSigned)


def test_a_body_that_is_not_text_can_still_be_verified() -> None:
    body = b"\xff\xfe\x00" + BODY
    import hmac
    from hashlib import sha256

    signature = hmac.new(b"whsec_a", f"{int(NOW)}.".encode() + body, sha256).hexdigest()
    assert check_signature(body, f"t={int(NOW)},v1={signature}", (b"whsec_a",), NOW) == Signed(0)


def test_without_a_configured_secret_nothing_is_believed() -> None:
    assert isinstance(check_signature(BODY, sign(BODY, ""), split_secrets(" , "), NOW), NotSigned)


def test_a_changed_body_is_refused() -> None:
    changed = json.dumps({"object": "event", "id": "evt_2"}).encode()
    assert isinstance(check_signature(changed, sign(BODY, "whsec_a"), (b"whsec_a",), NOW), NotSigned)


@given(st.binary(max_size=200), st.text(max_size=200))
def test_no_header_and_no_body_raises_or_is_believed_unsigned(body: bytes, header: str) -> None:
    assert isinstance(check_signature(body, header, (b"whsec_a",), NOW), NotSigned)
