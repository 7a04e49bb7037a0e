"""What every fake has: the pipeline of a request, keys, faults, the back door, durable storage, a clock of its own."""
