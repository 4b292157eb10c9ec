"""Whom the gateway trusts as an upstream, and what it shows to one that asks who is calling."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.schema import UpstreamTls


class TlsFilesError(ValueError):
    """A file of certificates or keys that can't be used; says which and why."""


def client_tls(settings: UpstreamTls, *, http2: bool = False) -> ssl.SSLContext:
    """The system's certificate authorities, or those of `ca` alone; HTTP/1.1 is offered, and HTTP/2 before it where that is spoken.

    Raises TlsFilesError.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca)
        if settings.certificate is not None:
            # With an empty password OpenSSL doesn't ask for one on the terminal, where nobody may be.
            context.load_cert_chain(settings.certificate, settings.key, password="")
    except (OSError, ValueError) as error:
        named = ", ".join(file for file in (settings.ca, settings.certificate, settings.key) if file is not None)
        raise TlsFilesError(f"The TLS files of an upstream can't be used ({named}): {error}") from error
    if not settings.verify:  # of which each start warns
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context
