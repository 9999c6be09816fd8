"""Receivers that are told of each transition; one file each, none knows another."""
