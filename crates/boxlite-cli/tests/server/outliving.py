"""A command of the published Python client whose server is killed meanwhile: outliving.py URL BOX SCRIPT

Says on the first line that output has begun to arrive, and at the end the exit code and all of the output.
"""

import asyncio
import json
import os
import sys
import traceback

from boxlite import Boxlite, BoxliteRestOptions

url, name, script = sys.argv[1:]


async def main():
    box = await Boxlite.rest(BoxliteRestOptions(url=url)).get(name)
    execution = await box.exec("sh", ["-c", script])
    output = ""
    async for piece in execution.stdout():
        if not output:
            print("began", flush=True)
        output += piece
    print(json.dumps([(await execution.wait()).exit_code, output]))


# Ended at once: the client's own threads sometimes abort the interpreter while it takes itself down.
try:
    asyncio.run(main())
except BaseException:
    traceback.print_exc()
    os._exit(1)
sys.stdout.flush()
os._exit(0)
