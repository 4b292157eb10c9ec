"""A token of one's own, to try the gateway with before there is an identity provider (`gateway token`).

It decides what such a token holds. It must never be able to sign for an issuer whose keys are not in gateway.yaml, nor
hand out a token that the gateway would then refuse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jwt

from gateway.credentials.claims import LONGEST_LIFETIME_SECONDS
from gateway.credentials.issuers import compile_issuers
from gateway.credentials.keys import SECRET_BYTES
from policies import schema
from policies.caller import customer_problem


@dataclass(frozen=True, slots=True)
class MintProblem:
    """Why no token was made, as a sentence."""

    detail: str


def mint_development_token(
    issuer: schema.Issuer, *, customer: str, lifetime_seconds: int, now: float
) -> str | MintProblem:
    """A token of `issuer` that names `customer` and lives so long."""
    if issuer.secret is None:
        return MintProblem(
            f"Tokens of '{issuer.issuer}' are signed with a key that only the issuer has; one can be made here only "
            "for an issuer with a secret."
        )
    compiled, problems = compile_issuers(schema.Auth(issuers=(issuer,)))
    if problems:
        return MintProblem(" ".join(problem.message for problem in problems))
    if not 0 < lifetime_seconds <= LONGEST_LIFETIME_SECONDS:
        return MintProblem("A token lives at least a second and at most ten years.")
    problem = customer_problem(customer)
    if problem is not None:
        return MintProblem(f"The customer's name {problem}.")
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
    claims |= {"iss": rules.issuer, "aud": rules.audiences[0], "iat": issued_at, "exp": issued_at + lifetime_seconds}
    if rules.customer.customer(claims) != customer:
        return MintProblem(f"The claims that would name '{customer}' don't lead back to it.")
    algorithm = next(name for name in issuer.algorithms if name in SECRET_BYTES)
    return jwt.encode(claims, issuer.secret.get_secret_value(), algorithm=algorithm)


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
