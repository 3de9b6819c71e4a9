"""This machine: folders and files that only this user may use, and processes: whose they are and when they end."""
