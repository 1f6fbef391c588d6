"""Makes each system call of each operation fail, and kills the process at each, one at a time."""
