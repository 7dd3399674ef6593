"""A cluster of several nodes, each of them a raylet on this machine, of which one goes."""

from __future__ import annotations

import os

from clusters import ray_head, ray_nodes, raylet

from chaos.faults import Case
from chaos.memory import descendants


def raylet_of_several_killed(case: Case) -> None:
    """That of a node which works; the run goes on by itself on the one that is left."""
    worker = case.stage.worker
    assert worker
    with ray_head(os.environ | case.patched(), cpus=0) as head, ray_nodes(head, 2) as nodes:
        case.environment = dict(head.environment)
        case.settings = ("run.address=auto",)
        case.roots = tuple(nodes)
        process = case.start()
        case.in_the_middle(process)
        raylet(next(node for node in nodes if descendants(node, worker))).kill()
        assert case.end(process) == 0, case.said
    case.environment, case.settings, case.roots = {}, (), ()
