"""Dirty logs: which pages were written since the last look."""

from host_migrator.dirty_log.cooperative import CooperativeDirtyLog
from host_migrator.dirty_log.deferred import DeferredClearLog
from host_migrator.dirty_log.interface import DirtyLog
from host_migrator.dirty_log.kernel import KernelDirtyLog, kernel_log_missing

__all__ = ["CooperativeDirtyLog", "DeferredClearLog", "DirtyLog", "KernelDirtyLog", "kernel_log_missing"]
