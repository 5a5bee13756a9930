"""The guided sampler: which plan to try next, from what became of those before."""
