"""What is asked of each work: a ratio to the strongest peer, or else a share of the machine's peak, or a limit."""

from dataclasses import dataclass

MEMORY = 1.3  # bytes of a frozen step over the activations counted for it


@dataclass(frozen=True)
class Bar:
    ratio: float
    share_of_peak: float | None = None
    limit_s: float | None = None

    def __str__(self):
        text = f">= {self.ratio:g}x"
        if self.share_of_peak:
            text += f" or >= {self.share_of_peak:.0%} of peak"
        if self.limit_s:
            text += f" and <= {self.limit_s:g} s"
        return text

    def met(self, ratio: float, share: float, seconds: float) -> bool:
        fast = ratio >= self.ratio or (self.share_of_peak is not None and share >= self.share_of_peak)
        return fast and (self.limit_s is None or seconds <= self.limit_s)


BARS = {
    "nano-dmp": Bar(3.0),
    "nano-full": Bar(2.5),
    "nano-sample": Bar(2.5),
    "s2-dmp": Bar(1.25, share_of_peak=0.8),
    "s2-full": Bar(1.15, share_of_peak=0.8),
    "s2-sample": Bar(1.2, share_of_peak=0.8),
    "b2-dmp": Bar(1.15, limit_s=0.025),
    "b2-full": Bar(1.0),
    "b2-sample": Bar(1.2),
    "l2-dmp": Bar(1.15, limit_s=0.085),
    "xl2-dmp": Bar(1.15, limit_s=0.120),
    "frechet": Bar(2.0, limit_s=5.0),
}
