"""Plots of numbers, drawn by matplotlib."""
