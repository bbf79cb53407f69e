"""Certificates that live as long as a test: an authority, servers and clients, written to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """An authority of its own.

    Args:
        folder: Where files are written.
        name: The beginning of their names.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._ca = trustme.CA(organization_name=name)
        self._ca.cert_pem.write_to_path(self.certificate)

    @property
    def certificate(self) -> Path:
        """The file with its certificate."""
        return self._folder / f"{self._name}-ca.pem"

    def issue(self, name: str, host: str = "localhost") -> Pair:
        """Sign a certificate, and write it and its key over what was there under this name."""
        pair = Pair(self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key")
        leaf = self._ca.issue_cert(host, common_name=name)
        pair.key.write_bytes(leaf.private_key_pem.bytes())
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return pair
