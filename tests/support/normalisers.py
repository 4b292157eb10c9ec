"""What servers do to a path before they look for the handler, one function for each kind; each cites what it models."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, unquote

Model = Callable[[str], str]


def identity(path: str) -> str:
    """h11, httptools: what stands in the request line."""
    return path


def rfc3986_unreserved(path: str) -> str:
    """RFC 3986, 6.2.2.1 and 6.2.2.2: hex in capitals, unreserved characters decoded."""

    def plain(escape: re.Match[str]) -> str:
        character = chr(int(escape[0][1:], 16))
        return character if re.fullmatch(r"[A-Za-z0-9._~-]", character) else escape[0].upper()

    return re.sub(r"%[0-9A-Fa-f]{2}", plain, path)


def rfc3986_dots(path: str) -> str:
    """RFC 3986, 5.2.4 remove_dot_segments, after 6.2.2.2."""
    source, output = rfc3986_unreserved(path), ""
    while source:
        if source.startswith("/./"):
            source = source[2:]
        elif source == "/.":
            source = "/"
        elif source.startswith("/../"):
            source, output = source[3:], output.rpartition("/")[0]
        elif source == "/..":
            source, output = "/", output.rpartition("/")[0]
        else:
            end = source.find("/", 1)
            end = len(source) if end < 0 else end
            output, source = output + source[:end], source[end:]
    return output


def merged_slashes(path: str) -> str:
    """nginx `merge_slashes on`, its default, on the decoded path."""
    return encoded(re.sub("//+", "/", unquote(path)))


def decoded_slashes(path: str) -> str:
    """PEP 3333's PATH_INFO, which WSGI servers hand on decoded, its slashes unmerged."""
    return re.sub("%2f", "/", path, flags=re.IGNORECASE)


def go_path_clean(path: str) -> str:
    """Go net/http ServeMux cleanPath on the decoded path, which keeps a trailing slash."""
    decoded = unquote(path)
    clean = posixpath.normpath("/" + decoded.lstrip("/"))
    return encoded(clean + ("/" if decoded.endswith("/") and clean != "/" else ""))


def whatwg(path: str) -> str:
    """WHATWG URL, path state of a special scheme: `\\` is `/`, tab and newlines vanish, `%2e` is a dot."""
    source = re.sub(r"[\t\r\n]", "", path).replace("\\", "/")
    return rfc3986_dots(re.sub("%2e", ".", source, flags=re.IGNORECASE))


def tomcat(path: str) -> str:
    """Tomcat CoyoteAdapter: parameters cut, decoded, `\\` and `//` normalised, dots removed."""
    decoded = unquote(re.sub(";[^/]*", "", path)).replace("\\", "/")
    return rfc3986_dots(encoded(re.sub("//+", "/", decoded)))


def spring(path: str) -> str:
    """Spring's UrlPathHelper: decoded first, then cut at `;`, slashes merged."""
    return encoded(re.sub("//+", "/", re.sub(";[^/]*", "", unquote(path))))


def iis(path: str) -> str:
    """IIS and HTTP.SYS: decoded, `\\` is `/`, dots removed, without case, no dots or spaces at a name's end (Win32)."""
    names = unquote(path).replace("\\", "/").split("/")
    return rfc3986_dots(encoded("/".join(name if set(name) <= {"."} else name.rstrip(". ") for name in names))).lower()


def starlette(path: str) -> str:
    """Starlette on uvicorn: decoded once, wrong UTF-8 replaced, nothing merged (uvicorn's httptools_impl, `on_headers_complete`).

    What a route of Starlette compares is `scope["path"]`; `request.url.path` writes `?`, `#` and a backslash as escapes.
    """
    return encoded(unquote(path))


def double_decode(path: str) -> str:
    """IIS with allowDoubleEscaping, or two decoding hops."""
    return encoded(unquote(unquote(path)))


def triple_decode(path: str) -> str:
    """Three decoding hops."""
    return encoded(unquote(unquote(unquote(path))))


def casefold(path: str) -> str:
    """Django's iexact, NTFS and macOS file names: compared without case."""
    return encoded(unquote(path).casefold())


def compatibility(path: str) -> str:
    """NFKC, as in Python identifiers, IDNA and Spark; then without case (Spotify's account takeover of 2013)."""
    return encoded(unicodedata.normalize("NFKC", unquote(path)).casefold())


def ascii_only(path: str) -> str:
    """The slugify idiom: NFKD, what is not ASCII dropped."""
    return encoded(unicodedata.normalize("NFKD", unquote(path)).encode("ascii", "ignore").decode())


def decode_before_query(path: str) -> str:
    """A server that decodes the target before it looks for `?` and `#`."""
    return encoded(re.split("[?#]", unquote(path), maxsplit=1)[0])


def stripped_names(path: str) -> str:
    """A router that trims each segment."""
    return encoded("/".join(name.strip() for name in unquote(path).split("/")))


def slash_removed(path: str) -> str:
    """Express and Rails: one trailing slash makes no difference."""
    return path[:-1] if path.endswith("/") and path != "/" else path


def slash_added(path: str) -> str:
    """Django APPEND_SLASH."""
    return path if path.endswith("/") else path + "/"


def encoded(decoded: str | bytes) -> str:
    """A path that was decoded, as it would stand in a request line."""
    return quote(decoded, safe="/:@!$&'()*+,;=~._-")


MODELS: tuple[Model, ...] = (
    identity,
    rfc3986_unreserved,
    rfc3986_dots,
    merged_slashes,
    decoded_slashes,
    go_path_clean,
    whatwg,
    tomcat,
    spring,
    iis,
    starlette,
    double_decode,
    triple_decode,
    casefold,
    compatibility,
    ascii_only,
    decode_before_query,
    stripped_names,
    slash_removed,
    slash_added,
)
