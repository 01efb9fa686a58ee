from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reconciler.config import ControllerConfig, RunnerConfig, load_controller, load_runner, show
from reconciler.config.fields import given
from reconciler.config.outofband import OutOfBand
from reconciler.errors import ConfigError, Place
from reconciler.model import EnvironmentClass, Operation
from reconciler.vetting import Waiver

GENESIS = "4b1d" * 10
CONTROLLER = f"""\
environments_repo:
  url: git@github.com:acme/environments.git
  branch: release/prod
  genesis: {GENESIS}
  poll_interval: 2m
  signatures: off
  ssh_key: keys/id
  known_hosts: /etc/known
catalog_repos:
  acme: {{url: "https://git.example/catalog.git", tags: "v*", allow_providers: [hashicorp/aws], exceptions: [],
         ca_file: ca.pem, token_file: token}}
store: {{path: /var/lib/reconciler/reconciler.db}}
executor: {{local: {{socket: /run/reconciler/runner.sock, workers: 8}}}}
http: {{listen: "[::1]:8080"}}
admin: {{socket: /run/reconciler/admin.sock, users: [root, ada]}}
installation: acme-prod
"""
LITTLE = """\
environments_repo: {url: /srv/environments.git, allow_file: true, signatures: off}
store: {path: journal.db}
executor: {local: {socket: runner.sock}}
"""
FARGATE = (
    "{fargate: {cluster: c, spool: 's3://acme-spool', tasks: {plan: p, apply: a}, subnets: [s], security_groups: [g]}}"
)
RUNNER = f"""\
environments_repo: {{url: "ssh://git@git.example/environments.git", genesis: {GENESIS}, signatures: off}}
catalog_repos: {{acme: {{url: "file:///srv/catalog.git", allow_file: true}}}}
memory: {{path: memory}}
allow:
  - {{operations: [plan, apply], refs: merged, folders: ["environments/prod/**", "environments/stage/**"]}}
  - {{operations: [plan], folders: ["environments/**"]}}
engine: {{binary: /usr/bin/tofu, version: "1.12.3", sha256: {"ab" * 32}}}
provider_mirror: {{path: /opt/providers}}
controller_uid: 991
environments:
  prod:
    class: protected
    backend: {{s3: {{bucket: acme-tfstate-prod, region: eu-west-1}}}}
    allowed_account_ids: ["111111111111"]
    max_destroy: 10
    readable_by: [stage]
    secrets: {{db_password: {{file: secrets/db}}}}
    env: {{AWS_ENDPOINT_URL: "http://127.0.0.1:5000"}}
    credentials: {{plan: {{static_file: plan.env}}, apply: {{static_file: apply.env}}}}
  stage:
    class: sandbox
    backend: {{local: {{path: states}}}}
"""


ROLE = "arn:aws:iam::111111111111:role/reconciler-plan"


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def controller(path: Path, **environ: str) -> ControllerConfig:
    return load_controller(path, environ)


