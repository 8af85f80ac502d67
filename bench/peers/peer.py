"""One variant of one work, in a process of its own: reads a number of seconds a line, answers with the times of a round.

    python peer.py nano-dmp compiled --threads 2
"""

import argparse
import json
import sys
import time

import torch

import work


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work")
    parser.add_argument("variant")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", default="cpu", help="where tensors live (default: cpu)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_default_device(options.device)
    program = work.build(options.work, options.variant)
    program.warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        start, times = time.perf_counter(), []
        while not times or time.perf_counter() - start < float(line):
            times.append(work.seconds(program))
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
