"""The databases: one module each, found through entry points and loaded on use."""

from mer_flow.databases.registry import get_database

__all__ = ["get_database"]
