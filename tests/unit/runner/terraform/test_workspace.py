"""The generated root: what it says, and what it refuses to say."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import UnitError
from reconciler.model import Commit, Digest, Pin, ProviderPin, UnitId
from reconciler.runner.terraform.module import ModuleInterface, Variable
from reconciler.runner.terraform.providers import Leaves
from reconciler.runner.terraform.workspace import RootSpec, Value, render_lock, render_root, write_root

REGISTRY = "registry.terraform.io"
AWS = ProviderPin("hashicorp/aws", "5.100.0", {REGISTRY: ("zh:b", "h1:a")})
RANDOM = ProviderPin("hashicorp/random", "3.6.0", {REGISTRY: ("h1:r",)})
PIN = Pin("acme/app", "1.0.0", "modules/app", "v1.0.0", Commit("0" * 40), Digest("sha256:0"), (AWS,))


def interface(
    *inputs: str, outputs: dict[str, bool] | None = None, providers: dict[str, str] | None = None
) -> ModuleInterface:
    variables = {name: Variable(None, required=False, sensitive=False) for name in inputs}
    return ModuleInterface(variables, outputs or {}, {"aws": "hashicorp/aws"} if providers is None else providers)


def spec(*inputs: str, **changes: Any) -> RootSpec:
    made = RootSpec(UnitId("prod/net/app"), "Acme", PIN, REGISTRY, interface(*inputs))
    return replace(made, **changes)


def rendered(made: RootSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    leaves = Leaves()
    return render_root(made, leaves), leaves.values


def resolved(node: Any, values: dict[str, Any]) -> Any:
    """The structure with its variables' values in place."""
    if isinstance(node, dict):
        return {k: resolved(v, values) for k, v in node.items()}
    if isinstance(node, list):
        return [resolved(v, values) for v in node]
    return values.get(node.removeprefix("${var.").removesuffix("}"), node) if isinstance(node, str) else node


def test_inputs_are_variables_and_nothing_else() -> None:
    made = spec("a", "b", inputs={"a": Value("${x}"), "b": Value([1], sensitive=True)})
    root, _ = rendered(made)
    assert root["variable"]["input_a"] == {"type": "any"}
    assert root["variable"]["input_b"] == {"type": "any", "sensitive": True}
    assert root["module"]["unit"]["a"] == "${var.input_a}"
    assert root["module"]["unit"]["source"] == "./catalog/modules/app"
    assert "${x}" not in json.dumps(root)


@pytest.mark.parametrize("name", ["count", "source", "providers", "for_each", "depends_on", "version", "x.y", "${a}"])
def test_input_that_the_module_does_not_declare_is_refused(name: str) -> None:
    with pytest.raises(UnitError, match="it has: cidr") as refused:
        rendered(spec("cidr", inputs={name: Value(0)}))
    assert refused.value.reason == "InputUnknown"


def test_outputs_are_exported_with_their_marks() -> None:
    made = spec(interface=interface(outputs={"a": False, "b": True, "c": False}), sensitive_outputs=frozenset({"c"}))
    root, _ = rendered(made)
    assert root["output"] == {
        "a": {"value": "${module.unit.a}"},
        "b": {"value": "${module.unit.b}", "sensitive": True},
        "c": {"value": "${module.unit.c}", "sensitive": True},
    }


def test_providers_aliases_and_tags() -> None:
    made = spec(
        interface=interface(providers={"aws": "hashicorp/aws", "aws.peer": "hashicorp/aws"}),
        providers={
            "aws": {"region": "eu-west-1", "default_tags": {"tags": {"team": "net"}}},
            "aws.us_east_1": {"region": "us-east-1", "assume_role": [{"role_arn": "arn"}]},
            "google": {"project": "unused"},
        },
        provider_map={"aws.peer": "aws.us_east_1"},
    )
    root, values = rendered(made)
    tags = {"reconciler:installation": "Acme", "reconciler:unit": "prod/net/app"}
    assert resolved(root["provider"], values) == {
        "aws": [
            {"region": "eu-west-1", "default_tags": {"tags": {"team": "net", **tags}}},
            {
                "region": "us-east-1",
                "assume_role": [{"role_arn": "arn"}],
                "default_tags": {"tags": tags},
                "alias": "us_east_1",
            },
        ]
    }
    assert root["terraform"]["required_providers"] == {"aws": {"source": "hashicorp/aws", "version": "5.100.0"}}
    assert root["module"]["unit"]["providers"] == {"aws": "aws", "aws.peer": "aws.us_east_1"}
    assert set(values) <= set(root["variable"])


