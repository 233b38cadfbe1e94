"""A stand-in for the NVML library, as `pynvml` shows it: one GPU with a clock of its own."""

import os
from types import ModuleType, SimpleNamespace

import pynvml

UNINITIALIZED, INVALID_ARGUMENT, NOT_FOUND = 1, 2, 6
CODES = (1, 3, 4, 9, 12, 13, 15, 18, 77)
"""The codes that NVML is known to answer with where something isn't there, and one that nobody knows."""
CALLS = (
    "nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetTotalEnergyConsumption", "nvmlShutdown",
)  # fmt: skip


class StandInNvml(ModuleType):
    """Answers like a driver with one GPU: counters that move with time, memory, processes, and errors by code.

    Args:
        idle_w, busy_w: its power while nothing runs and while something does.

    Attributes:
        now_s, energy_mj: its clock and its counter; `sleep` and `work` let time pass.
        failing: name of a call → the code that it answers with.
        asked: the names of the calls, in order.
    """

    NVMLError = pynvml.NVMLError

    def __init__(self, idle_w: float = 70.0, busy_w: float = 270.0) -> None:
        super().__init__("pynvml")
        self.idle_w, self.busy_w = idle_w, busy_w
        self.now_s = 0.0
        self.failing: dict[str, int] = {}
        self.asked: list[str] = []
        self.uuid = "GPU-5ca1ab1e"
        self.total_bytes, self.others_bytes = 80 * 2**30, 2**30
        self.processes: dict[int, int | None] = {os.getpid(): 300 * 2**20}
        self.energy_mj = 5_000_000.0
        self._users = 0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self._pass(seconds, self.idle_w)

    def work(self, seconds: float = 0.01) -> None:
        self._pass(seconds, self.busy_w)

    def hold(self, more_bytes: int) -> None:
        """Let this process take more of the GPU's memory, or less."""
        own = os.getpid()
        if self.processes.get(own) is not None:
            self.processes[own] = (self.processes[own] or 0) + more_bytes
        else:
            self.others_bytes += more_bytes

    def _pass(self, seconds: float, power_w: float) -> None:
        self.now_s += seconds
        self.energy_mj += 1000 * power_w * seconds

    def _answer(self, call: str) -> None:
        self.asked.append(call)
        if call in self.failing:
            raise pynvml.NVMLError(self.failing[call])
        if self._users == 0 and call != "nvmlInit":
            raise pynvml.NVMLError(UNINITIALIZED)

    def nvmlInit(self) -> None:
        self._answer("nvmlInit")
        self._users += 1

    def nvmlShutdown(self) -> None:
        self._answer("nvmlShutdown")
        self._users -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._answer("nvmlDeviceGetHandleByIndex")
        if index != 0:
            raise pynvml.NVMLError(INVALID_ARGUMENT)
        return self.uuid

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._answer("nvmlDeviceGetHandleByUUID")
        if uuid != self.uuid:
            raise pynvml.NVMLError(NOT_FOUND)
        return uuid

    def nvmlDeviceGetName(self, handle: str) -> str:
        return self._of(handle, "nvmlDeviceGetName") and "A GPU"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        self._of(handle, "nvmlDeviceGetMemoryInfo")
        used = self.others_bytes + sum(held or 0 for held in self.processes.values())
        return SimpleNamespace(total=self.total_bytes, used=used, free=self.total_bytes - used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        self._of(handle, "nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in self.processes.items()]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self._of(handle, "nvmlDeviceGetTotalEnergyConsumption")
        return int(self.energy_mj)

    def _of(self, handle: str, call: str) -> str:
        self._answer(call)
        if handle != self.uuid:
            raise pynvml.NVMLError(INVALID_ARGUMENT)
        return handle


EVERY_FAILURE = [(call, code) for call in CALLS for code in CODES]
