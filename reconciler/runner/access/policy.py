"""Session policies: what a job's session may do of what its role may. What is not allowed here the role cannot give.

AWS intersects them with the role's own policies, so they only ever take away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from reconciler.model import Operation

READ = ("s3:GetObject", "s3:GetObjectVersion")
WRITE = (*READ, "s3:PutObject", "s3:DeleteObject")
SEARCH = (
    "tag:GetResources", "ec2:Describe*", "iam:ListRoles", "iam:ListRoleTags", "iam:ListUsers", "iam:ListUserTags",
    "s3:ListAllMyBuckets", "s3:GetBucketLocation", "s3:GetBucketTagging",
)  # fmt: skip
LOOK = ("s3:ListBucket", "s3:GetBucket*")  # at the bucket itself: what it is like, never what is in it


def for_runner(bucket: str, partition: str) -> str:
    """The runner's own look at states: this bucket, and the keys that it is encrypted with."""
    states = {"Action": "s3:*", "Resource": [_arn(bucket, partition), _arn(f"{bucket}/*", partition)]}
    return _policy(states, {"Action": "kms:*", "Resource": "*"})


def for_adoption(bucket: str, key: str, partition: str) -> str:
    """The runner's own look at a state that others made: at this one, and at whether it is locked."""
    objects = {"Action": list(READ), "Resource": [_arn(f"{bucket}/{key}{end}", partition) for end in ("", ".tflock")]}
    listed = {"Action": "s3:ListBucket", "Resource": _arn(bucket, partition)}
    return _policy(objects, listed, {"Action": "kms:Decrypt", "Resource": "*"})


def for_anchor(bucket: str, folder: str, partition: str) -> str:
    """The audit log's heads: added below this folder of the bucket and listed, never read, changed or removed."""
    heads = {"Action": ["s3:PutObject", "s3:PutObjectRetention"], "Resource": _arn(f"{bucket}/{folder}*", partition)}
    listed = {"Action": ["s3:ListBucket", "s3:ListBucketVersions"], "Resource": _arn(bucket, partition)}
    return _policy(heads, listed, {"Action": "kms:*", "Resource": "*"})


def for_memory(bucket: str, folder: str, partition: str) -> str:
    """The runner's memory: the objects below this folder of the bucket, and no older version of one."""
    objects = {
        "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        "Resource": _arn(f"{bucket}/{folder}*", partition),
    }
    return _policy(
        objects, {"Action": "s3:ListBucket", "Resource": _arn(bucket, partition)}, {"Action": "kms:*", "Resource": "*"}
    )


def for_secrets() -> str:
    """The runner's own look at secrets: at their values, and nothing that changes one."""
    return _policy({"Action": ["secretsmanager:GetSecretValue", "ssm:GetParameter", "kms:Decrypt"], "Resource": "*"})


def for_search() -> str:
    """The runner's own search for objects that no state knows: lists and tags, nothing that an object holds."""
    return _policy({"Action": list(SEARCH), "Resource": "*"})


def for_engine(bucket: str, partition: str, key: str, operation: Operation) -> str:
    """The engine and its providers: of the bucket of states only the unit's own, which a plan may not write, and no lock.

    Nor may they change the bucket: its policy or its replication would give away everybody's states.
    """
    itself = _arn(bucket, partition)
    elsewhere = {"Action": "*", "NotResource": [itself, _arn(f"{bucket}/*", partition)]}
    look = {"Action": list(LOOK), "Resource": itself}
    writes = operation is Operation.APPLY
    own = {"Action": list(WRITE if writes else READ), "Resource": _arn(f"{bucket}/{key}", partition)}
    return _policy(elsewhere, look, own)


def partition_of(role: str) -> str:
    """Of which of the clouds' parts a role is: `aws`, `aws-cn`, `aws-us-gov`."""
    return role.split(":")[1]


def _policy(*statements: Mapping[str, object]) -> str:
    allowed = [{"Effect": "Allow", **one} for one in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": allowed}, separators=(",", ":"))


def _arn(what: str, partition: str) -> str:
    return f"arn:{partition}:s3:::{what}"
