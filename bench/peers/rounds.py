"""Rounds of ours and of every peer, one after the other, over and over: what slows the machine slows all of them."""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import work as works

HERE = Path(__file__).parent


class Peer:
    """A `peer.py` that waits for its rounds."""

    def __init__(self, work: str, variant: str, threads: int, device: str):
        command = [sys.executable, "-B", HERE / "peer.py", work, variant, "--threads", str(threads), "--device", device]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the peer `{variant}` of {work} did not start; run {' '.join(map(str, command))}")

    def round(self, seconds: float) -> float:
        """Milliseconds of a repetition, the median of a round."""
        print(seconds, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a peer ended: exit code {self.process.wait()}")
        return 1e3 * statistics.median(json.loads(answer))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ours(runner: Path, work: str, seconds: float, device: str) -> dict:
    """One round of `runner bench`."""
    command = [runner, "bench", "--json", "--work", work, "--seconds", str(seconds), "--device", device]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


@dataclass
class Comparison:
    """The rounds of one work: ours as `runner bench` says it, and the peers' milliseconds by variant."""

    work: str
    ours: list[dict] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=dict)

    def middle(self, name: str) -> float:
        """Median over the rounds of a field of ours."""
        return statistics.median(round[name] for round in self.ours)

    def peer(self, variant: str) -> float:
        return statistics.median(self.peers[variant])

    def ratio(self, variant: str) -> float:
        """Peer over ours, round by round; their median."""
        return statistics.median(t / round["step_ms"] for t, round in zip(self.peers[variant], self.ours))

    def strongest(self) -> str:
        return min(self.peers, key=self.peer)


def compare(runner: Path, work: str, rounds: int, seconds: float, device: str) -> Comparison:
    """Alternates ours with all variants of a work."""
    result = Comparison(work)
    first = ours(runner, work, 0.0, device)
    say(f"{work}: starting {', '.join(works.variants(work))}")
    peers = {variant: Peer(work, variant, first["threads"], device) for variant in works.variants(work)}
    result.peers = {variant: [] for variant in peers}
    for number in range(rounds):
        result.ours.append(ours(runner, work, seconds, device))
        line = [f"ours {result.ours[-1]['step_ms']:.1f}"]
        for variant, peer in peers.items():
            # The root of a non-symmetric matrix takes a minute and is never the strongest: once is enough.
            if variant != "sqrtm" or number == 0:
                result.peers[variant].append(peer.round(seconds))
                line.append(f"{variant} {result.peers[variant][-1]:.1f}")
        say(f"{work}: round {number + 1} of {rounds}, ms: {', '.join(line)}")
    for peer in peers.values():
        peer.close()
    return result


def say(text: str):
    print(text, file=sys.stderr, flush=True)
