"""Helpers of the reproducibility companion for LLM-enhanced recommender systems."""

__version__ = "0.1.0"
