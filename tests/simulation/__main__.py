"""`python -m tests.simulation`: see `run`."""

from tests.simulation.run import main

if __name__ == "__main__":
    raise SystemExit(main())
