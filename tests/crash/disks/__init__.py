"""Disks that are full, limited, taken away or broken: real ones, mounted for one test."""
