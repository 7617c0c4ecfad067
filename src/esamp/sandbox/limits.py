"""Limits of time, memory, processes, files and output for untrusted code."""

from pydantic import Field

from esamp.options import Options


class Limits(Options):
    """Limits of one check. CPU and memory are limits of each process; wall clock and output of all together."""

    wall_seconds: float = Field(default=15.0, ge=0.1, le=3600)
    """seconds from start to the hard kill of everything"""
    call_seconds: float | None = Field(default=None, ge=0.1, le=3600)
    """seconds that one request of the tests may take: a call, or a run of a program; None: no limit of its own"""
    cpu_seconds: int = Field(default=10, ge=1, le=3600)
    """seconds of CPU of one process"""
    memory_mib: int = Field(default=1024, ge=128, le=1 << 20)
    """MiB of address space of one process"""
    processes: int = Field(default=4, ge=1, le=1000)
    """processes and threads that may exist at once"""
    file_mib: int = Field(default=16, ge=1, le=1 << 16)
    """MiB of one file, and of the temporary folder as a whole"""
    output_kib: int = Field(default=256, ge=1, le=1 << 16)
    """KiB that may be printed"""
