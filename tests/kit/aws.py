"""A server that answers as AWS does, looked at from behind, and the pin of the real AWS provider."""

from __future__ import annotations

import base64
import hashlib
import logging
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import boto3
from moto.moto_api._internal.models import moto_api_backend
from moto.server import ThreadedMotoServer

from reconciler.demo import example
from reconciler.demo.example import Releases
from reconciler.demo.forge import Forge
from reconciler.demo.playground import CATALOG_NAME
from reconciler.desired.lock import parse_lock
from reconciler.lockfile import with_pin
from reconciler.model import Lock, ProviderPin
from tests.kit.terraform import AWS_PROVIDER
from tests.provider.mirror import HOSTS, this_platform

ACCOUNT = "123456789012"  # the server's
BUCKET = "acme-tfstate"
REGION = "eu-west-1"
NEEDS_AWS = 'terraform {\n  required_providers {\n    aws = { source = "hashicorp/aws" }\n  }\n}\n'


class Aws:
    """The server, looked at from behind."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def reset(self) -> None:
        """As if nobody had used it before, but with a bucket."""
        import requests

        requests.post(f"{self.endpoint}/moto-api/reset", timeout=30).raise_for_status()
        self.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    def objects(self) -> set[str]:
        """The keys in the bucket."""
        return {o["Key"] for o in self.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])}

    def contents(self) -> dict[str, bytes]:
        """The objects in the bucket."""
        s3 = self.client("s3")
        return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in self.objects()}

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects into the bucket."""
        for key, content in objects.items():
            self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)

    def empty(self) -> None:
        """Remove every object of the bucket."""
        for key in self.objects():
            self.client("s3").delete_object(Bucket=BUCKET, Key=key)

    def parameter(self, name: str) -> str:
        """The value of a parameter, in clear."""
        return str(self.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])

    def parameters(self) -> set[str]:
        """The names of the parameters that somebody made."""
        found = self.client("ssm").describe_parameters()["Parameters"]
        return {one["Name"] for one in found if not one["Name"].startswith("/aws/")}

    def vpcs(self) -> list[dict[str, Any]]:
        """The networks that somebody made."""
        return [v for v in self.client("ec2").describe_vpcs()["Vpcs"] if not v["IsDefault"]]


@contextmanager
def serving() -> Iterator[Aws]:
    """The server while it is needed. What it keeps is the process's, not the server's: it starts as if nobody had used it."""
    moto_api_backend.reset()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request is kept until the test ends
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Aws(f"http://{host}:{port}")
    finally:
        server.stop()


def prod(aws: Aws, account: str, **credentials: tuple[Path, str]) -> dict[str, Any]:
    """What a host says of prod: states in the bucket, one account, and a file of credentials for each operation.

    Args:
        account: the only one that is allowed.
        credentials: by operation, the file that is written, and the secret key in it.
    """
    for file, key in credentials.values():
        file.write_text(f"# of {file.stem}\nAWS_ACCESS_KEY_ID={file.stem}er\nAWS_SECRET_ACCESS_KEY={key}\n")
        file.chmod(0o600)
    return {
        "backend": {"local": None, "s3": {"bucket": BUCKET, "region": REGION, "use_path_style": True}},
        "allowed_account_ids": [account],
        "env": {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_EC2_METADATA_DISABLED": "true"},
        "credentials": {operation: {"static_file": str(file)} for operation, (file, _) in credentials.items()},
    }


def locked(folder: Path, releases: Releases, provider: ProviderPin) -> str:
    """A lock with every module of these releases, each of which needs the provider.

    The releases have the same commits wherever they are made, so the lock can be written before the catalog is.
    """
    forge = Forge.create(folder / "releases.git")
    example.release(forge, releases)
    text = example.lock_of(forge, releases, CATALOG_NAME)
    lock = parse_lock(example.LOCK, text.encode())
    assert isinstance(lock, Lock)
    for pin in (pin for versions in lock.modules.values() for pin in versions.values()):
        text = with_pin(example.LOCK, text, replace(pin, providers=(provider,)), replaces=True)
    return text


def provider_pin(mirror: Path) -> ProviderPin:
    """The pin of the AWS provider in a mirror, under each name of the public registry."""
    source, version = AWS_PROVIDER
    found = (package_hash(mirror / "registry.terraform.io" / source),)
    return ProviderPin(source, version, dict.fromkeys(HOSTS, found))


def package_hash(folder: Path) -> str:
    """Terraform's `h1:` of the provider, packed or not."""
    unpacked = folder / AWS_PROVIDER[1] / this_platform()
    if unpacked.is_dir():
        return h1(
            {f.relative_to(unpacked).as_posix(): sha256(f.open("rb")) for f in unpacked.rglob("*") if f.is_file()}
        )
    with zipfile.ZipFile(folder / f"terraform-provider-aws_{AWS_PROVIDER[1]}_{this_platform()}.zip") as packed:
        return h1({name: sha256(packed.open(name)) for name in packed.namelist()})


def sha256(file: IO[bytes]) -> str:
    found = hashlib.sha256()
    with file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def h1(files: Mapping[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()
