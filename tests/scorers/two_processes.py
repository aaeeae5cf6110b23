"""One of two processes: a scorer wrapped in DDP or FSDP2 gives the gradient of one process that sees both batches. Run by test_sharded."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from cupel.scorers import Groups, Scorer, ScorerError

helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
make, draw = helpers["make"], helpers["draw"]


def batch(rank: int) -> Groups:
    return draw([(9, [5, 3]), (4, [2, 7, 2])] if rank == 0 else [(6, [4, 4]), (12, [3, 1])], seed=rank)


def loss_of(scorer: Any, groups: Groups) -> Tensor:
    logp = scorer(groups).logp
    return torch.nn.functional.softplus(0.1 * (logp[groups.second] - logp[groups.first])).sum()


def gradients(model: Any) -> dict[str, Tensor]:
    def whole(x: Any) -> Tensor:
        return x.full_tensor() if hasattr(x, "full_tensor") else x

    return {name: whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}


def main(rank: int, port: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for family in ("llama", "qwen3"):  # untied and tied heads
        alone = Scorer(make(family))
        ((loss_of(alone, batch(0)) + loss_of(alone, batch(1))) / 2).backward()
        expected = gradients(alone)
        for layout in ("segments", "mask", "kv") if family == "llama" else ("segments",):
            for kind in ("ddp", "fsdp"):
                scorer: Any = Scorer(make(family), layout)
                inner = scorer
                if kind == "ddp":
                    scorer = torch.nn.parallel.DistributedDataParallel(scorer)
                else:
                    from torch.distributed.device_mesh import init_device_mesh
                    from torch.distributed.fsdp import fully_shard

                    mesh = init_device_mesh("cpu", (2,))
                    for layer in inner.model.model.layers:
                        fully_shard(layer, mesh=mesh)
                    fully_shard(scorer, mesh=mesh)
                if (kind, layout) == ("fsdp", "kv"):  # passes differ in number between processes: refused before anything is gathered
                    with pytest.raises(ScorerError, match="sharded"):
                        scorer(batch(rank))
                    print(family, kind, layout, "refused", flush=True)
                    continue
                loss_of(scorer, batch(rank)).backward()
                found = gradients(inner)
                assert found.keys() == expected.keys(), (kind, layout)
                worst = max(float((found[n] - g).norm() / g.norm()) for n, g in expected.items())
                assert worst < 1e-5, (family, kind, layout, worst)
                print(family, kind, layout, f"{worst:.1e}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
