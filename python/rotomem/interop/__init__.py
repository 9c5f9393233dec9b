"""Mattes into hosts without a live host: scripts and snippets that load plate and mattes there.

Everything that comes from users is quoted for the language it goes into (`quoting.py`).
"""
