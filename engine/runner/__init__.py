"""The Ray runner: hands shards to pools of actors, survives the death of any of them, and bounds every retry.

Each actor takes whole shards through its pool's specialists; with one pool nothing but orders and counts goes through
Ray. That is 0.97 of the speed of two bare processes on two cores (benchmarks/engine.py, 300 photos), where Ray Data's
operators reach 0.67 to 0.84.
"""

from engine.runner.connection import calls_ray, cluster
from engine.runner.run import run_shards
from engine.runner.tasks import each_shard
from engine.runner.watcher import Watcher

__all__ = ["Watcher", "calls_ray", "cluster", "each_shard", "run_shards"]
