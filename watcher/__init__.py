"""Watches jobs on Huawei Cloud ModelArts DevServers until they finish."""

__version__ = "0.1.0"
