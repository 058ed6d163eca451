"""Adapters to the places where models live; one file per wire protocol."""
