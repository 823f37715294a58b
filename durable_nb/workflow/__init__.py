"""Workflows and tasks: what users decorate, and how a call becomes a step."""
