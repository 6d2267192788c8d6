//! Commands that Docker and Podman have and boxlite has not, and what to use instead.

/// Returns what to use instead of a command that other tools have; `None` for one that nobody has.
pub(super) fn instead_of(command: &str) -> Option<&'static str> {
    Some(match command {
        "build" | "buildx" | "builder" | "bake" => {
            "make images with `buildah` or `docker build`, save them, and take them in with `boxlite load`"
        }
        "manifest" => "boxlite pushes images of one platform; `skopeo` and `buildah` make indexes of several",
        "image" => "use `boxlite images`, `boxlite pull`, `boxlite rmi` and `boxlite inspect`",
        "container" => "the commands have no group: `boxlite run`, `boxlite ls`, `boxlite rm` and so on",
        "search" => "search on the registry's own page, then `boxlite pull IMAGE`",
        "network" => {
            "each box has a network of its own: --network none takes it away, and -p forwards ports of the host"
        }
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
        "trust" => "images are verified by digest: name one as NAME@sha256:…",
        "plugin" => "boxlite has no plugins: volumes and networks are its own",
        "help" => "`boxlite --help` and `boxlite COMMAND --help` print help",
        _ => return None,
    })
}
