"""The runner's memory, opened as its configuration says."""

from __future__ import annotations

from reconciler.config import RunnerConfig
from reconciler.config.runner import S3Memory
from reconciler.runner.access.keys import Renewing
from reconciler.runner.access.policy import for_memory
from reconciler.runner.access.sources import Asked, signing
from reconciler.runner.audit.s3 import folder_of
from reconciler.runner.bucket import Bucket
from reconciler.runner.memory import Memory
from reconciler.runner.record import Recorder
from reconciler.runner.s3cabinet import S3Cabinet
from reconciler.runner.unitlock import Here

PURPOSE = "memory"  # what sessions of its roles say that they are for


def open_memory(config: RunnerConfig, here: Here | None = None) -> Memory:
    """The memory. `here`: where this process is, for a memory that hosts share.

    Raises:
        HeldError: see `Memory`; or the credentials cannot be read. UnitError: they are not there now. PassError: "MemoryUnavailable".
    """
    memory = Memory(config.memory_path, cabinet_in(config), here)
    if memory.shared is not None:
        memory.shared.told = open_recorder(config, memory).event
    return memory


def cabinet_in(config: RunnerConfig) -> S3Cabinet | None:
    """The memory's cabinet in a bucket, as it is; None: the memory is in a folder. Raises as `open_memory`, of credentials."""
    s3 = config.memory.s3
    return S3Cabinet(_bucket(s3, config.installation)) if s3 is not None else None


def open_recorder(config: RunnerConfig, memory: Memory) -> Recorder:
    """The audit log in that memory."""
    audit = config.audit
    return Recorder(memory.cabinet.within("audit"), audit.grace if audit and audit.required else None)


def _bucket(s3: S3Memory, installation: str) -> Bucket:
    folder = folder_of(s3.prefix)
    keys: Renewing | None = None
    if s3.credentials:
        asked = Asked("runner.yaml: memory.s3.credentials", PURPOSE, installation, region=s3.region)
        keys = signing(s3.credentials, asked, lambda partition: for_memory(s3.bucket, folder, partition))
    return Bucket(s3.bucket, folder, s3.region, s3.endpoint, s3.use_path_style, s3.kms_key_id, keys)
