"""GSS-API (RFC 2743, RFC 2744) by ctypes, from the library that ssh itself depends on. Nothing is compiled.

libgssapi_krb5 is MIT's library, GSS.framework is macOS's. This module holds only what a client of a proxy needs: a
security context, and how it wraps and unwraps messages. Errors come in GSS-API's own words.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p

from relay.errors import RelayError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LIBRARIES = (
    ("/System/Library/Frameworks/GSS.framework/GSS",)
    if sys.platform == "darwin"
    else ("libgssapi_krb5.so.2", "libgssapi.so.3")  # MIT's, Heimdal's
)
_PACK = 2 if sys.platform == "darwin" and platform.machine() == "x86_64" else 0  # as gssapi.h has it on that system

# Kerberos 5 (RFC 4121), SPNEGO (RFC 4178), and "service@host" for a name (RFC 2743 section 4.1).
KERBEROS = bytes.fromhex("2a864886f712010202")
SPNEGO = bytes.fromhex("2b0601050502")
_HOSTBASED = bytes.fromhex("2a864886f71201020104")

MUTUAL, REPLAY, SEQUENCE, CONFIDENTIALITY, INTEGRITY = 2, 4, 8, 16, 32  # the flags to ask for
_CONTINUE = 1  # GSS_S_CONTINUE_NEEDED
_OUT_OF_ORDER = 2 | 4 | 8 | 16  # GSS_S_DUPLICATE_TOKEN, _OLD_TOKEN, _UNSEQ_TOKEN and _GAP_TOKEN
_ROUTINE = 0xFFFF0000  # the bits of errors in a major status; the other bits qualify a success
_NO_CRED, _EXPIRED = 7 << 16, 11 << 16
_GSS_CODE, _MECH_CODE = 1, 2

HINT_KINIT = "kinit gets a ticket, klist shows them"
# Kerberos' number of an error (krb5_err.et): the hint.
_HINTS = {
    -1765328377: "--proxy-service names the proxy as its Kerberos does",  # the server is not in the database
    -1765328352: HINT_KINIT,  # the ticket has expired
    -1765328243: HINT_KINIT,  # no such ticket
    -1765328189: HINT_KINIT,  # there is no ticket cache
    -1765328230: "krb5.conf says where a realm's KDC is",
    -1765328228: "krb5.conf says where a realm's KDC is",  # the KDC does not answer
    -1765328347: "look at this machine's clock",
}


class _Oid(ctypes.Structure):
    if _PACK:
        _pack_ = _PACK
    _fields_ = (("length", c_uint32), ("elements", c_char_p))


class _Buffer(ctypes.Structure):
    if _PACK:
        _pack_ = _PACK
    _fields_ = (("length", c_size_t), ("value", c_void_p))

    @classmethod
    def of(cls, data: bytes) -> _Buffer:
        """Return a buffer that points at data. The caller keeps data alive as long as the buffer."""
        return cls(len(data), ctypes.cast(c_char_p(data), c_void_p))


_OID, _BUFFER, _STATUS = POINTER(_Oid), POINTER(_Buffer), POINTER(c_uint32)
# The functions and the types of their arguments. Each returns a major status and sets a minor one.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "gss_import_name": (_BUFFER, _OID, POINTER(c_void_p)),
    "gss_release_name": (POINTER(c_void_p),),
    "gss_release_buffer": (_BUFFER,),
    "gss_display_status": (c_uint32, c_int, _OID, _STATUS, _BUFFER),
    "gss_init_sec_context": (
        c_void_p, POINTER(c_void_p), c_void_p, _OID, c_uint32, c_uint32, c_void_p, _BUFFER,
        c_void_p, _BUFFER, _STATUS, _STATUS,
    ),
    "gss_delete_sec_context": (POINTER(c_void_p), c_void_p),
    "gss_wrap": (c_void_p, c_int, c_uint32, _BUFFER, POINTER(c_int), _BUFFER),
    "gss_unwrap": (c_void_p, _BUFFER, _BUFFER, POINTER(c_int), _STATUS),
    "gss_krb5_ccache_name": (c_char_p, c_void_p),
    "gss_inquire_cred": (c_void_p, POINTER(c_void_p), _STATUS, POINTER(c_int), POINTER(c_void_p)),
    "gss_wrap_size_limit": (c_void_p, c_int, c_uint32, c_uint32, _STATUS),
}  # fmt: skip


class Context:
    """A security context with a service, on the client's side.

    service: NAME@HOST. mechanism: KERBEROS or SPNEGO. flags: what to ask for. complete: whether it is established.
    """

    def __init__(self, service: str, mechanism: bytes, flags: int, environ: Mapping[str, str]) -> None:
        """environ: the user's environment, which may name a ticket cache (KRB5CCNAME). Raises RelayError."""
        self.complete = False
        self.service = service
        self.got = 0  # the flags that were granted
        self._library = _load()
        self._mechanism = _Oid(len(mechanism), mechanism)
        self._flags = flags
        self._context = c_void_p()
        self._name = c_void_p()
        if (cache := environ.get("KRB5CCNAME")) != os.environ.get("KRB5CCNAME"):
            self._call("gss_krb5_ccache_name", os.fsencode(cache) if cache is not None else None, None)
        text = os.fsencode(service)
        kind = _Oid(len(_HOSTBASED), _HOSTBASED)
        self._call("gss_import_name", byref(_Buffer.of(text)), byref(kind), byref(self._name))

    def step(self, token: bytes = b"") -> bytes:
        """Take the server's token (b"" at first) and return the token to send, b"" for none. Raises RelayError."""
        answer, got, said = _Buffer(), c_uint32(), _Buffer.of(token)
        major = self._call(
            "gss_init_sec_context",
            None, byref(self._context), self._name, byref(self._mechanism), self._flags, 0, None, byref(said),
            None, byref(answer), byref(got), None,
        )  # fmt: skip
        self.complete = not major & _CONTINUE
        self.got = got.value
        return self._taken(answer)

    def wrap(self, data: bytes, *, secret: bool) -> bytes:
        """Seal a message, and encrypt it if it is secret. Raises RelayError."""
        sealed, done = _Buffer(), c_int()
        self._call("gss_wrap", self._context, int(secret), 0, byref(_Buffer.of(data)), byref(done), byref(sealed))
        if secret and not done.value:
            raise RelayError("Kerberos cannot encrypt messages here")
        return self._taken(sealed)

    def unwrap(self, data: bytes) -> tuple[bytes, bool]:
        """Open a message from the server. Return its data and whether it was encrypted. Raises RelayError."""
        opened, secret = _Buffer(), c_int()
        major = self._call("gss_unwrap", self._context, byref(_Buffer.of(data)), byref(opened), byref(secret), None)
        plain = self._taken(opened)
        if major & _OUT_OF_ORDER:
            raise RelayError("Kerberos: a message is missing, or has come twice or out of order")
        return plain, bool(secret.value)

    def wrap_limit(self, size: int, *, secret: bool) -> int:
        """Return the longest message, in bytes, whose sealed form has at most size bytes. Raises RelayError."""
        limit = c_uint32()
        self._call("gss_wrap_size_limit", self._context, int(secret), 0, size, byref(limit))
        return limit.value

    def close(self) -> None:
        """Delete the context."""
        minor = c_uint32()
        if self._context:
            self._library.gss_delete_sec_context(byref(minor), byref(self._context), None)
        if self._name:
            self._library.gss_release_name(byref(minor), byref(self._name))

    def _call(self, name: str, *arguments: Any) -> int:
        """Call a function of the library and return its major status. Raises RelayError."""
        minor = c_uint32()
        major: int = self._library[name](byref(minor), *arguments)
        if major & _ROUTINE:
            raise self._error(major, minor.value)
        return major

    def _taken(self, buffer: _Buffer) -> bytes:
        """Copy a buffer that the library has allocated, and release it."""
        data = ctypes.string_at(buffer.value, buffer.length) if buffer.value else b""
        self._library.gss_release_buffer(byref(c_uint32()), byref(buffer))
        return data

    def _error(self, major: int, minor: int) -> RelayError:
        """Return the error in GSS-API's words: Kerberos' own if it has some, else the general ones."""
        text = self._words(minor, _MECH_CODE) if minor else ""
        text = text or self._words(major, _GSS_CODE)
        hint = _HINTS.get(minor - (1 << 32) if minor >> 31 else minor, "")
        if not hint and major & _ROUTINE in {_NO_CRED, _EXPIRED}:
            hint = HINT_KINIT
        return RelayError(f"Kerberos: {printable(text).rstrip('.')}", hint=hint)

    def _words(self, status: int, kind: int) -> str:
        text, more = _Buffer(), c_uint32()
        mechanism = _Oid(len(KERBEROS), KERBEROS)
        self._library.gss_display_status(byref(c_uint32()), status, kind, byref(mechanism), byref(more), byref(text))
        return self._taken(text).decode(errors="replace")


def has_ticket(environ: Mapping[str, str]) -> bool:
    """Whether the user has a ticket that is valid now. environ: as for Context."""
    try:
        library = _load()
    except RelayError:
        return False
    minor, seconds = c_uint32(), c_uint32()
    if (cache := environ.get("KRB5CCNAME")) != os.environ.get("KRB5CCNAME"):
        library.gss_krb5_ccache_name(byref(minor), os.fsencode(cache) if cache is not None else None, None)
    major: int = library.gss_inquire_cred(byref(minor), None, None, byref(seconds), None, None)
    return not major & _ROUTINE and seconds.value > 0


def _load() -> Any:
    """Load the library and declare its functions. Raises RelayError if this system has none."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, takes in _FUNCTIONS.items():
            library[function].argtypes = (_STATUS, *takes)
            library[function].restype = c_uint32
        return library
    raise RelayError(f"there is no Kerberos on this machine ({LIBRARIES[0]})", hint="apt install libgssapi-krb5-2")
