"""Fuzzing of the Python binding: any argument, any order of calls, in a jail.

A *play* (`plays.py`) is plain data: what is there at the start, one call of `atomik` with its arguments, and what is
then done with the guard it returned. hypothesis makes plays (`strategies.py`) in the process of the test. A worker
(`worker.py`, started by `jail.py`) performs them (`perform.py`, `verbs.py`, on a `stage.py`) and judges them (`run.py`,
`judge.py`, `versions.py`), one at a time. The worker is a program of its own, so that a play that aborts, hangs or
corrupts it is a failed example, which hypothesis then shrinks. It can write nowhere but to a tmpfs of its own: every
other mount is read-only to it.

A round takes some seconds. `ATOMIK_FUZZ_SECONDS=600 pytest -s tests/crash/fuzz -k documented` fuzzes for ten minutes,
shared equally among calls and sequences, root and nobody, and prints how many plays each of them tried and what they
came to.
"""