def test_every_provider_of_aws_is_held_to_the_accounts_of_the_host_whatever_it_is_called() -> None:
    made = spec(
        interface=interface(
            providers={"aws": "hashicorp/aws", "amazon.peer": "hashicorp/aws", "random": "hashicorp/random"}
        ),
        providers={"aws": {}, "other": {"allowed_account_ids": ["222222222222"]}, "random": {}},
        provider_map={"amazon.peer": "other"},
        pin=replace(PIN, providers=(AWS, RANDOM)),
        accounts=("111111111111",),
    )
    root, values = rendered(made)
    blocks = resolved(root["provider"], values)
    assert blocks["aws"][0]["allowed_account_ids"] == ["111111111111"]
    assert blocks["other"][0]["allowed_account_ids"] == ["111111111111"]
    assert blocks["random"] == [{}]


def test_default_provider_may_be_an_alias_of_the_environment() -> None:
    made = spec(providers={"aws": {}, "aws.us_east_1": {"region": "us-east-1"}}, provider_map={"aws": "aws.us_east_1"})
    root, _ = rendered(made)
    assert [block.get("alias") for block in root["provider"]["aws"]] == ["us_east_1"]
    assert root["module"]["unit"]["providers"] == {"aws": "aws.us_east_1"}


def test_aws_is_tagged_even_where_nobody_configures_it() -> None:
    root, values = rendered(spec())
    assert resolved(root["provider"]["aws"], values)[0]["default_tags"]["tags"]["reconciler:unit"] == "prod/net/app"


def test_google_gets_labels_that_google_takes() -> None:
    google = ProviderPin("hashicorp/google", "6.0.0", {REGISTRY: ("h1:g",)})
    made = spec(
        pin=replace(PIN, providers=(google,)),
        interface=interface(providers={"google": "hashicorp/google"}),
        providers={"google": {"project": "p", "default_labels": {"team": "net"}}},
    )
    root, values = rendered(made)
    assert resolved(root["provider"]["google"], values)[0]["default_labels"] == {
        "team": "net",
        "reconciler-installation": "acme",
        "reconciler-unit": "prod_net_app",
    }


