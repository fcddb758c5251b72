"""The shapes in the signatures of pool, selectors and memory are those that are handed over.

Checked in a process of its own, so that the other tests, and runs, are as fast as without.
"""

from __future__ import annotations

import subprocess
import sys

CHECKED = """
import sys
import types

import jaxtyping
from beartype import BeartypeConf, beartype

sys.modules["reader"] = types.ModuleType("reader")
sys.modules["reader"].read = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a number
jaxtyping.install_import_hook(["clsim.pool", "clsim.selectors", "clsim.memory"], "reader.read")

import torch

from clsim.checks.samples import clusters, pool_of
from clsim.memory.buffer import Buffer
from clsim.pool.gradients import Gradients
from clsim.pool.pool import Cost
from clsim.spec import components, registry
from clsim.spec.tables import MemorySpec

wrong = []
for name in components.COMPONENTS["selectors"]:
    for pool in (pool_of(*clusters(40, seed=1)), pool_of(*clusters(40, seed=1), beside=True)):
        try:
            registry.component("selectors", name)(pool, 7, rng=torch.Generator().manual_seed(0))
        except jaxtyping.TypeCheckError as error:
            wrong.append(f"{name}: {error}")
if wrong:
    sys.exit("\\n".join(wrong))

for update in ("batch", "experience"):
    spec = MemorySpec(buffer="craig", capacity=12, update=update, batch_size=4)
    select = registry.component("buffers", "craig")
    memory = Buffer(spec, select, rng=torch.Generator().manual_seed(0), cost=Cost(), retrieve=select)
    pool = pool_of(*clusters(40, seed=1))

    def make_pool(samples, *, reference=None, incoming=None):
        made = pool_of(samples.x, samples.y, reference=reference)
        made.data = samples
        return made

    for start in range(0, 40, 10):
        memory.after_batch(pool.data[start : start + 10], 4, make_pool)
    memory.after_experience(pool.data, 4, make_pool, reference=pool.data)
    memory.revise(memory.sample(pool.data[:2], make_pool).rows, soft=torch.zeros(4, 4))
    memory.load_state_dict(memory.state_dict(), torch.device("cpu"))

try:
    Gradients(torch.zeros(3, 2), torch.zeros(4, 2))
except jaxtyping.TypeCheckError as error:
    print("refused")
"""


def test_shapes_are_what_the_signatures_say() -> None:
    found = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout == "refused\n"
