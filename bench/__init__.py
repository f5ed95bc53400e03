"""Process supervisors measured side by side on the same work; see docs/benchmarks.md."""
