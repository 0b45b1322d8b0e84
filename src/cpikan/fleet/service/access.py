"""Who may ask the service for what: its token, the hosts it answers for, the folders it reads."""

from __future__ import annotations

import hmac
import ipaddress
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpikan.errors import InputError

_LEAST_TOKEN, _MOST_TOKEN = 16, 4096


@dataclass(frozen=True)
class Access:
    """``token`` that requests must carry, empty where none is needed; ``hosts`` (host:port) that they may be for; ``roots``
    that stacks may lie in."""

    token: str
    hosts: frozenset[str]
    roots: tuple[Path, ...]

    def knows(self, authorization: str | None) -> bool:
        """Tell whether the header of a request carries the token, in a time that says nothing about it.

        It may be the password of any user, too: browsers ask for one, and send it with all that their pages ask for.
        """
        given = authorization or ""
        if given.startswith("Basic "):
            given = _password(given.removeprefix("Basic "))
        return not self.token or hmac.compare_digest(
            given.removeprefix("Bearer ").strip().encode(), self.token.encode()
        )

    def serves(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request is for this address and, where a page made it, from a page of this address."""
        origin = headers.get("origin")
        return (
            headers.get("host") in self.hosts
            and (origin is None or origin.partition("://")[2] in self.hosts)
            and headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        )

    def stack(self, source: str) -> Path:
        """Give the path of a stack; InputError where it is not there, or lies outside the roots."""
        try:
            path = Path(source.partition("::")[0]).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            path = None
        if path is None or not any(path.is_relative_to(root) for root in self.roots):
            # the same words for both: nobody learns what lies elsewhere
            raise InputError(f"{source[:200]!r} is no stack below the folders that this service reads")
        return path


def access_of(host: str, port: int, roots: Sequence[str], token_file: str | None) -> Access:
    """Make the access of a service; InputError for a root that is none, a bad token, and off loopback without a token."""
    folders = []
    for root in roots:
        if not Path(root).is_dir():
            raise InputError(f"--root {root} is no folder: give one that stacks lie in")
        folders.append(Path(root).resolve())
    token = "" if token_file is None else _token(token_file)
    if not token and not is_loopback(host):
        raise InputError(
            f"--host {host} is open to other machines: give --token-file with a token that requests must carry"
        )
    names = {host, "127.0.0.1", "localhost", "[::1]"} if is_loopback(host) else {host}
    return Access(token, frozenset(f"{name}:{port}" for name in names), tuple(folders))


def is_loopback(host: str) -> bool:
    """Tell whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _password(encoded: str) -> str:
    try:
        return b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(_MOST_TOKEN + 1).strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(
            f"token file {path} cannot be read: give a file of one line of letters and digits"
        ) from failure
    if not _LEAST_TOKEN <= len(token) <= _MOST_TOKEN or not token.isprintable() or " " in token:
        raise InputError(
            f"token in {path} has {len(token)} characters: give {_LEAST_TOKEN} to {_MOST_TOKEN}, without spaces"
        )
    return token
