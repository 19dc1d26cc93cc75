"""Receives parts of fields from clients, assembles samples and passes them to the reservoir."""