def test_provider_that_only_nested_modules_use_is_required_and_inherits_its_settings() -> None:
    made = spec(pin=replace(PIN, providers=(AWS, RANDOM)), providers={"random": {"seed": "x"}})
    root, _ = rendered(made)
    assert root["terraform"]["required_providers"]["random"] == {"source": "hashicorp/random", "version": "3.6.0"}
    assert list(root["provider"]["random"][0]) == ["seed"]
    assert "random" not in root["module"]["unit"]["providers"]


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"provider_map": {"aws": "aws.mars"}}, "ProviderMissing", "configures no provider 'aws.mars'; it has: aws"),
        ({"provider_map": {"gcp": "aws"}}, "ProviderMissing", "uses no provider 'gcp'; it uses: aws"),
        ({"interface": interface(providers={"aws.peer": "hashicorp/aws"})}, "ProviderMissing", "write `providers: {aws.peer:"),
        ({"interface": interface(providers={"x": "acme/x"})}, "ProviderNotLocked", "reconciler catalog add acme/app@1.0.0"),
        ({"providers": {"aws": {"alias": "x"}}}, "ProviderInvalid", "must not set 'alias'"),
        ({"providers": {"aws": {"${x}": 1}}}, "ProviderInvalid", "could be read as Terraform code"),
        ({"providers": {"aws": {"//": 1}}}, "ProviderInvalid", "could be read as Terraform code"),
        ({"providers": {"aws": {"t": [{"%{x": 1}]}}}, "ProviderInvalid", "providers.aws.t"),
        ({"pin": replace(PIN, path="../x")}, "CatalogPinInvalid", "no path of a module"),
        ({"pin": replace(PIN, path="a/${x}")}, "CatalogPinInvalid", "no path of a module"),
        ({"pin": replace(PIN, path="a/../../x")}, "CatalogPinInvalid", "no path of a module"),
        ({"backend": {"s3": {"bucket": "${x}"}}}, "BackendInvalid", "runner.yaml"),
    ],
)  # fmt: skip
def test_what_is_refused(changes: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(UnitError) as refused:
        rendered(spec(**{"providers": {"aws": {}}, **changes}))
    assert refused.value.reason == reason
    assert message in str(refused.value)


def test_two_providers_cannot_share_a_name() -> None:
    wanted = {"aws": "hashicorp/aws", "other": "hashicorp/random"}
    made = spec(pin=replace(PIN, providers=(AWS, RANDOM)), interface=interface(providers=wanted), providers={"aws": {}})
    with pytest.raises(UnitError, match="both be 'aws'"):
        rendered(replace(made, provider_map={"other": "aws"}))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('ab${}%"\\\n/é🦆'),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b_c", "d-e", "kubernetes.io/x"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["region", "endpoint", "x1"]), JSON, max_size=3), JSON)
def test_nothing_of_a_user_is_in_the_root(settings: dict[str, Any], value: Any) -> None:
    root, values = rendered(spec("i", inputs={"i": Value(value)}, providers={"aws": settings}))
    block = resolved(root["provider"]["aws"][0], values)
    assert {k: v for k, v in block.items() if k != "default_tags"} == settings
    for text in strings(root["provider"]) + strings(root["module"]):
        assert text.startswith(("${var.input_i}", "${var.setting_", "./catalog/modules/app", "aws"))


def strings(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for inner in node.values() for text in strings(inner)]
    if isinstance(node, list):
        return [text for inner in node for text in strings(inner)]
    return [node] if isinstance(node, str) else []


def test_lock_file() -> None:
    theirs = ProviderPin("example.com/acme/x", "1.0.0", {"example.com": ("h1:x",)})
    assert render_lock(replace(PIN, providers=(AWS, theirs)), REGISTRY) == (
        'provider "example.com/acme/x" {\n  version = "1.0.0"\n  hashes = [\n    "h1:x",\n  ]\n}\n\n'
        'provider "registry.terraform.io/hashicorp/aws" {\n  version = "5.100.0"\n  hashes = [\n    "h1:a",\n    "zh:b",\n  ]\n}\n'
    )


def test_registry_without_hashes_is_refused() -> None:
    with pytest.raises(UnitError, match=r"from registry\.opentofu\.org.*reconciler catalog add") as refused:
        render_lock(PIN, "registry.opentofu.org")
    assert refused.value.reason == "ProviderNotLocked"


def test_files_are_private_and_written_anew(tmp_path: Path) -> None:
    folder, tree, other = tmp_path / "work", tmp_path / "tree", tmp_path / "other"
    tree.mkdir()
    other.mkdir()
    write_root(folder, spec("a", inputs={"a": Value("old")}), other)
    (folder / "values.tfvars.json").chmod(0o644)
    write_root(folder, spec("a", inputs={"a": Value("new")}), tree)
    assert json.loads((folder / "values.tfvars.json").read_text())["input_a"] == "new"
    assert (folder / "catalog").resolve() == tree
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir() if f.is_file()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_imports_are_addresses_and_their_ids_are_values(tmp_path: Path) -> None:
    write_root(tmp_path / "work", spec(imports={'a.b["x"]': '${file("/etc/passwd")}', "a.a": "id"}), tmp_path)
    root = json.loads((tmp_path / "work" / "main.tf.json").read_bytes())
    values = json.loads((tmp_path / "work" / "values.tfvars.json").read_bytes())
    assert root["import"] == [
        {"to": "module.unit.a.a", "id": "${var.import_0}"},
        {"to": 'module.unit.a.b["x"]', "id": "${var.import_1}"},
    ]
    assert (values["import_0"], values["import_1"]) == ("id", '${file("/etc/passwd")}')
    assert root["variable"]["import_1"] == {"type": "string"}
    for wrong in ('a.b["${x}"]', "a.b.c", "a.b\n", "${a.b}", 'a.b["\\"]', "data.a.b"):
        with pytest.raises(UnitError, match="no address inside a module"):
            rendered(spec(imports={wrong: "id"}))
