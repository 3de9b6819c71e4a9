"""Answers, from the backend to the screen."""
