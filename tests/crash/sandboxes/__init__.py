"""Kernels, sandboxes and filesystems that lack a system call: an equal fallback or a refusal, never less."""
