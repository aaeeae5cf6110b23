"""One of two processes that train together, as torchrun starts them; run by test_policy_ranks. Arguments: options as JSON, one per run."""

from __future__ import annotations

import json
import sys

import torch

from cupel.errors import InputError
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.options import options_of


def main() -> None:
    torch.set_num_threads(1)
    for text in sys.argv[1:]:
        options = options_of(json.loads(text))
        try:
            train_policy(options)
        except InputError as error:
            print("refused:", error, flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
