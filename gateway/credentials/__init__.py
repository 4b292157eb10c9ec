"""Credentials: who is calling. What other parts use of it stands here."""

from gateway.credentials.api_keys import ApiKeys, KeyBounds
from gateway.credentials.authenticator import Authenticator
from gateway.credentials.development import MintProblem, mint_development_token
from gateway.credentials.issuers import IssuerProblem, issuer_problems
from gateway.credentials.jwks import Bounds, KeyHealth, KeyState
from gateway.credentials.outcomes import Authenticated, Source, Unauthenticated

__all__ = [
    "ApiKeys",
    "Authenticated",
    "Authenticator",
    "Bounds",
    "IssuerProblem",
    "KeyBounds",
    "KeyHealth",
    "KeyState",
    "MintProblem",
    "Source",
    "Unauthenticated",
    "issuer_problems",
    "mint_development_token",
]