def refused(load: Callable[[], Any], folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load()
    assert caught.value.reason == "ConfigInvalid"
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_whole_reconciler_yaml(file: Callable[[str], Path], tmp_path: Path) -> None:
    found = controller(file(CONTROLLER))
    repo = found.environments_repo
    assert (repo.url, repo.branch, repo.genesis) == ("git@github.com:acme/environments.git", "release/prod", GENESIS)
    assert (repo.poll_interval, repo.signatures) == (timedelta(minutes=2), "off")
    assert (repo.ssh_key, repo.known_hosts, repo.allow_file) == (tmp_path / "keys/id", Path("/etc/known"), False)
    acme = found.catalog_repos["acme"]
    assert (acme.ca_file, acme.token_file, acme.tags) == (tmp_path / "ca.pem", tmp_path / "token", "v*")
    assert (acme.allow_providers, acme.exceptions, acme.branch) == (["hashicorp/aws"], [], "main")
    assert found.store_path == Path("/var/lib/reconciler/reconciler.db")
    assert found.work_path == Path("/var/lib/reconciler/work")
    assert (found.local.socket, found.local.workers) == (Path("/run/reconciler/runner.sock"), 8)
    assert found.local.per_environment == 2
    assert found.http.address == ("::1", 8080)
    assert (found.admin_socket, found.admin.users) == (Path("/run/reconciler/admin.sock"), ["root", "ada"])
    assert found.installation == "acme-prod"


def test_a_store_in_a_table(file: Callable[[str], Path], tmp_path: Path) -> None:
    found = controller(file(LITTLE.replace("{path: journal.db}", "{dynamodb: {table: acme-reconciler}, lease: 30s}")))
    assert (found.store_place, found.lease_seconds) == ("dynamodb:acme-reconciler", 30.0)
    assert found.folder == Path("/var/lib/reconciler")
    assert (found.work_path, found.admin_socket) == (found.folder / "work", found.folder / "admin.sock")
    said = "{dynamodb: {table: t-1, region: eu-west-1, endpoint: 'http://127.0.0.1:5000', folder: here}}"
    table = controller(file(LITTLE.replace("{path: journal.db}", said)))
    assert table.folder == tmp_path / "here"
    assert table.store.dynamodb is not None
    assert (table.store.dynamodb.region, table.store.dynamodb.endpoint) == ("eu-west-1", "http://127.0.0.1:5000")


def test_a_reconciler_yaml_that_says_little(file: Callable[[str], Path], tmp_path: Path) -> None:
    found = controller(file(LITTLE))
    assert (found.store_path, found.work_path) == (tmp_path / "journal.db", tmp_path / "work")
    assert (found.admin_socket, found.admin.users) == (tmp_path / "admin.sock", ["root"])
    assert (found.http.address, found.installation) == (("127.0.0.1", 8080), "reconciler")
    assert (found.local.workers, found.local.per_environment, found.catalog_repos) == (4, 2, {})
    assert (found.local.memory, found.local.job_memory, found.local.per_account) == (None, 1024, None)
    assert controller(file(LITTLE + "work: ../w\n")).work_path == tmp_path.parent / "w"


def test_a_whole_runner_yaml(file: Callable[[str], Path], tmp_path: Path) -> None:
    found = load_runner(file(RUNNER))
    assert found.memory_path == tmp_path / "memory"
    assert (found.socket_path, found.work_path) == (tmp_path / "memory/runner.sock", tmp_path / "memory/work")
    first, second = found.rules
    assert first.operation_set == frozenset(Operation)
    assert second.operation_set == frozenset({Operation.PLAN})
    assert (first.refs, second.folders) == ("merged", ["environments/**"])
    assert not isinstance(found.engine, str)
    assert (found.engine.binary, found.engine.version, found.engine.sha256) == (
        Path("/usr/bin/tofu"),
        "1.12.3",
        "ab" * 32,
    )
    assert (found.provider_mirror_path, found.controller_uid) == (Path("/opt/providers"), 991)
    prod, stage = found.environments["prod"], found.environments["stage"]
    assert prod.backend.s3 is not None
    assert (prod.backend.s3.bucket, prod.backend.s3.region, prod.backend.s3.options) == (
        "acme-tfstate-prod",
        "eu-west-1",
        {},
    )
    assert (prod.environment_class, prod.max_destroy, prod.readable_by) == (EnvironmentClass.PROTECTED, 10, ["stage"])
    assert prod.secrets["db_password"].file == tmp_path / "secrets/db"
    assert prod.allowed_account_ids == ["111111111111"]
    assert prod.credentials.plan is not None
    assert prod.credentials.apply is not None
    assert prod.credentials.apply.static_file == tmp_path / "apply.env"
    assert (stage.environment_class, stage.max_destroy, stage.env) == (EnvironmentClass.SANDBOX, None, {})
    assert stage.backend.local is not None
    assert stage.backend.local.path == tmp_path / "states"
    assert stage.credentials.plan is None


@pytest.mark.parametrize("engine", ["auto", "embedded"])
def test_a_runner_yaml_that_says_little(file: Callable[[str], Path], tmp_path: Path, engine: str) -> None:
    found = load_runner(
        file(
            f"environments_repo: {{url: /srv/e.git, allow_file: true, signatures: off}}\nmemory: {{path: m}}\n"
            f"allow: []\nengine: {engine}\nenvironments: {{}}\nsocket: s\nwork: w\n"
        )
    )
    assert (found.engine, found.socket_path, found.work_path) == (engine, tmp_path / "s", tmp_path / "w")
    assert (found.provider_mirror_path, found.controller_uid, found.rules) == (None, None, ())


@pytest.mark.parametrize(
    ("words", "once"),
    [
        ("", False),
        ("providers: {verify: every_command}", False),
        ("sandbox: {tier: fallback}", True),
        ("sandbox: {tier: task}\nproviders: {}", True),
        ("sandbox: {tier: strict}\nproviders: {verify: once}", True),
        ("sandbox: {tier: strict}\nproviders: {verify: every_command}", False),
    ],
)
def test_packages_are_read_once_where_no_job_could_write_to_them(
    words: str, once: bool, file: Callable[[str], Path]
) -> None:
    assert load_runner(file(f"{RUNNER}{words}\n")).verifies_once is once


def test_what_a_bucket_may_say_besides(file: Callable[[str], Path]) -> None:
    text = RUNNER.replace("region: eu-west-1", "region: r, use_path_style: true, kms_key_id: k, endpoint: http://x")
    backend = load_runner(file(text)).environments["prod"].backend.s3
    assert backend is not None
    assert (backend.options, backend.endpoint) == ({"use_path_style": True, "kms_key_id": "k"}, "http://x")


def test_variables_win_over_the_file(file: Callable[[str], Path], tmp_path: Path) -> None:
    found = controller(
        file(LITTLE),
        RECONCILER_HTTP_LISTEN="127.0.0.1:9090",
        RECONCILER_EXECUTOR_LOCAL_WORKERS="16",
        RECONCILER_ENVIRONMENTS_REPO_POLL_INTERVAL="5s",
        RECONCILER_ENVIRONMENTS_REPO_URL="https://git.example/e.git",
        RECONCILER_ENVIRONMENTS_REPO_ALLOW_FILE="false",
        RECONCILER_ENVIRONMENTS_REPO_TOKEN_FILE="/run/secrets/token",
        RECONCILER_STORE_PATH="other.db",
        RECONCILER_INSTALLATION="x",
        RECONCILER_UNRELATED="y",
        HTTP_LISTEN="z",
    )
    assert (found.http.address, found.local.workers) == (("127.0.0.1", 9090), 16)
    assert found.environments_repo.poll_interval == timedelta(seconds=5)
    assert (found.environments_repo.url, found.environments_repo.allow_file) == ("https://git.example/e.git", False)
    assert found.environments_repo.token_file == Path("/run/secrets/token")
    assert (found.store_path, found.installation) == (tmp_path / "other.db", "x")


def test_a_variable_that_is_wrong_is_the_place(file: Callable[[str], Path], tmp_path: Path) -> None:
    path = file(LITTLE)
    assert refused(
        lambda: controller(path, RECONCILER_HTTP_LISTEN="x", RECONCILER_EXECUTOR_LOCAL_WORKERS="many"), tmp_path
    ) == [
        'RECONCILER_EXECUTOR_LOCAL_WORKERS: executor.local.workers: expected a whole number, not the string "many"',
        'RECONCILER_HTTP_LISTEN: http.listen: "x" is not an address (127.0.0.1:8080)',
    ]  # fmt: skip


def test_a_variable_changes_nothing_where_the_file_is_wrong(file: Callable[[str], Path], tmp_path: Path) -> None:
    path = file(LITTLE + "http: 8080\n")
    assert refused(lambda: controller(path, RECONCILER_HTTP_LISTEN="x:1"), tmp_path) == [
        "config.yaml:4:7: http: expected a mapping, not the number 8080"
    ]


def test_a_variable_cannot_say_what_is_not_supported_or_who_may_sign(file: Callable[[str], Path]) -> None:
    found = controller(
        file(LITTLE),
        RECONCILER_TRIGGER_LISTEN="127.0.0.1:1",
        RECONCILER_ENVIRONMENTS_REPO_SIGNATURES="x",
        RECONCILER_ENVIRONMENTS_REPO_SIGNATURES_ALLOWED_SIGNERS="x",
        RECONCILER_ENVIRONMENTS_REPO_FORGE_KIND="github",
    )
    assert (found.trigger, found.environments_repo.signatures, found.environments_repo.forge) == (None, "off", None)


CALLER = """{issuer: https://token.actions.githubusercontent.com, audience: us, subjects: ["repo:a/b:x"], claims: {repository_id: "7"}, scopes: [prod]}"""
CLIENT = "{name: ci, san: ci.example, scopes: [all]}"
GITHUB_ID = (
    "claims.repository_id is missing: GitHub lets a repository's name be taken by somebody else, its id not; add "
    'claims: {repository_id: "<number>"}'
)
TRIGGER_MISTAKES = [
    (f"listen: 0.0.0.0:8081, oidc: [{CALLER}]",
     "config.yaml:4:10: trigger: 0.0.0.0:8081 is reached from elsewhere, where tokens could be read; add tls, or listen on 127.0.0.1"),
    (f"oidc: [{CALLER}], clients: [{CLIENT}]",
     "config.yaml:4:10: trigger: clients show certificates; add tls.client_ca_file, which vouches for them"),
    (f"""oidc: [{CALLER.replace('"7"', '""')}]""", 'config.yaml:4:136: trigger.oidc[0].claims.repository_id: "" is not one line of text'),
    (f"""oidc: [{CALLER.replace('repository_id: "7"', 'ref: x')}]""", "config.yaml:4:18: trigger.oidc[0]: " + GITHUB_ID),
    (f"""oidc: [{CALLER.replace('"7"', 'acme')}]""", "config.yaml:4:18: trigger.oidc[0]: " + GITHUB_ID),
    (f"""oidc: [{CALLER.replace('token.actions.githubusercontent.com', 'ci.example').replace('repository_id: "7"', 'ref: x')}]""",
     "config.yaml:4:18: trigger.oidc[0]: " + GITHUB_ID),
    (f"""oidc: [{CALLER.replace('token.actions.githubusercontent.com', 'gitlab.example').replace('repo:', 'x:')}]""",
     "config.yaml:4:18: trigger.oidc[0]: " + GITHUB_ID.replace("repository_id", "project_id").replace("GitHub", "GitLab")),
    (f"""oidc: [{CALLER.replace('"repo:a/b:x"', '"repo:a/*"')}]""",
     "config.yaml:4:96: trigger.oidc[0].subjects: repo:a/* is a pattern; a subject is matched exactly: write each"),
    (f"""oidc: [{CALLER.replace('https://', 'http://')}]""",
     "config.yaml:4:27: trigger.oidc[0].issuer: no issuer; write its https:// address, as tokens say it in `iss`"),
]  # fmt: skip
CONTROLLER_MISTAKES = [
    ("", ["config.yaml: the file is empty; remove it or fill it in"]),
    ("a: [\n", [("config.yaml:1:5: this is not YAML: did not find expected node content; "
                "check the indentation and the quotes around here")]),
    ("stores: {}\n",
     ['config.yaml:1:1: the field "environments_repo" is missing; add it',
      'config.yaml:1:1: the field "store" is missing; add it',
      'config.yaml:1:1: the field "executor" is missing; add it',
      'config.yaml:1:1: unknown field "stores"; did you mean "store"?']),
    (LITTLE.replace("url: /srv/environments.git", "url: http://x/y"),
     [("config.yaml:1:26: environments_repo.url: no repository's address; "
      "write https://, ssh:// or user@host:path")]),
    (LITTLE.replace("url: /srv/environments.git", "url: https://me:pw@x/y"),
     [("config.yaml:1:26: environments_repo.url: an address holds no user or password; "
      "put the token into token_file")]),
    (LITTLE.replace("allow_file: true, ", ""),
     ["config.yaml:1:20: environments_repo: url is a folder of this host; say allow_file: true if that is meant"]),
    (LITTLE.replace(", signatures: off", ""),
     ['config.yaml:1:20: the field "signatures" is missing; add it']),
    (LITTLE.replace("signatures: off", "signatures: none"),
     ['config.yaml:1:79: environments_repo.signatures: expected off, not the string "none"']),
    (LITTLE.replace("signatures: off", "signatures: {pgp_keys: /etc/k}, genesis: " + GENESIS),
     [("config.yaml:1:20: environments_repo: pgp_keys needs `forge`: the forge's signature only proves that the forge made a commit; add "
      "`forge`, which says who approved it, or let people sign with allowed_signers")]),
    (LITTLE.replace("signatures: off", "signatures: {revoked_keys: /etc/k}"),
     ["config.yaml:1:79: environments_repo.signatures: nobody may sign; write allowed_signers, or pgp_keys for what the forge signs"]),
    (LITTLE.replace("signatures: off", "signatures: {allowed_signers: /etc/s}"),
     ["config.yaml:1:20: environments_repo: genesis is missing; add the commit where trust starts"]),
    (LITTLE.replace("signatures: off", "signatures: off, poll_interval: 30"),
     [("config.yaml:1:99: environments_repo.poll_interval: a duration is a number and s, m, h or d, at most 366d; "
      "write 30s or 6h")]),
    (LITTLE.replace("signatures: off", "signatures: off, forge: {kind: github, repository: a, token_file: t}"),
     ["config.yaml:1:91: environments_repo.forge: repository is not of its kind's form; write owner/name"]),
    (LITTLE.replace("signatures: off", "signatures: off, forge: {kind: github, repository: a/b/c, token_file: t}"),
     ["config.yaml:1:91: environments_repo.forge: repository is not of its kind's form; write owner/name"]),
    (LITTLE.replace("signatures: off", "signatures: off, forge: {kind: gitlab, repository: a, token_file: t}"),
     [("config.yaml:1:91: environments_repo.forge: repository is not of its kind's form; "
       "write group/name or group/subgroup/name")]),
    (LITTLE.replace("signatures: off", "signatures: off, forge: {kind: gitea, repository: a/b, token_file: t}"),
     [("config.yaml:1:91: environments_repo.forge: url is missing; write where your server is "
       "(https://git.example.com)")]),
    (LITTLE.replace("signatures: off", "signatures: off, forge: {kind: github, repository: a/b, url: http://git.example.com}"),
     ['config.yaml:1:91: the field "token_file" is missing; add it',
      ("config.yaml:1:128: environments_repo.forge.url: no address of a forge; write https://host, "
       "without user and password")]),
    (LITTLE.replace("{path: journal.db}", "{dynamodb: {table: t}}"),
     ['config.yaml:2:27: store.dynamodb.table: "t" is not a table\'s name']),
    (LITTLE.replace("{path: journal.db}", "{path: journal.db, dynamodb: {table: journal}}"),
     ["config.yaml:2:8: store: write exactly one of path, dynamodb"]),
    (LITTLE.replace("{path: journal.db}", "{dynamodb: {table: journal, endpoint: 'http://dynamodb.example.com'}}"),
     [("config.yaml:2:46: store.dynamodb.endpoint: no address of a service; write https://HOST (http only to this host itself), "
       "without path and user")]),
    (LITTLE.replace("{path: journal.db}", "{}"), ["config.yaml:2:8: store: write exactly one of path, dynamodb"]),
    (LITTLE.replace("{local: {socket: runner.sock}}", "{fargate: {cluster: c, spool: 's3://b', tasks: {plan: p}, subnets: [s], security_groups: [g]}}"),
     ['config.yaml:3:41: executor.fargate.spool: "s3://b" is not a folder of S3 (s3://acme-reconciler-spool/prod)',
      'config.yaml:3:58: the field "apply" is missing; add it']),
    (LITTLE.replace("{local: {socket: runner.sock}}", FARGATE.replace("}}", ", start_timeout: 5s}}")),
     ["config.yaml:3:139: executor.fargate.start_timeout: a task needs its time to start; write at least 30s"]),
    (LITTLE.replace("{local: {socket: runner.sock}}", FARGATE.replace("}}", ", endpoint: 'http://ecs.example.com'}}")),
     [("config.yaml:3:134: executor.fargate.endpoint: no address of a service; write https://HOST (http only to this host itself), "
       "without path and user")]),
    (LITTLE.replace("{local: {socket: runner.sock}}", FARGATE.replace("}}", "}, local: {socket: s}}")),
     ["config.yaml:3:11: executor: write exactly one of local, fargate"]),
    (LITTLE.replace("socket: runner.sock", "socket: runner.sock, workers: 0"),
     ["config.yaml:3:50: executor.local.workers: the number 0 is out of bounds; write at least 1"]),
    (LITTLE + "trigger: {listen: 127.0.0.1:8081, oidc: []}\n",
     ["config.yaml:4:10: trigger: nobody may call; add oidc or clients"]),
    *((LITTLE + f"trigger: {{{one}}}\n", [told]) for one, told in TRIGGER_MISTAKES),
    (LITTLE + "catalog_repos: {acme: {url: git@x:y, allowed_signers: /etc/s, path: x}}\n",
     [('config.yaml:4:63: unknown field "path"; known are allow_file, allow_providers, allowed_signers, branch, '
      "ca_file, exceptions, known_hosts, revoked_keys, ssh_key, tags, token_file, url")]),
    (LITTLE + "catalog_repos: {acme: {url: git@x:y, revoked_keys: /etc/r}}\n",
     ["config.yaml:4:23: catalog_repos.acme: revoked_keys without allowed_signers says nothing; write both"]),
    *(
        (LITTLE + f"catalog_repos: {{acme: {{url: git@x:y, exceptions: [{one}]}}}}\n", [told])
        for one, told in [
            ("{module: acme/vpc, rule: local-exec, reason: r}",
             'config.yaml:4:60: catalog_repos.acme.exceptions[0].module: "acme/vpc" is not <catalog>/<module>@<version>, one exact version'),
            ("{module: acme/vpc@1.0.0, rule: local-exec}", 'config.yaml:4:51: the field "reason" is missing; add it'),
            ("{module: acme/vpc@1.0.0, rule: module-source, reason: r}",
             "config.yaml:4:82: catalog_repos.acme.exceptions[0].rule: no exception lifts this rule: without it nothing else would hold; mend the module"),
            ("{module: other/vpc@1.0.0, rule: local-exec, reason: r}",
             "config.yaml:4:16: catalog_repos: other/vpc@1.0.0 is no module of the catalog acme; move the exception"),
        ]
    ),
    (LITTLE + 'work: ""\n', ["config.yaml:4:7: work: expected a path; write it as a string"]),
    (LITTLE + 'work: "a\\0b"\n', ["config.yaml:4:7: work: expected a path; write it as a string"]),
    (LITTLE + "installation: 'a b'\n",
     ['config.yaml:4:15: installation: "a b" is not a name (letters, digits, _, . and -)']),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problems"), CONTROLLER_MISTAKES)
def test_what_is_wrong_with_reconciler_yaml(
    file: Callable[[str], Path], tmp_path: Path, text: str, problems: list[str]
) -> None:
    path = file(text)
    assert refused(lambda: controller(path), tmp_path) == problems


RUNNER_MISTAKES = [
    (
        "memory: {path: memory}",
        "memory: {s3: {bucket: acme, region: eu-west-1}}",
        ["config.yaml:1:1: the file: memory.s3 needs a folder for what may be lost with the host: write `work`, outside of any other"],
    ),
    (
        "refs: merged",
        "refs: pulls",
        ["config.yaml:5:5: allow[0]: a pull request is planned, never applied; write operations: [plan]"],
    ),
    ("[plan, apply]", "[plan, aply]",
     [('config.yaml:5:25: allow[0].operations[1]: expected plan or apply, not the string "aply"; '
      'did you mean "apply"?')]),
    ('"environments/**"', '"**"',
     ['config.yaml:6:36: allow[1].folders[0]: "**" is not a pattern of paths (environments/prod/**)']),
    ("engine: {binary: /usr/bin/tofu, ", "engine: {", ['config.yaml:7:9: the field "binary" is missing; add it']),
    ("backend: {local: {path: states}}", "backend: {s3: {bucket: b, region: r, dynamodb_table: t}}",
     [("config.yaml:22:19: environments.stage.backend.s3: states are locked in the bucket itself, by <key>.tflock, and two locks could "
      "disagree: remove `dynamodb_table`, and write `use_lockfile = true` wherever else these states are used")]),
    ("backend: {local: {path: states}}", "backend: {local: {path: states}, s3: {bucket: b, region: r}}",
     ["config.yaml:22:14: environments.stage.backend: write exactly one of s3, local"]),
    ('["111111111111"]', "[111111111111]",
     [('config.yaml:14:27: environments.prod.allowed_account_ids[0]: 111111111111 is a number here; '
      'quote it: "111111111111"')]),
    ("{file: secrets/db}", "{ssm: /x, secretsmanager: arn}",
     ["config.yaml:17:28: environments.prod.secrets.db_password: write exactly one of file, secretsmanager, ssm"]),
    ("{static_file: plan.env}", "{assume_role: arn}",
     [('config.yaml:19:39: environments.prod.credentials.plan.assume_role: "arn" is not a role '
      "(arn:aws:iam::111111111111:role/reconciler-plan)")]),
    ("{static_file: plan.env}", f"{{assume_role: {{role: {ROLE}, duration: 5m}}}}",
     ["config.yaml:19:104: environments.prod.credentials.plan.assume_role.duration: a session lasts from 15m to 12h; write 1h"]),
    ("{static_file: plan.env}", f"{{assume_role: {{role: {ROLE}, source: {{assume_role: {ROLE}}}}}}}",
     [('config.yaml:19:103: unknown field "assume_role"; known are command, environment, profile, static_file, web_identity')]),
    ("{static_file: plan.env}", "{command: [vault, read]}",
     [("config.yaml:19:35: environments.prod.credentials.plan.command: write the program by its whole path, and each of its "
      "words by itself")]),
    ("{static_file: plan.env}", "{command: []}",
     [("config.yaml:19:35: environments.prod.credentials.plan.command: write the program by its whole path, and each of its "
      "words by itself")]),
    ("{static_file: plan.env}", "{profile: a, environment: {A: B}}",
     [("config.yaml:19:25: environments.prod.credentials.plan: write exactly one of static_file, assume_role, profile, "
      "web_identity, command, environment")]),
    ("{static_file: apply.env}", "{}",
     [("config.yaml:19:57: environments.prod.credentials.apply: write exactly one of static_file, assume_role, profile, "
      "web_identity, command, environment")]),
    ("max_destroy: 10", "max_destroy: -1",
     ["config.yaml:15:18: environments.prod.max_destroy: the number -1 is out of bounds; write at least 0"]),
    ("controller_uid: 991", "providers: {verify: once}",
     ["config.yaml:1:1: the file: providers.verify: without `sandbox` a job could write to the mirror: write `every_command`, or a sandbox"]),
    ("controller_uid: 991", "providers: {verify: never}", ['config.yaml:9:21: providers.verify: expected once or every_command, not the string "never"']),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "problems"), RUNNER_MISTAKES)
def test_what_is_wrong_with_runner_yaml(
    file: Callable[[str], Path], tmp_path: Path, right: str, wrong: str, problems: list[str]
) -> None:
    assert RUNNER.count(right) == 1
    path = file(RUNNER.replace(right, wrong))
    assert refused(lambda: load_runner(path), tmp_path) == problems


CREDENTIALS = [
    (f"assume_role: {ROLE}", "assume_role"),
    (f"assume_role: {{role: {ROLE}, duration: 30m, external_id: x, region: eu-west-1}}", "assume_role"),
    (f"assume_role: {{role: {ROLE}, source: {{environment: {{AWS_ACCESS_KEY_ID: A, AWS_SECRET_ACCESS_KEY: B}}}}}}", "assume_role"),
    ("profile: prod", "profile"),
    (f"web_identity: {{role: {ROLE}, token_file: token}}", "web_identity"),
    ("command: [/usr/bin/vault, read, prod]", "command"),
    ("environment: {ARM_CLIENT_SECRET: PROD_SECRET}", "environment"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), CREDENTIALS)
def test_ways_to_credentials(file: Callable[[str], Path], text: str, kind: str) -> None:
    found = load_runner(file(RUNNER.replace("static_file: plan.env", text))).environments["prod"].credentials.plan
    assert found is not None
    assert (found.kind, found.role.role if found.role else None) == (kind, ROLE if kind == "assume_role" else None)


def test_no_variable_wins_over_keys_from_the_endpoint(file: Callable[[str], Path], tmp_path: Path) -> None:
    text = RUNNER.replace("static_file: plan.env", "profile: prod")
    clash = text.replace("AWS_ENDPOINT_URL:", "AWS_PROFILE:")
    assert refused(lambda: load_runner(file(clash)), tmp_path) == [
        "config.yaml:12:5: environments.prod: AWS_PROFILE in `env` would win over credentials by profile; remove it"
    ]
    assert load_runner(file(clash.replace("AWS_PROFILE", "AWS_REGION"))).environments["prod"].env.keys() == {
        "AWS_REGION"
    }


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_runner(tmp_path / "runner.yaml")
    assert caught.value.place == Place(str(tmp_path / "runner.yaml"))
    assert str(caught.value).endswith("cannot be read: No such file or directory; check the path and who may read it")


def test_what_is_shown_hides_secrets(file: Callable[[str], Path], tmp_path: Path) -> None:
    shown = show(load_runner(file(RUNNER)))
    assert json.loads(json.dumps(shown)) == shown
    assert shown["environments"]["prod"]["env"] == {"AWS_ENDPOINT_URL": "(hidden)"}
    assert shown["environments"]["prod"]["class"] == "protected"
    assert shown["environments"]["prod"]["secrets"] == {"db_password": {"file": str(tmp_path / "secrets/db")}}
    assert show(controller(file(CONTROLLER)))["environments_repo"] == {
        "url": "git@github.com:acme/environments.git",
        "branch": "release/prod",
        "ssh_key": str(tmp_path / "keys/id"),
        "known_hosts": "/etc/known",
        "allow_file": False,
        "genesis": GENESIS,
        "poll_interval": "2m",
        "signatures": "off",
    }


def test_the_shown_configuration_is_a_configuration(file: Callable[[str], Path]) -> None:
    found = controller(file(CONTROLLER))
    assert controller(file(json.dumps(show(found)))) == found


def test_an_alternative_that_is_not_written_is_never_none() -> None:
    assert given("x") == "x"
    with pytest.raises(ConfigError, match="another alternative is configured"):
        given(None)


def test_facts_are_frozen(file: Callable[[str], Path]) -> None:
    found: RunnerConfig = load_runner(file(RUNNER))
    with pytest.raises(ValueError, match="frozen"):
        found.memory.path = Path("/elsewhere")


def test_exceptions_from_the_audit(file: Callable[[str], Path]) -> None:
    one = "{module: acme/vpc@1.0.0-rc.1, rule: local-exec, path: modules/vpc/main.tf, reason: looked at by Ann}"
    text = LITTLE + f"catalog_repos: {{acme: {{url: git@x:y, exceptions: [{one}]}}}}\n"
    (waiver,) = controller(file(text)).catalog_repos["acme"].waivers
    assert waiver == Waiver("acme/vpc", "1.0.0-rc.1", "local-exec", "looked at by Ann", "modules/vpc/main.tf")


def test_a_rule_that_does_not_exist(file: Callable[[str], Path], tmp_path: Path) -> None:
    text = (
        LITTLE + "catalog_repos: {acme: {url: git@x:y, exceptions: [{module: acme/v@1.0.0, rule: exec, reason: r}]}}\n"
    )
    path = file(text)
    (told,) = refused(lambda: controller(path), tmp_path)
    assert "no rule of the audit has this name; there are local-exec, remote-exec, " in told


QUEUE = {
    "queue_url": "https://sqs.eu-west-1.amazonaws.com/111111111111/trail",
    "region": "eu-west-1",
    "accounts": {"111111111111": ["prod"]},
    "allowed": ["arn:aws:iam::111111111111:role/reconciler-apply"],
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"queue_url": "http://sqs.eu-west-1.amazonaws.com/1/trail"}, "no address of a queue"),
        ({"queue_url": "https://me:pw@sqs.example.com/1/trail"}, "no address of a queue"),
        ({"queue_url": "https://sqs.example.com"}, "no address of a queue"),
        ({"endpoint": "http://sqs.example.com"}, "no address of SQS"),
        ({"endpoint": "https://sqs.example.com/path"}, "no address of SQS"),
        ({"accounts": {}}, "at least 1"),
        ({"accounts": {"111111111111": []}}, "at least 1"),
        ({"accounts": {"1": ["prod"]}}, "should match pattern"),
        ({"accounts": {"111111111111": ["Prod/x"]}}, "should match pattern"),
        ({"allowed": []}, "at least 1"),
        ({"allowed": ["reconciler-apply"]}, "should match pattern"),
        ({"break_glass": ["arn:aws:s3:::bucket"]}, "should match pattern"),
    ],
)
def test_what_is_wrong_with_a_queue_of_the_trail(changes: dict[str, object], said: str) -> None:
    OutOfBand.model_validate(QUEUE)
    OutOfBand.model_validate(QUEUE | {"endpoint": "http://127.0.0.1:4566", "allowed": ["autoscaling.amazonaws.com"]})
    with pytest.raises(ValidationError, match=said):
        OutOfBand.model_validate(QUEUE | changes)
