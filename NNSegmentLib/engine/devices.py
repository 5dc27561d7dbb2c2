"""Which device computes, how its threads and memory are set, and what its failures mean."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F

from ..errors import OutOfMemoryError, SettingsError, counted
from ..machine import memory

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER = -1
_GPU_SHORT_OF_MEMORY = ("out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
"""Words of torch, of the CUDA driver and of its libraries, which allocate by themselves."""
_SHORT_OF_MEMORY = ("not enough memory", "can't allocate memory", "could not create a primitive")
"""Words of torch, and of oneDNN, whose kernels need memory of their own."""


def choose_device(name: str = "auto") -> torch.device:
    """The device for 'auto', 'cuda', 'cuda:1', 'mps' or 'cpu'; raises SettingsError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _mps_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device must be auto, cuda, cuda:N, mps or cpu, found {name!r}.") from error
    if device.type not in ("cuda", "mps", "cpu"):
        raise SettingsError(f"device must be auto, cuda, cuda:N, mps or cpu, found {name!r}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"There is no device {name} on this machine; it has {_listed()}.")
    if device.type == "mps" and not _mps_available():
        if torch.backends.mps.is_available():
            raise SettingsError(
                "This PyTorch cannot compute 3-D networks on Apple's graphics; install a newer one, or use device cpu."
            )
        raise SettingsError(f"There is no device mps on this machine; it has {_listed()}.")
    return device


def describe_devices() -> list[str]:
    """One line for each device that can compute here, the best first."""
    lines = [
        f"cuda:{i} {torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GB"
        for i in range(torch.cuda.device_count())
    ]
    lines += ["mps (Apple graphics)"] if _mps_available() else []
    bfloat = ", bfloat16 in hardware" if has_fast_bfloat16() else ""
    return [*lines, f"cpu with {cores()} cores{bfloat}"]


def in_words(device: torch.device, dtype: torch.dtype | None = None, count: int = 1) -> str:
    """A device, or several cards alike, within a sentence: 'the processor (2 cores, bfloat16)'."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        name = f"the graphics card {name}" if count == 1 else f"{count} graphics cards {name}"
        facts = [f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GB"]
    elif device.type == "mps":
        name, facts = "Apple's graphics", []
    else:
        name, facts = "the processor", [counted(cores(), "core")]
    facts += [] if dtype is None else [str(dtype).removeprefix("torch.")]
    return f"{name} ({', '.join(facts)})" if facts else name


def prepare_device(device: torch.device, threads: int = 0) -> None:
    """Set up this process for training: all cores (or `threads`), kept memory, TF32 and tuned convolutions."""
    torch.set_num_threads(threads or cores())
    torch.get_num_threads()  # this thread keeps the number now; else it takes that of a thread which sets its own first
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks instead of returning them to the system; whether that worked.

    Activations are freed and wanted again at every step; fetching them from the system each time, page by page, made
    a training step of the Hippocampus plan take 4.3 s instead of 2.3 s on two cores. With patches of 128³ more than
    2 GB are free at times, the largest amount that can be named, so none is ever returned.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    from_heap = mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_MAX, 0)  # some versions refuse a large threshold
    return bool(from_heap and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def gpu_memory_gb(device: torch.device) -> tuple[float, float] | None:
    """Free and total memory of a CUDA device in GB, without what torch keeps for later; None for other devices."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return free / 1e9, total / 1e9


def release_memory(device: torch.device) -> None:
    """Give freed blocks back, which earlier work of this process kept, so that they count as free again."""
    memory.release_freed()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A few values of the processor on a device; a CUDA GPU is not waited for, it takes them over at once."""
    return values.to(device, non_blocking=device.type == "cuda")


def half_precision(device: torch.device, wanted: bool = True) -> torch.dtype | None:
    """The short number type that makes convolutions faster on a device; None for full precision."""
    if not wanted:
        return None
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_fast_bfloat16() else None


def has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; elsewhere it is emulated, slower than full precision."""
    known = _capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


@lru_cache(maxsize=1)
def has_amx() -> bool:
    """Whether the processor has Intel's matrix unit for bfloat16."""
    return bool(_capabilities().get("amx_bf16"))


def _capabilities() -> Mapping[str, object]:
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Computation in `dtype` where that is safe; nothing for None."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextlib.contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn a device's or the system's lack of memory into OutOfMemoryError with `advice`."""
    try:
        with memory.memory_errors(advice):
            yield
    except RuntimeError as error:
        where = _short_of_memory(error)
        if not where:
            raise
        raise OutOfMemoryError(f"{where} does not suffice; {advice}.") from error


def _short_of_memory(error: RuntimeError) -> str:
    text = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError) or any(words in text for words in _GPU_SHORT_OF_MEMORY):
        return "The graphics memory"
    is_unsupported = "primitive descriptor" in text  # oneDNN's words for shapes that it cannot compute
    return "Main memory" if not is_unsupported and any(words in text for words in _SHORT_OF_MEMORY) else ""


def _mps_available() -> bool:
    return torch.backends.mps.is_available() and _mps_computes_networks()


@lru_cache(maxsize=1)
def _mps_computes_networks() -> bool:
    """Whether torch has the operations of our networks for Apple's graphics: older ones lack some in 3-D."""
    try:
        with torch.enable_grad():
            x = torch.ones((1, 1, 2, 2, 2), device="mps", requires_grad=True)
            up = F.conv_transpose3d(x, torch.ones((1, 1, 2, 2, 2), device="mps"), stride=2)
            F.avg_pool3d(F.conv3d(up, torch.ones((1, 1, 3, 3, 3), device="mps"), padding=1), 2).sum().backward()
    except RuntimeError:  # NotImplementedError is one
        return False
    return True


def _listed() -> str:
    return "; ".join(describe_devices())
