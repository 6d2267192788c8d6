//! Hints on what to do about an error: by its cause where that is known, else by its kind and the command's topic.

use boxlite::settings::Bytes;
use boxlite::{Error, ErrorCause, ErrorKind};

/// The topic of a command; decides which hint helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// A box that should exist.
    Box,
    /// A box that should run.
    RunningBox,
    /// Files copied between a box and the host.
    Copy,
    /// The removal of a box.
    Removal,
    /// An image from its source.
    Image,
    /// An image that the home should have.
    ImageRemoval,
    /// An image on its way to a registry, or what a registry lets in.
    Push,
    /// An archive of images.
    Archive,
    /// Named volumes.
    Volume,
    /// A network.
    Network,
    /// A new box.
    NewBox,
    /// The start of a box.
    Start,
    /// The home or the host as a whole.
    Host,
    /// Serving the home.
    Serving,
    /// Garbage collection.
    Collection,
}

/// Returns the hints for an error, one line each.
pub(super) fn hints(error: &Error, topic: Topic) -> Vec<String> {
    if error.server().is_some() {
        return of_server(error.kind()).map(ToOwned::to_owned).into_iter().collect();
    }
    if let Some(cause) = error.cause() {
        return of_cause(cause, error.kind(), topic).map(ToOwned::to_owned).into_iter().collect();
    }
    let hint = match (error.kind(), topic) {
        (ErrorKind::ResourceExhausted, _) => return shortage(error),
        (ErrorKind::NotFound, Topic::NewBox) if error.path().is_some() => {
            "what oci:DIR, oci-archive:FILE or docker-archive:FILE names must exist"
        }
        (ErrorKind::NotFound, Topic::NewBox | Topic::Image) => {
            "check the image's name; `boxlite pull IMAGE` fetches one, oci:DIR, oci-archive:FILE and docker-archive:FILE name local ones"
        }
        (ErrorKind::NotFound, Topic::ImageRemoval | Topic::Push) => "`boxlite images` lists the images there are",
        (ErrorKind::NotFound, Topic::Volume | Topic::Network | Topic::Host | Topic::Serving | Topic::Collection | Topic::Copy | Topic::Archive)
        // The home of a server, which gc never collects from here.
        | (ErrorKind::Unsupported, Topic::Collection) => return Vec::new(),
        (ErrorKind::NotFound, _) => "`boxlite ls -a` lists the boxes there are",
        (ErrorKind::Conflict, Topic::NewBox) => {
            "choose another --name, or remove the other box with `boxlite rm`"
        }
        (ErrorKind::Conflict, Topic::ImageRemoval) => {
            "remove the boxes that use it first, or take all of its names away with `boxlite rmi -f`"
        }
        (ErrorKind::Conflict, Topic::Removal) => {
            "stop it with `boxlite stop`, or remove it as it runs with `boxlite rm -f`"
        }
        (ErrorKind::Conflict, Topic::RunningBox) => {
            "`boxlite start` starts it; `boxlite ls -a` shows its state"
        }
        (ErrorKind::Busy, _) => "another boxlite process is at work on it; try again in a moment",
        (ErrorKind::Unsupported, _) => {
            "`boxlite info` says what this host has and lacks; scripts/setup in boxlite's source installs what is missing"
        }
        (ErrorKind::Unavailable, Topic::Push | Topic::Image) => {
            "check the registry's name and the network; --insecure allows plain HTTP and untrusted certificates"
        }
        (ErrorKind::Unavailable, Topic::NewBox) => {
            "check the registry's name and the network; --insecure allows plain HTTP and untrusted certificates, --pull never uses only what is here"
        }
        (ErrorKind::Denied, _) => {
            "check who owns the path and how its filesystem is mounted; --home or BOXLITE_HOME name another home"
        }
        (ErrorKind::Corrupt, Topic::NewBox | Topic::Image) => {
            "what arrived or is stored is damaged and was not used; `boxlite pull` fetches an image anew"
        }
        // Without a path: nothing is wrong with the key's file, there is none.
        (ErrorKind::InvalidInput, Topic::Serving) if error.path().is_none() => {
            "--api-key-file FILE names a file with the key, --keys-file FILE one with several; without, --host is a loopback address"
        }
        (ErrorKind::Bug, _) => "this is a defect of boxlite; BOXLITE_LOG=debug shows what led to it",
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

/// Returns the hint for what the error is about; `None` where its sentence says all there is to say.
fn of_cause(cause: ErrorCause, kind: ErrorKind, topic: Topic) -> Option<&'static str> {
    let hint = match (cause, kind) {
        (ErrorCause::Credentials, _) => {
            "`boxlite login` keeps credentials; those that `docker login` and `podman login` left are used as well, and Docker's credential helpers"
        }
        (ErrorCause::Platform, _) => {
            "boxes run on the host's own processors; choose an image that is built for them"
        }
        (ErrorCause::LocalImage, _) => {
            "make it anew, with `skopeo copy` or `docker save` say; an image from a registry can be named instead"
        }
        (ErrorCause::Volume, ErrorKind::NotFound | ErrorKind::Conflict) if matches!(topic, Topic::Volume) => {
            "`boxlite volume ls` lists the volumes there are"
        }
        (ErrorCause::Volume, ErrorKind::NotFound) if matches!(topic, Topic::NewBox) => {
            "boxlite never creates a volume's directory or file: make it first, or mount a named volume, whose name has no slash (-v data:/x)"
        }
        (ErrorCause::Volume, ErrorKind::NotFound | ErrorKind::Conflict) => {
            "boxlite never creates a volume's directory or file; put it back where the box expects it, or make another box; `boxlite volume ls` lists named volumes"
        }
        (ErrorCause::Volume, ErrorKind::Denied) => {
            "share a directory that this user may read, or run boxlite as one who may"
        }
        (ErrorCause::Volume, _) => {
            "-v takes HOST:BOX[:ro][,U][,size=SIZE], where HOST is a directory or a file outside boxlite's home, or NAME:BOX[:ro] for a named volume"
        }
        (ErrorCause::VolumeInUse | ErrorCause::Network, ErrorKind::Busy) => {
            "another boxlite process is at work on it; try again in a moment"
        }
        (ErrorCause::VolumeInUse, _) => "`boxlite volume inspect NAME` lists the boxes that mount a volume",
        (ErrorCause::Network, ErrorKind::NotFound) => "`boxlite network ls` lists the networks there are",
        (ErrorCause::Tmpfs, _) => "--tmpfs takes BOX[:OPTIONS], as in --tmpfs /run:size=64m,mode=0755,exec",
        (ErrorCause::Port, ErrorKind::Denied) => "choose a port from 1024 on for the host, as in -p 8080:80",
        (ErrorCause::Port, ErrorKind::Conflict) => {
            "choose another port of the host, or give -p only the box's: one that is free is taken then"
        }
        (ErrorCause::Limit, _) => {
            "raise the setting if the image is trusted: `boxlite info` shows its value and where it is from"
        }
        (ErrorCause::Memory, _) => {
            "`boxlite info` shows the memory that boxes may have and were promised; `boxlite ls` lists those that run"
        }
        (ErrorCause::Trust, _) => {
            "`boxlite info` shows image_fetch_keys and image_fetch_from, the settings that say whose disk images count"
        }
        (ErrorCause::LogRun, _) => "without --run the log shows every run that it has; --run -1 is the last",
        _ => return None,
    };
    Some(hint)
}

/// Returns the hint for a server that cannot be used.
fn of_server(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Denied => Some("--api-key-file or the variable BOXLITE_API_KEY give the key"),
        ErrorKind::Unavailable | ErrorKind::Unsupported => Some(
            "`boxlite serve` on that host must run and be reachable; --url or BOXLITE_REST_URL say where it is",
        ),
        _ => None,
    }
}

fn shortage(error: &Error) -> Vec<String> {
    let figures = error.shortage().and_then(|shortage| Some((shortage, shortage.reclaimable?)));
    let gc = match figures {
        Some((_, 0)) => {
            "`boxlite gc` would free nothing now; `boxlite rm` unneeded boxes or free space otherwise"
                .to_owned()
        }
        Some((shortage, most)) if most < shortage.need.saturating_sub(shortage.have) => {
            "`boxlite gc` alone would not help; `boxlite rm` unneeded boxes or free space otherwise"
                .to_owned()
        }
        Some((shortage, most)) if shortage.inodes => format!("`boxlite gc` can free about {most} inodes"),
        Some((_, bytes)) => format!("`boxlite gc` can free about {}", Bytes(bytes)),
        None => "`boxlite gc` removes disk images that no box needs (`boxlite gc --dry-run` shows which)"
            .to_owned(),
    };
    vec![gc, "`boxlite system df` shows what takes the space".to_owned()]
}
