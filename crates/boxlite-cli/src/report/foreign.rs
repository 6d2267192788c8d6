//! Commands and options that Docker and Podman have and boxlite has not, and what to use instead.

/// Returns what to use instead of a command that other tools have; `None` for one that nobody has.
pub(super) fn instead_of(command: &str) -> Option<&'static str> {
    Some(match command {
        "build" | "buildx" | "builder" | "bake" => {
            "make images with `buildah` or `docker build`, save them, and take them in with `boxlite load`"
        }
        "manifest" => "boxlite pushes images of one platform; `skopeo` and `buildah` make indexes of several",
        "container" => {
            "the commands have no group: `boxlite run`, `boxlite ls`, `boxlite rm` and so on; `boxlite rm --all` removes the boxes that do not run"
        }
        "prune" => {
            "`boxlite gc --all` drops the images that no box uses, except those that no registry can give back"
        }
        "search" => "search on the registry's own page, then `boxlite pull IMAGE`",
        "compose" | "pod" | "kube" | "play" | "generate" => {
            "boxlite runs single boxes; start them by a script, or through `boxlite serve`"
        }
        "swarm" | "service" | "stack" | "config" | "secret" | "farm" => {
            "boxlite runs boxes of one host; a scheduler of your choice places them on several, and asks each `boxlite node check`"
        }
        "machine" | "init" | "daemon" => {
            "boxlite needs neither a machine nor a daemon: `boxlite run IMAGE` is enough"
        }
        "context" | "connection" => "--url or the variable BOXLITE_REST_URL name the server to work on",
        "healthcheck" => {
            "`boxlite run --health-cmd` has a box checked; `boxlite ls` and `boxlite inspect` show the result"
        }
        "mount" | "unmount" => "`boxlite cp` reaches a box's files, and `boxlite export` packs them",
        "volumes" => "`boxlite volume ls` lists the volumes",
        "networks" => "`boxlite network ls` lists the networks",
        "shell" | "sh" | "bash" => "`boxlite exec -it BOX sh` or `boxlite ssh BOX`",
        "ip" => "`boxlite inspect -f '{{.NetworkSettings.IPAddress}}' BOX`",
        "trust" => "images are verified by digest: name one as NAME@sha256:…",
        "plugin" => "boxlite has no plugins: volumes and networks are its own",
        _ => return None,
    })
}

/// Returns what to use instead of an option that other tools have, written `--NAME` or `-N`; `None` for one that nobody has.
pub(super) fn instead_of_option(option: &str) -> Option<&'static str> {
    Some(match option {
        "--gpus" | "--device" | "--device-cgroup-rule" => {
            "a box is a virtual machine and sees none of the host's devices; --nested lets it run virtual machines of its own"
        }
        "--group-add" => "a process has the groups that the box's /etc/group gives its user",
        "--sig-proxy" => "signals are passed on to the box, unless it has a terminal of its own",
        "--replace" => "remove the box of that name first: `boxlite rm -f NAME`",
        "--link" => {
            "boxes of one network reach each other by name: `boxlite network create NAME`, then --network NAME"
        }
        "--volumes-from" => {
            "give both boxes the same -v; a named volume has one box at a time that writes to it"
        }
        "--volume-driver" => "-v NAME:BOX mounts a named volume, which `boxlite volume create --size` bounds",
        "--pid" | "--uts" | "--userns" | "--cgroup-parent" | "--runtime" | "--isolation" => {
            "a box has a kernel of its own and shares no namespace with the host or with another box; leave it out"
        }
        "--kernel-memory" => "-m is all the memory of a box, whose own kernel deals with it",
        "--cpu-period" | "--cpu-quota" | "--cpuset-cpus" | "--cpuset-mems" => {
            "--cpus bounds a box's processor time, in fractions too"
        }
        "--storage-opt" | "--blkio-weight" | "--device-read-bps" | "--device-write-bps" => {
            "--disk-size, --disk-quota and --disk-io bound a box's disk"
        }
        "--mac-address" => {
            "a box has an Ethernet address that follows from its id; --ip chooses its address in a network"
        }
        "--domainname" => "--hostname takes a name with a domain",
        "--annotation" => "--label keeps a word with the box",
        "--password" | "-p" => {
            "--password-stdin reads the password, which on a command line everybody could see"
        }
        _ => return None,
    })
}
