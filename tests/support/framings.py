"""Bytes that two servers have been known to read as two different requests: spellings of what says how long a body is.

`Transfer-Encoding` and `Content-Length` as requests were smuggled by them past others, and chunks that are nearly ones.
"""

from __future__ import annotations

from tests.support.rawbytes import SMUGGLED

CHUNKED_NAMES = [
    *(b"Transfer-Encoding", b"transfer-encoding", b"TRANSFER-ENCODING", b"Transfer_Encoding", b"Transfer-Encoding "),
    *(b"Transfer-Encoding\t", b" Transfer-Encoding", b"X: y\nTransfer-Encoding", b"X: y\rTransfer-Encoding"),
    *(b"\x0bTransfer-Encoding", b"Transfer-Encoding\x00", b"Transfer\xadEncoding", b"Transfer-Encodin\xe7"),
    *(b"Content-Encoding", b"TE", b"X-Transfer-Encoding", b"Transfer-Encoding:", b"\x00Transfer-Encoding"),
]

CHUNKED_VALUES = [
    *(b"chunked", b" chunked", b"\tchunked", b"chunked ", b"chunked\t", b"CHUNKED", b"ChunKed", b"xchunked", b"chunk"),
    *(b"chunked, identity", b"identity, chunked", b"chunked, chunked", b"gzip, chunked", b", chunked", b"chunked,"),
    *(b"chunked\x00", b"chunked\x0b", b"\x0bchunked", b'"chunked"', b"'chunked'", b"chunked;q=1", b"chunked\r\n "),
    *(b"\r\n chunked", b"cow\r\nTransfer-Encoding: chunked", b"\xffchunked", b"chu\xc5\x9fnked", b"identity", b""),
]  # fmt: skip
LENGTHS = [
    *(b"+%d", b"-%d", b" %d", b"%d ", b"%d,%d", b"%d, 0", b"0x%x", b"%d.0", b"%de0", b"%d_0", b"00%d", b"%d;", b"\x0b%d"),
    *(b"%d\r\n ", b"%d\x00", b"%d\r\nContent-Length: 0", b"0\r\nContent-Length: %d", b"1%d000000000000000000000", b""),
]  # fmt: skip
FRAMINGS = {
    **{f"{name!r}": (name, b"chunked") for name in CHUNKED_NAMES},
    **{f"{value!r}": (b"Transfer-Encoding", value) for value in CHUNKED_VALUES},
}
DOUBTFUL_CHUNKS = [
    *(b"5 \r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n"),
    *(b"5\nhello\n0\n\n", b"5\r\nhelloo\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n"),
    *(b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n0\r\n\r\n", b"5;a=\nb\r\nhello\r\n0\r\n\r\n"),
    *(b"5;\r\n0\r\nhello\r\n0\r\n\r\n", b"5\r\rhello\r\n0\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n", b";5\r\nhello\r\n0\r\n\r\n"),
    *(b"5\r\nhello\r\n0\r\nX: y\n\r\n", b"5\r\nhello\r\n0\r\n X: y\r\n\r\n", b"5\r\nhello\r\n0\r\nX y\r\n\r\n"),
]  # fmt: skip


def every_request() -> list[bytes]:
    """Each spelling as a request of `POST /public/x`, and one more behind it that must never be seen."""
    head = b"POST /public/x HTTP/1.1\r\nHost: a\r\n"
    smuggling = b"0\r\n\r\n" + SMUGGLED
    requests = []
    for name, value in FRAMINGS.values():
        length, chunked = b"Content-Length: %d\r\n" % len(smuggling), b"%b: %b\r\n" % (name, value)
        requests += [head + fields + b"\r\n" + smuggling for fields in (length + chunked, chunked + length)]
        requests.append(head + chunked + b"\r\n5\r\nhello\r\n0\r\n\r\n")
    for spelling in LENGTHS:
        count = spelling.count(b"%")
        length = spelling % ((len(SMUGGLED),) * count) if count else spelling
        requests.append(head + b"Content-Length: %b\r\n\r\n" % length + SMUGGLED)
    requests += [head + b"Transfer-Encoding: chunked\r\n\r\n" + body + SMUGGLED for body in DOUBTFUL_CHUNKS]
    return requests
