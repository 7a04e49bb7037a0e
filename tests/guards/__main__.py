"""python -m tests.guards: take each guard out, layer by layer, and show who noticed.

python -m tests.guards --layers model,simulation,story      the fast ones
python -m tests.guards --guard fence                        one row, all layers
python -m tests.guards --write                              and write docs/guards.md
"""

from __future__ import annotations

import argparse
import json
import sys
from time import monotonic

from tests.guards import table
from tests.guards.layers import LAYERS, RED, extras, run
from tests.guards.registry import GUARDS
from tests.guards.schema_rows import schema_rows


def main(argv: list[str] | None = None) -> int:
    """0 when every row that was run has red in it."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description=__doc__)
    parser.add_argument("--layers", default=",".join(LAYERS), help="which layers, separated by commas")
    parser.add_argument("--guard", action="append", help="only this row (may be repeated)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="keep what was seen, and write docs/guards.md")
    told = parser.parse_args(argv)
    layers = told.layers.split(",")
    if unknown := set(layers) - set(LAYERS):
        parser.error(f"there is no layer {min(unknown)}; there are {', '.join(LAYERS)}")
    known = (*GUARDS, *extras())
    chosen = [guard for guard in known if not told.guard or guard.name in told.guard]
    if not chosen:
        parser.error(f"there is no guard {told.guard[0]}")
    now: table.Table = {}
    for layer in layers:
        began = monotonic()
        for name, cell in run(layer, chosen, lambda line: print(f"… {line}", file=sys.stderr)).items():
            now.setdefault(name, {})[layer] = cell
        print(f"  {layer}: {monotonic() - began:.0f} s", file=sys.stderr)
    whole = table.merged(table.seen(), now, known)
    if told.write:
        table.keep(whole)
        table.PAGE.write_text(table.written(table.PAGE.read_text(), table.rows(whole, known) + schema_rows()))
    silent = table.all_green(whole if told.write else now, chosen)
    if told.json:
        print(json.dumps({g: {layer: [c.word, c.sentence] for layer, c in cells.items()} for g, cells in now.items()}))
    else:
        print(table.rows(now, chosen))
        red = sum(cell.word == RED for cells in now.values() for cell in cells.values())
        print(f"{red} cells red; rows without red: {', '.join(silent) or 'none'}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
