"""Speaks Terraform's plugin protocol (go-plugin over gRPC) for a provider of the framework `tf`.

The framework has a `run_provider` of its own. This one differs where the tests look closely: an interrupted Terraform
lets calls in flight end (the framework drops them, and an object that was just made is then in no state); the provider
goes when Terraform was killed; and nothing is written to a home folder, which a jail does not have.
"""

from __future__ import annotations

import base64
import os
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tf.gen import grpc_controller_pb2, grpc_controller_pb2_grpc, tfplugin_pb2, tfplugin_pb2_grpc
from tf.provider import ProviderServicer

CORE_PROTOCOL, PLUGIN_PROTOCOL = 1, 6


class Controller(grpc_controller_pb2_grpc.GRPCControllerServicer):  # type: ignore[misc] # generated without types
    """go-plugin's own service: Terraform says that it needs this process no more."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def Shutdown(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.done.set()
        return grpc_controller_pb2.Empty()


def serve(provider: Any, stopping: threading.Event) -> None:
    """Serve until Terraform says shutdown or is gone. `stopping` is set when it has been interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all of us; Terraform decides
    terraform = os.getppid()
    controller = Controller()
    server = grpc.server(ThreadPoolExecutor(max_workers=10))
    tfplugin_pb2_grpc.add_ProviderServicer_to_server(servicer(provider, stopping), server)
    grpc_controller_pb2_grpc.add_GRPCControllerServicer_to_server(controller, server)
    certificate, credentials = identity()
    with tempfile.TemporaryDirectory(prefix="files-provider-") as folder:
        address = f"{folder}/socket"
        server.add_secure_port(f"unix:{address}", credentials)
        server.start()
        sys.stdout.write(f"{CORE_PROTOCOL}|{PLUGIN_PROTOCOL}|unix|{address}|grpc|{certificate}\n")
        sys.stdout.flush()
        while not controller.done.wait(0.2) and os.getppid() == terraform:
            pass
        server.stop(grace=0.2).wait()
    os._exit(0)  # a call that still hangs must not keep the process


def servicer(provider: Any, stopping: threading.Event) -> Any:
    service = ProviderServicer(provider)

    def stop(request: Any, context: Any) -> Any:
        stopping.set()
        return tfplugin_pb2.StopProvider.Response()

    service.StopProvider = stop
    return service


def identity() -> tuple[str, Any]:
    """A certificate for this process alone (base64 of its DER form, without padding) and gRPC's view of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    credentials = grpc.ssl_server_credentials([(pem, certificate.public_bytes(serialization.Encoding.PEM))])
    der = certificate.public_bytes(serialization.Encoding.DER)
    return base64.b64encode(der).decode().rstrip("="), credentials
