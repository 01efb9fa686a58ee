"""A listener's side of TLS: its certificate, renewed in place, and the authority of those who call."""

from __future__ import annotations

import ssl
from pathlib import Path

from reconciler.config.trigger import Tls
from reconciler.errors import ConfigError


class Certificate:
    """What a listener shows. `name` is the listener's in reconciler.yaml."""

    def __init__(self, tls: Tls, name: str, *, required: bool) -> None:
        """`required`: nobody may call without a certificate that `client_ca_file` vouches for, where that is written.

        Raises:
            ConfigError: a file cannot be read, or does not hold what it should.
        """
        self._tls, self._name = tls, name
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(self.context)
        if tls.client_ca_file is not None:
            try:
                self.context.load_verify_locations(tls.client_ca_file)
            except (OSError, ssl.SSLError) as error:
                what = f"{name}.tls.client_ca_file {tls.client_ca_file} cannot be read: {error}"
                raise ConfigError(what) from error
            self.context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is read from."""
        return self._tls.cert_file, self._tls.key_file

    def renew(self) -> None:
        """Show the certificate that is in the files now. Raises ConfigError where it cannot be used: the old one stays."""
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # half of a new pair harms nobody
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._tls.cert_file, self._tls.key_file)
        except (OSError, ssl.SSLError) as error:
            where = f"{self._tls.cert_file} and {self._tls.key_file}"
            raise ConfigError(f"{self._name}.tls: {where} are no certificate and its key: {error}") from error
