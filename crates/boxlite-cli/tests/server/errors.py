"""What the published Python client makes of a start that is refused: errors.py URL BOX"""

import asyncio
import os
import sys
import traceback

import boxlite
from boxlite import Boxlite, BoxliteRestOptions

url, name = sys.argv[1:]


async def main():
    runtime = Boxlite.rest(BoxliteRestOptions(url=url))
    box = await runtime.get(name)
    for attempt in (box.start, lambda: box.exec("true")):
        try:
            await attempt()
        except boxlite.ResourceExhaustedError as error:
            # The figures: what is needed and what there is.
            assert "needs" in str(error) and "TiB" in str(error) and "iB" in str(error), error
        else:
            raise AssertionError("the start was not refused")
    assert (await runtime.get_info(name)).state.status == "configured"


# Ended at once: the client's own threads sometimes abort the interpreter while it takes itself down.
try:
    asyncio.run(main())
except BaseException:
    traceback.print_exc()
    os._exit(1)
sys.stdout.flush()
os._exit(0)
