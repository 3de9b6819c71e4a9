"""This machine: folders that only this user may use, processes and who they belong to."""
