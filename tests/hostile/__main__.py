"""`python -m tests.hostile`: tries hostile inputs of all kinds and prints what came of them."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.hostile.harness import OUTCOMES, SLOW_PATIENCE, harness
from tests.hostile.kinds import KINDS

_SLOW_SHARE = 10


def main() -> int:
    """Returns 1 if any case ended otherwise than refused or right."""
    p = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    p.add_argument("--cases", type=int, default=30, help="of each kind; a tenth of slow kinds")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--kind", choices=list(KINDS), nargs="+", default=list(KINDS))
    p.add_argument("--only", type=int, metavar="NUMBER", help="one case, and what was said")
    args = p.parse_args()
    print(f"{'kind':<20}{'inputs':>9}" + "".join(f"{o:>11}" for o in OUTCOMES) + f"{'longest':>10}")
    total = Counter[str]()
    with harness() as runner:
        for kind in args.kind:
            count, slowest, faults = Counter[str](), 0.0, []
            cases = max(args.cases // _SLOW_SHARE, 1) if KINDS[kind].slow else args.cases
            for number in range(cases) if args.only is None else [args.only]:
                patience = SLOW_PATIENCE if KINDS[kind].slow else 1
                outcome = runner.run(kind, args.seed, number, patience)
                count[outcome.what] += 1
                slowest = max(slowest, outcome.seconds)
                if args.only is not None or outcome.what not in OUTCOMES[:2]:
                    faults.append((number, outcome))
            _row(kind, count, f"{slowest:.1f} s")
            for number, outcome in faults:
                print(
                    f"  {outcome.what}: {outcome.case}, {outcome.seconds:.1f} s, {outcome.mib} MiB"
                )
                print(
                    f"    python -m tests.hostile --kind {kind} --seed {args.seed} --only {number}"
                )
                print("    " + outcome.said.strip().replace("\n", "\n    "), flush=True)
            total += count
    _row("all", total, "")
    return int(any(total[o] for o in OUTCOMES[2:]))


def _row(name: str, count: Counter[str], slowest: str) -> None:
    cells = "".join(f"{count[o]:>11,}" for o in OUTCOMES)
    print(f"{name:<20}{count.total():>9,}{cells}{slowest:>10}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
