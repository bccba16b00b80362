"""The one way from the bare engine into its policies: a call by address.

What no class uses is then not compiled, and a change of a policy does not compile the engine again. numba links
everything a kernel calls into the kernel's own code and optimises it once more; a call by address ends that, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from simlab.draws.kernel import CACHE_FOLDER, kernel
from simlab.engine.world import World, gateway_of

# What is asked of the policies.
RECEIVE, AIM, PASSES, ARM, SETTLE, LET_GO, TIMER, PROMPT, HAND_IN, ROOM = range(10)

_SIGNATURE = "int64(int64, int64, int64, float64, int64, int64, int64)"


@intrinsic
def _call(
    typing_context: Any, address: Any, w: Any, what: Any, slot: Any, t: Any, x: Any, y: Any, z: Any
) -> Any:
    """Calls the function at an address with the C convention of `_SIGNATURE`."""
    i8, f8 = types.int64, types.float64

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word, double = ir.IntType(64), ir.DoubleType()
        kind = ir.FunctionType(word, [word, word, word, double, word, word, word])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return i8(i8, i8, i8, i8, f8, i8, i8, i8), generate


@kernel
def policy(w: World, what: int, slot: int, t: float, x: int, y: int, z: int) -> int:
    """Asks the policies; see `simlab.engine.policy.decide` for what they are asked and what they answer."""
    return int(_call(gateway_of(w).policy, w, what, slot, t, x, y, z))


@cache
def address() -> int:
    """Where the compiled policies are: in the cache, or compiled by another process while this compiles the rest."""
    if config.DISABLE_JIT:
        return 1
    if not any(CACHE_FOLDER.glob("**/policy.decide-*.nbi")) and (os.cpu_count() or 1) > 1:
        from simlab.engine import loop

        compile_policies = "from simlab.engine.hook import compiled; compiled()"
        # The cache knows kernels by their path: the other process must have them from here, not from where it starts.
        here = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-P", "-c", compile_policies]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": here}):
            loop.run.compile((types.int64, types.float64))  # type: ignore[attr-defined]
    return int(compiled().address)


def compiled() -> Any:
    """The policies as a C function, compiled here unless the cache has them."""
    from simlab.engine.policy import decide

    return numba.cfunc(_SIGNATURE, cache=True, error_model="numpy")(decide)


if config.DISABLE_JIT:

    def policy(w: World, what: int, slot: int, t: float, x: int, y: int, z: int) -> int:  # noqa: D103
        from simlab.engine.policy import decide

        return decide(w, what, slot, t, x, y, z)
