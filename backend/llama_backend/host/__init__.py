"""This machine: folders that only this user may use, and processes and whom they belong to."""
