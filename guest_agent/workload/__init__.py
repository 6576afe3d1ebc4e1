"""What the guest does all day: idle, churn, files."""

from guest_agent.workload.churn import Churn
from guest_agent.workload.files import Files
from guest_agent.workload.idle import Idle
from guest_agent.workload.objects import Objects
from guest_agent.workload.workload import Workload, WorkloadOptions

__all__ = ["WORKLOADS", "Churn", "Files", "Idle", "Objects", "Workload", "WorkloadOptions"]

WORKLOADS: dict[str, type[Workload]] = {workload.name: workload for workload in (Idle, Churn, Files)}
"""By the name that a person gives."""
