"""What is deployed: KubeRay's manifest by its schema, and that the parts of it and of the image fit together."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from engine.config import load_config
from pipelines.build import build_pipeline

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "rayjob.yaml"
CRD = os.environ.get("KUBERAY_CRD")  # helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml of KubeRay


@pytest.fixture
def documents() -> list[Any]:
    return list(yaml.safe_load_all((ROOT / "deploy" / "rayjob.yaml").read_text()))


@pytest.fixture
def job(documents: list[Any]) -> Any:
    return json.loads(json.dumps(documents[1]))  # what shares an anchor is one object otherwise


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not CRD, reason="KUBERAY_CRD is not set"))])
def schema(request: pytest.FixtureRequest) -> Any:
    """Ours, and KubeRay's own where it is at hand."""
    if not request.param:
        return yaml.safe_load(GOLDEN.read_text())
    definition = yaml.load(Path(CRD or "").read_text(), yaml.CSafeLoader)
    (served,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    return closed(served["schema"]["openAPIV3Schema"])


def closed(schema: Any) -> Any:
    """A structural schema of Kubernetes as a JSON schema: what it does not name is a fault; integers may be words."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(result.get("properties"), dict) and "type" in result:
        result.setdefault("additionalProperties", False)
    if result.pop("x-kubernetes-int-or-string", False) is True:
        result.pop("type", None)
    return result


def faults(manifest: Any, schema: Any) -> list[str]:
    return [
        f"{fault.json_path}: {fault.message}" for fault in jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    ]


def test_the_manifest_is_a_rayjob(job: Any, schema: Any) -> None:
    assert faults(job, schema) == []


MUTATIONS = {
    "misspelt": ("spec.shutDownAfterJobFinishes", True),
    "of another kind": ("spec.backoffLimit", "2"),
    "no number of workers": ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", None),
    "unknown mode": ("spec.rayClusterSpec.authOptions.mode", "password"),
    "a word's place": ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
    "misspelt in a pod": ("spec.rayClusterSpec.headGroupSpec.template.spec.container", []),
    "misspelt in a container": (
        "spec.rayClusterSpec.workerGroupSpecs.1.template.spec.containers.0.resources.limit",
        {},
    ),
    "no quantity": (
        "spec.rayClusterSpec.workerGroupSpecs.1.template.spec.containers.0.resources.limits.memory",
        "16 gigabytes",
    ),
    "no path": ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.volumeMounts.0.mountPath", None),
}


@pytest.mark.parametrize("path, value", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_manifest_with_a_fault_is_none(job: Any, schema: Any, path: str, value: object) -> None:
    *way, last = [int(word) if word.isdigit() else word for word in path.split(".")]
    target: Any = job
    for word in way:
        target = target[word]
    if value is None:
        del target[last]
    else:
        target[last] = value
    assert len(faults(job, schema)) == 1


def pods(job: Any) -> Iterator[Any]:
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def test_what_pods_mount_and_read_is_there(documents: list[Any]) -> None:
    pipeline, job = documents
    for pod in pods(job):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        assert container["envFrom"] == [{"secretRef": {"name": "engine-store"}}]
        assert volumes["memory"]["emptyDir"]["medium"] == "Memory"
        assert pod["terminationGracePeriodSeconds"] > 30  # for so long Ray drains a node
    (head, *_) = pods(job)
    assert {"name": "pipeline", "configMap": {"name": pipeline["metadata"]["name"]}} in head["volumes"]


def test_the_entrypoint_is_a_command_of_ours_and_its_pipeline_one_that_can_be_built(
    documents: list[Any], tmp_path: Path
) -> None:
    from typer.main import get_command

    from engine.cli.commands import app

    pipeline, job = documents
    program, command, *words = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("engine", "run")
    run = get_command(app).commands["run"]  # type: ignore[attr-defined]
    given = run.make_context("run", words).params
    assert given["address"] == "auto"
    assert str(given["config"]).startswith("/etc/engine/")
    file = tmp_path / Path(given["config"]).name
    file.write_text(pipeline["data"][file.name])
    config = load_config(file)
    build_pipeline(config)
    assert_workers_fit(config.run.pools, job)


def assert_workers_fit(pools: Any, job: Any) -> None:
    """Each pool's workers on a machine of some group, and its least number on those that are there at first."""
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = {group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in groups}
    for name, pool in pools.items():
        limit = limits[name]
        assert pool.cpus <= int(limit["cpu"])
        assert pool.gpus <= int(limit.get("nvidia.com/gpu", 0))
        assert pool.memory_mb * 2**20 <= 0.9 * int(limit["memory"].removesuffix("Gi")) * 2**30
    assert {pool for pool in pools if pools[pool].gpus} == {"gpu"}


def test_the_image_and_the_manifest_have_one_ray(job: Any) -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    (pinned,) = re.findall(r"^ARG RAY=(.+)$", dockerfile, re.M)
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned


def test_all_that_is_installed_reaches_the_builder() -> None:
    """What .dockerignore lets through is what the package is made of."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {pattern.removesuffix("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_through == {*packages, "pyproject.toml", project["project"]["readme"], "LICENSE"}


def commands(program: str) -> list[list[str]]:
    """The words of every command of `program` in the guide, whatever is around it."""
    text = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S))
    found = re.findall(rf"(?:^|[ ]){program} ([a-z].*?)(?=\s#|\s&|$)", blocks, re.M)
    return [shlex.split(words.replace("$head", "host").replace("$SLURM_CPUS_PER_TASK", "16")) for words in found]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve, which Ray's command line imports
def test_every_command_of_the_guide_is_one() -> None:
    from ray.scripts.scripts import cli as ray
    from typer.main import get_command

    from engine.cli.commands import app

    engine = get_command(app)
    given = [(engine, words) for words in commands("engine")]
    for words in commands("ray"):
        given.append((ray.commands["job"], words[1:]) if words[0] == "job" else (ray, words))
    assert len(given) > 15
    for program, (name, *rest) in given:
        assert name in program.commands  # type: ignore[attr-defined]
        program.commands[name].make_context(name, rest)  # type: ignore[attr-defined]
