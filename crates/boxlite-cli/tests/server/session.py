"""A whole session of the published Python client against a server: session.py URL IMAGE DIRECTORY"""

import asyncio
import os
import sys
import traceback

import boxlite
from boxlite import Boxlite, BoxliteRestOptions, BoxOptions

url, image, scratch = sys.argv[1:]


async def lines(stream):
    return "".join([line async for line in stream])


async def output(execution):
    out, err = await asyncio.gather(lines(execution.stdout()), lines(execution.stderr()))
    return out, err, (await execution.wait()).exit_code


async def fails(error, awaitable, *parts):
    try:
        await awaitable
    except error as raised:
        assert all(part in str(raised) for part in parts), raised
    else:
        raise AssertionError(f"{error.__name__} was not raised")


async def main():
    runtime = Boxlite.rest(BoxliteRestOptions(url=url))
    assert await runtime.list_info() == []

    # Boxes: create, find, start.
    box = await runtime.create(BoxOptions(image=image, memory_mib=128, cpus=1, env=[("A", "b")]), name="one")
    assert (await runtime.get_info("one")).state.status == "configured"
    assert [info.name for info in await runtime.list_info()] == ["one"]
    assert await runtime.get("none") is None
    same, created = await runtime.get_or_create(BoxOptions(image=image), name="one")
    assert (same.id, created) == (box.id, False)
    await box.start()
    info = await runtime.get_info(box.id)
    assert info.state.running
    network = info.network
    assert (network.outbound.mode, network.inbound.mode, network.published_ports) == ("enabled", "enabled", []), network

    # Commands: streams apart, exit codes, environment, directory.
    assert await output(await box.exec("sh", ["-c", "echo out; echo err >&2; exit 3"])) == ("out\n", "err\n", 3)
    assert await output(await box.exec("sh", ["-c", "echo $A $K; pwd"], env=[("K", "v")], cwd="/tmp")) == ("b v\n/tmp\n", "", 0)
    await fails(boxlite.BoxliteError, box.exec("no-such-program"), "no-such-program")
    big = await output(await box.exec("seq", ["1", "100000"]))
    assert big[0] == "".join(f"{n}\n" for n in range(1, 100001)), len(big[0])

    # Standard input, its end, terminals, signals, the end by force and by the clock.
    cat = await box.exec("cat")
    stdin = cat.stdin()
    await stdin.send_input(b"hello\n")
    await stdin.send_input(b"x" * 300000 + b"\n")
    await stdin.close()
    assert (await output(cat))[0] == "hello\n" + "x" * 300000 + "\n"
    count = await box.exec("wc", ["-c"])
    stdin = count.stdin()
    await stdin.send_input(b"x" * (6 << 20))
    await stdin.close()
    assert (await output(count))[0].split() == [str(6 << 20)], "input was lost"
    tty = await box.exec("sh", ["-c", "read x; stty size"], tty=True)
    await tty.resize_tty(33, 101)
    await tty.stdin().send_input(b"\n")
    assert "33 101" in (await output(tty))[0]
    sleep = await box.exec("sleep", ["1000"])
    await sleep.signal(15)
    assert (await sleep.wait()).exit_code == 128 + 15
    sleep = await box.exec("sleep", ["1000"])
    await sleep.kill()
    assert (await sleep.wait()).exit_code == 128 + 9
    slow = await box.exec("sleep", ["1000"], timeout_secs=0.5)
    assert (await slow.wait()).exit_code == 128 + 9

    # Files.
    source = os.path.join(scratch, "in.txt")
    with open(source, "w", encoding="utf-8") as file:
        file.write("content")
    os.makedirs(os.path.join(scratch, "tree/deep"))
    with open(os.path.join(scratch, "tree/deep/file"), "w", encoding="utf-8") as file:
        file.write("deep")
    await box.copy_in(source, "/root/there.txt")
    await box.copy_in(os.path.join(scratch, "tree"), "/root/")
    assert (await output(await box.exec("cat", ["/root/there.txt", "/root/tree/deep/file"])))[0] == "contentdeep"
    back = os.path.join(scratch, "back.txt")
    await box.copy_out("/root/there.txt", back)
    with open(back, encoding="utf-8") as file:
        assert file.read() == "content"

    # Ports: a tunnel by hand, and one that listens here.
    echo = await box.exec("sh", ["-c", "busybox nc -ll -p 7000 -e cat & echo up; wait"])
    tunnel = await box.network.tunnel(7000)
    assert tunnel.uri().startswith("http://")
    for attempt in range(100):
        try:
            stream = await (await box.network.tunnel(7000)).connect()
            break
        except boxlite.BoxliteError:
            await asyncio.sleep(0.1)
    await stream.write(b"question")
    assert await stream.read(100) == b"question"
    await stream.close()
    await box.network.revoke_tunnel(7000)
    await fails(boxlite.BoxliteError, tunnel.connect())
    await echo.kill()

    # Figures and images.
    figures = await box.metrics()
    assert figures.commands_executed_total >= 8, figures
    # A guest on a busy machine may take longer than the server waits for it, and then says nothing.
    for _ in range(20):
        if figures.memory_bytes:
            break
        figures = await box.metrics()
    assert figures.memory_bytes > 0, figures
    assert (await runtime.metrics()).num_running_boxes == 1
    (info,) = await runtime.images.list()
    assert info.reference == image and info.id.startswith("sha256:"), info
    detail = await runtime.images.get(image.rsplit(":", 1)[0])
    assert detail.versions[0].digest == info.id and detail.aliases == ["1"], detail

    # What goes wrong has its own class.
    await fails(boxlite.AlreadyExistsError, runtime.create(BoxOptions(image=image), name="one"), "one")
    await fails(boxlite.InvalidStateError, runtime.remove("one"), "running")
    await fails(boxlite.NotFoundError, runtime.remove("none"), "none")
    await fails(boxlite.NotFoundError, box.copy_out("/none", os.path.join(scratch, "none")), "/none")
    await fails(boxlite.ImageError, runtime.create(BoxOptions(image=image + "none")))
    await fails(boxlite.ConfigError, runtime.create(BoxOptions(image="oci:/etc:x")), "--allow-path")
    await fails(boxlite.NotFoundError, box.snapshot.restore("none"), "none")
    await fails(boxlite.UnsupportedError, runtime.volumes.list(), "volumes")

    # A main process, attached to.
    main_box = await runtime.create(BoxOptions(image=image, memory_mib=128, cmd=["sh", "-c", "read x; echo got $x; exit 4"]), name="two")
    await main_box.start()
    attached = await main_box.attach()
    await attached.stdin().send_input(b"it\n")
    assert await output(attached) == ("got it\n", "", 4)
    await runtime.remove("two", force=True)

    # A snapshot of the running box, and back to it.
    taken = await box.snapshot.create(name="before")
    assert taken.name == "before" and taken.box_id == box.id, taken
    await box.exec("sh", ["-c", "echo spoilt >/root/there.txt"])
    assert [found.name for found in await box.snapshot.list()] == ["before"]
    assert (await box.snapshot.get("before")).size_bytes > 0
    assert await box.snapshot.get("after") is None
    await fails(boxlite.InvalidStateError, box.snapshot.restore("before"), "running")

    # Stopping, starting by exec, cloning, removing.
    await box.stop()
    await box.snapshot.restore("before")
    await box.snapshot.remove("before")
    assert await box.snapshot.list() == []
    assert (await runtime.get_info("one")).state.status == "stopped"
    clone = await box.clone_box(name="copy")
    assert (await output(await box.exec("cat", ["/root/there.txt"])))[0] == "content"
    assert (await output(await clone.exec("cat", ["/root/there.txt"])))[0] == "content"
    # A whole box as one file, and a box of it.
    archive = await box.export(dest=os.path.join(scratch, "one.boxlite"))
    moved = await runtime.import_box(archive, name="moved")
    assert (await runtime.get_info("moved")).state.status == "configured", await runtime.get_info("moved")
    await fails(boxlite.BoxliteError, runtime.import_box(archive, name="moved"), "moved")
    await runtime.remove("moved", force=True)
    await runtime.remove("copy", force=True)
    await runtime.remove("one", force=True)
    assert await runtime.list_info() == []
    assert (await runtime.images.usage()).count == 1
    await runtime.images.remove(image.rsplit(":", 1)[0])
    assert await runtime.images.list() == []
    print("done")


# Ended at once: the client's own threads sometimes abort the interpreter while it takes itself down.
try:
    asyncio.run(main())
except BaseException:
    traceback.print_exc()
    os._exit(1)
sys.stdout.flush()
os._exit(0)
