"""A token of one's own, to try the gateway with before there is an identity provider (`gateway token`).

It decides what such a token holds. It must never be able to sign for an issuer whose keys are not in gateway.yaml, nor
hand out a token that the gateway would then refuse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jwt

from gateway.credentials.authenticator import Authenticator
from gateway.credentials.claims import LONGEST_LIFETIME_SECONDS
from gateway.credentials.customers import claim_at
from gateway.credentials.issuers import compile_issuers
from gateway.credentials.outcomes import Unauthenticated
from policies import schema
from policies.caller import customer_problem


@dataclass(frozen=True, slots=True)
class MintProblem:
    """Why no token was made, as a sentence. `is_malformed`: what was asked for can't be, whoever the issuer is."""

    detail: str
    is_malformed: bool = False


def mint_development_token(
    issuer: schema.Issuer, *, customer: str, lifetime_seconds: int, now: float
) -> str | MintProblem:
    """A token of `issuer` that names `customer` and lives so long."""
    if issuer.secret is None:
        return MintProblem(
            f"Tokens of '{issuer.issuer}' are signed with a key that only the issuer has; one can be made here only "
            "for an issuer with a secret."
        )
    # Wherever it will be sent: whether it is good doesn't depend on that.
    auth = schema.Auth(issuers=(issuer.model_copy(update={"token_from": None}),))
    compiled, problems = compile_issuers(auth)
    if problems:
        return MintProblem(" ".join(problem.message for problem in problems))
    if not 0 < lifetime_seconds <= LONGEST_LIFETIME_SECONDS:
        return MintProblem("A token lives at least a second and at most ten years.", is_malformed=True)
    problem = customer_problem(customer)
    if problem is not None:
        return MintProblem(f"The customer's name {problem}.", is_malformed=True)
    (rules,) = compiled
    named = rules.customer.claims_for(customer)
    if named is None:
        return MintProblem(
            f"No token of '{issuer.issuer}' can name '{customer}': its customers are '{issuer.customer}'."
        )
    issued_at = math.floor(now)
    claims: dict[str, Any] = {"sub": customer}
    for name, value in named.items():
        _put(claims, name, value)
    for name, values in issuer.claims.items():
        if claim_at(claims, name) is None:
            _put(claims, name, values[0])
    claims |= {
        "iss": rules.issuer,
        "aud": rules.claims.audiences[0],
        "iat": issued_at,
        "exp": issued_at + lifetime_seconds,
    }
    secret, algorithm = issuer.secret.get_secret_value(), issuer.algorithms[0]
    token = jwt.encode(claims, secret, algorithm=algorithm, headers={"typ": issuer.types[0]})
    outcome = Authenticator(auth, now=lambda: now).authenticate([(b"authorization", b"Bearer " + token.encode())])
    if isinstance(outcome, Unauthenticated):
        return MintProblem(f"The gateway would refuse it. {outcome.detail}")
    if outcome.caller.customer != customer:
        return MintProblem(f"The claims that would name '{customer}' lead to another customer.")
    return token


def _put(claims: dict[str, Any], name: str, value: str) -> None:
    """Set the claim where `claim_at` finds it: nested along its dots, but for names that are URLs."""
    steps = [name] if "/" in name else name.split(".")
    node = claims
    for step in steps[:-1]:
        inner = node.setdefault(step, {})
        if not isinstance(inner, dict):
            inner = node[step] = {}
        node = inner
    node[steps[-1]] = value
