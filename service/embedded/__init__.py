"""Surroundings: real Postgres and Valkey as child processes of ours, for a machine that has neither."""
