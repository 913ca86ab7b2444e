"""`flare-geo train` that is held once: held_run.py EPOCH RANK ARGUMENTS...

Before the second step of that epoch, counted from 0, the process of that rank says `held PID` on
standard output and waits for a line on standard input.
"""

import os
import sys

from flare_geo.cli.main import main
from flare_geo.train.module import SurrogateModule

step = SurrogateModule.training_step
epoch, rank = map(int, sys.argv[1:3])
seen = 0


def held(self, batch):
    global seen
    if self.current_epoch == epoch and self.trainer.global_rank == rank:
        seen += 1
        if seen == 2:
            print(f"held {os.getpid()}", flush=True)
            sys.stdin.readline()
    return step(self, batch)


if __name__ == "__main__":
    SurrogateModule.training_step = held
    sys.exit(main(["train", *sys.argv[3:]]))
