"""Signals at every system call of an operation, and every way in which a process can end around one."""
