//! The operations of the façade: each signature and its documentation, written once.
//!
//! Each trait below is one topic. A macro makes it the contract of both backends, whose futures must be `Send`, and
//! gives [`Runtime`] one method per operation, which asks its backend. An operation on one box becomes a method of
//! [`LiteBox`] as well, without the id.
//!
//! `id` is a name, an id or a unique prefix of an id throughout.

use std::path::PathBuf;
use std::sync::Arc;

use boxlite_types::gc::{DiskTree, Explanation};
use boxlite_types::{
    Activity, Adoption, Allotment, ArchiveFormat, AttachedExecution, BoxExportOptions, BoxImportOptions,
    BoxInfo, BoxOptions, CloneOptions, CommitOptions, Consumption, CopyOptions, DiskImageFetch,
    DiskImageFetchOptions, DiskImagePush, DiskImagePushOptions, EventOptions, EventPage, ExecOptions,
    Execution, ExecutionState, ExitStatus, FileChange, GcOptions, GcReport, GuestProcesses, HistoryEntry,
    HoldTerms, HostInfo, Image, ImportedBox, ListOptions, LogLine, LogOptions, Login, Logout, NetworkInfo,
    NetworkOptions, NetworkPrune, NodeCheck, ProgressSink, PullOptions, Purge, PushOptions, Removal,
    RemoveOptions, RestoreOptions, Result, SeatOptions, Snapshot, SnapshotOptions, StopOptions,
    UpdateOptions, Usage, VolumeInfo, VolumeOptions, VolumePrune, WindowSize,
};
use futures::stream::BoxStream;
use tokio::io::AsyncRead;

use super::litebox::LiteBox;
use super::{Runtime, RuntimeBackend, Tunnel};

/// A tar archive on its way into a box or out of it.
pub type TarStream = Box<dyn AsyncRead + Send + Unpin>;

/// An archive of images.
pub enum ArchiveInput {
    /// A file of this host, or the directory of an OCI layout.
    File(PathBuf),
    /// Its bytes as they come, perhaps compressed.
    Stream(TarStream),
}

/// The lines of a box's log, as they come.
pub type LogStream = BoxStream<'static, Result<LogLine>>;

/// Declares operations on a home: a trait for the backends, and the methods of [`Runtime`].
macro_rules! home_operations {
    (
        $(#[$about:meta])*
        trait $topic:ident {
            $($(#[$doc:meta])* async fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $output:ty;)*
        }
    ) => {
        $(#[$about])*
        pub(super) trait $topic {
            $($(#[$doc])* fn $name(&self $(, $argument: $type)*) -> impl Future<Output = $output> + Send;)*
        }

        impl Runtime {
            $($(#[$doc])*
            pub async fn $name(&self $(, $argument: $type)*) -> $output {
                match &*self.backend {
                    // Boxed, because the future of a start is large.
                    RuntimeBackend::Local(local) => Box::pin(local.$name($($argument),*)).await,
                    RuntimeBackend::Remote(remote) => Box::pin(remote.$name($($argument),*)).await,
                    RuntimeBackend::Fleet(fleet) => Box::pin(fleet.$name($($argument),*)).await,
                }
            })*
        }
    };
}

/// Declares operations on a home of which several servers have one each: as [`home_operations`], and refused by a fleet.
macro_rules! single_home_operations {
    (
        $(#[$about:meta])*
        trait $topic:ident {
            $($(#[$doc:meta])* async fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $output:ty;)*
        }
    ) => {
        home_operations! {
            $(#[$about])*
            trait $topic {
                $($(#[$doc])* async fn $name(&self $(, $argument: $type)*) -> $output;)*
            }
        }

        impl $topic for super::fleet::Fleet {
            $(async fn $name(&self $(, $argument: $type)*) -> $output {
                $(let _ = $argument;)*
                Err(self.names_several())
            })*
        }
    };
}

/// Declares operations on one box: as [`home_operations`] with an `id` in front, the methods of [`LiteBox`], and how a fleet
/// passes them on to the server that has the box.
///
/// What follows an `@` is a demand of a fleet's on the box that it found: `@without_doubt` marks what cannot be undone.
macro_rules! box_operations {
    (
        $(#[$about:meta])*
        trait $topic:ident {
            $($(#[$doc:meta])* $(@ $demand:ident)? async fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $output:ty;)*
        }
    ) => {
        home_operations! {
            $(#[$about])*
            trait $topic {
                $($(#[$doc])* async fn $name(&self, id: &str $(, $argument: $type)*) -> $output;)*
            }
        }

        impl $topic for super::fleet::Fleet {
            $(async fn $name(&self, id: &str $(, $argument: $type)*) -> $output {
                let found = self.locate(id).await?;
                $(found.$demand()?;)?
                found.remote.$name(&found.id $(, $argument)*).await
            })*
        }

        impl LiteBox {
            $($(#[$doc])*
            pub async fn $name(&self $(, $argument: $type)*) -> $output {
                self.runtime().$name(self.id() $(, $argument)*).await
            })*
        }
    };
}

single_home_operations! {
    /// The host, its home, and what they hold.
    trait HostOperations {
        /// Describes this host and its home: what boxes need of it, free space, settings in force.
        async fn info(&self) -> Result<HostInfo>;

        /// Removes what no box needs, and only what is provably unneeded; with `dry_run`, reports what it would remove.
        ///
        /// The report names anything that could not be read or removed, and [`GcReport::failed`] then says so; the rest
        /// is still collected. Works with 0 bytes and 0 inodes free, beside any number of starts.
        ///
        /// # Errors
        /// `Unsupported` on a remote runtime: a host's disk is collected on that host.
        async fn collect_garbage(&self, options: GcOptions) -> Result<GcReport>;

        /// Tells whether boxes should be placed on this host: measures disk, claims and memory, and looks at no box.
        ///
        /// With `reclaimable`, also what gc could free, which takes milliseconds per thousand boxes and waits for a pass that
        /// runs. A figure that cannot be had is absent, and leads to a warning.
        ///
        /// # Errors
        /// `Unsupported` on a remote runtime: a node is checked on that host.
        async fn check_node(&self, reclaimable: bool) -> Result<NodeCheck>;

        /// Tells what a box may have that is to use all that this process may: processors, and memory where a control group
        /// bounds it.
        ///
        /// # Errors
        /// `ResourceExhausted` where the bound leaves too little for any box; `Unsupported` on a remote runtime.
        async fn allotment(&self) -> Result<Allotment>;

        /// Gives a box that the database does not know its record back, from the `box.json` in its directory; a box that
        /// has its record is left as it is. `id` is the directory's name, or a beginning that only one has.
        ///
        /// A name that is taken meanwhile is replaced by a made-up one, and a box that was to remove itself stays: the
        /// notices say so.
        ///
        /// # Errors
        /// `NotFound` for an unknown directory, or one without a `box.json`; `Corrupt` when that contradicts the box's
        /// disk; `Busy` while processes of the box are alive; `Unsupported` on a remote runtime.
        async fn adopt(&self, id: &str) -> Result<Adoption>;

        /// Removes for good what nothing explains and gc therefore keeps: the directory of a box without a record, or a
        /// base, by its name in full. The data cannot be made again.
        ///
        /// # Errors
        /// `Conflict` for a box that has its record (remove it instead) and while something stands on the disk;
        /// `NotFound`; `Busy` while another process is working on it; `Unsupported` on a remote runtime.
        async fn purge(&self, id: &str) -> Result<Purge>;

        /// Declares that home and database belong together although their ids differ (a restored database): gc believes
        /// its records again.
        ///
        /// # Errors
        /// `Unsupported` on a remote runtime.
        async fn adopt_home(&self) -> Result<()>;

        /// Explains what becomes of an image's disk image, a box's directory or a base: who pins it, by which source,
        /// until when; of a box or base, also what it needs. Changes nothing.
        ///
        /// `name` is as for [`Runtime::image`] and [`Runtime::inspect`], or what `gc` lists: the name of a file, or the
        /// digest of a disk image, or the beginning of one.
        ///
        /// # Errors
        /// `NotFound` when nothing that gc judges has the name; `Unsupported` on a remote runtime.
        async fn explain_garbage(&self, name: &str) -> Result<Explanation>;

        /// Measures what takes how much of the disk, in allocated bytes, by kind, box and image.
        async fn disk_usage(&self) -> Result<Usage>;

        /// Measures the same as a tree that adds up to all that the home allocates, each file with why it is there or what
        /// gc would do with it.
        ///
        /// # Errors
        /// `Denied` through a server to a key that sees its own boxes alone.
        async fn disk_tree(&self) -> Result<DiskTree>;

        /// Reads what has happened in the home, as far as its bounded log still has it. Who follows it asks again with the
        /// position of the last page.
        async fn events(&self, options: EventOptions) -> Result<EventPage>;

        /// Counts what this runtime has done since it was opened; of a remote one, what its server has done.
        async fn activity(&self) -> Result<Activity>;
    }
}

single_home_operations! {
    /// Images.
    trait ImageOperations {
        /// Fetches and verifies an image; what the home already has is not fetched again.
        ///
        /// `reference` is as Docker users write it, or `oci:DIR[:tag]`, `oci-archive:FILE`, `docker-archive:FILE`.
        ///
        /// # Errors
        /// `NotFound`, `Denied`, `Unavailable`, `Corrupt`, and `ResourceExhausted`, after which everything that was
        /// written is removed again.
        async fn pull(&self, reference: &str, options: PullOptions, progress: Arc<dyn ProgressSink>) -> Result<Image>;

        /// Lists all images, the one pulled last first.
        async fn images(&self) -> Result<Vec<Image>>;

        /// Finds the image of that reference, digest or unique digest prefix.
        async fn image(&self, wanted: &str) -> Result<Image>;

        /// Takes a name from an image, and the image out of the catalogue with its last name; `gc` frees the bytes.
        ///
        /// # Errors
        /// `Conflict` without `force` when a box uses the image.
        async fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removal>>;

        /// Gives an image one more name, even if that named another before.
        ///
        /// # Errors
        /// `InvalidInput` for a name that cannot be given: of files, or with a digest.
        async fn tag(&self, wanted: &str, name: &str) -> Result<Image>;

        /// Lists the steps in which an image was made, as its author recorded them, the last one first.
        async fn history(&self, wanted: &str) -> Result<Vec<HistoryEntry>>;

        /// Sends an image to the registry that `target` names, or that `wanted` names itself. Blobs that are there are
        /// not sent, and the image is visible there only once all of it has arrived.
        ///
        /// # Errors
        /// `Denied`, `Unavailable`; `InvalidInput` where no registry is named.
        async fn push(&self, wanted: &str, target: Option<&str>, options: PushOptions, progress: Arc<dyn ProgressSink>) -> Result<Image>;

        /// Sends the built disk image of an image to a registry, so that other hosts need not build it.
        ///
        /// # Errors
        /// As for [`Runtime::push`]; `InvalidInput` for a key file that holds no key; `Unsupported` on a remote runtime.
        async fn push_disk_image(&self, wanted: &str, options: DiskImagePushOptions, progress: Arc<dyn ProgressSink>) -> Result<DiskImagePush>;

        /// Fetches an image and its built disk image in place of the layers, where the settings `image_fetch_from` and
        /// `image_fetch_keys` say that the disk image may be believed.
        ///
        /// # Errors
        /// `Denied` where it may not; `NotFound` where the registry has none for this builder and disk size; otherwise as for
        /// [`Runtime::pull`]. `Unsupported` on a remote runtime.
        async fn fetch_disk_image(&self, reference: &str, options: DiskImageFetchOptions, progress: Arc<dyn ProgressSink>) -> Result<DiskImageFetch>;
    }
}

single_home_operations! {
    /// Images as archives, and who may have them.
    trait ArchiveOperations {
        /// Packs images into one archive, under the names by which they are wanted. Layers that only their registry has
        /// are fetched first.
        ///
        /// # Errors
        /// `NotFound` for an image, or for a layer that is gone and that no registry has. An archive that breaks off ends in
        /// an error.
        async fn save(&self, images: &[String], format: ArchiveFormat) -> Result<TarStream>;

        /// Takes in all images of an archive, which `docker save`, `boxlite save` or OCI's tools wrote, under the names that
        /// it gives them, and returns them with those names alone.
        ///
        /// # Errors
        /// `Corrupt` for what is no archive of images; `Unsupported` for an image of another platform; `ResourceExhausted`
        /// where the disk is too full. Images that came before stay.
        async fn load(&self, archive: ArchiveInput, progress: Arc<dyn ProgressSink>) -> Result<Vec<Image>>;

        /// Makes an image of one layer out of a tar archive of files, compressed or not.
        ///
        /// # Errors
        /// `Corrupt` for what is no such archive; `InvalidInput` for options that cannot be; `ResourceExhausted` where the
        /// disk is too full.
        async fn import(&self, archive: ArchiveInput, options: CommitOptions) -> Result<Image>;

        /// Checks credentials against their registry and keeps them in [`crate::RuntimeOptions::registry_config`], which
        /// is returned.
        ///
        /// # Errors
        /// `Denied` when the registry refuses them, `Unavailable` when it cannot be reached: nothing is kept then;
        /// `Unsupported` on a remote runtime.
        async fn login(&self, login: Login) -> Result<PathBuf>;

        /// Forgets the credentials for a registry, and leaves those that other programs keep.
        ///
        /// # Errors
        /// `Unsupported` on a remote runtime.
        async fn logout(&self, registry: &str) -> Result<Logout>;
    }
}

single_home_operations! {
    /// Named volumes: filesystems of their own that boxes mount, and that stay until they are removed by name.
    trait VolumeOperations {
        /// Makes an empty volume. It takes no more of the disk than what is written to it.
        ///
        /// # Errors
        /// `Conflict` when there is one of that name; `InvalidInput` for a name or size that cannot be; `ResourceExhausted`.
        async fn create_volume(&self, options: VolumeOptions) -> Result<VolumeInfo>;

        /// Lists the volumes, by name.
        async fn volumes(&self) -> Result<Vec<VolumeInfo>>;

        /// Describes the volume of that name.
        ///
        /// # Errors
        /// `NotFound`; `Corrupt` for what is there instead of a volume.
        async fn volume(&self, name: &str) -> Result<VolumeInfo>;

        /// Removes the volume and all that it holds; returns the bytes that were allocated to it.
        ///
        /// # Errors
        /// `Conflict`, naming them, while boxes mount it, whether or not they run; `Busy` while one is being made of it;
        /// `NotFound`.
        async fn remove_volume(&self, name: &str) -> Result<u64>;

        /// Removes all volumes that no box mounts, and all that they hold.
        ///
        /// # Errors
        /// `Conflict` where it is unknown what some box mounts: nothing is removed then.
        async fn prune_volumes(&self) -> Result<VolumePrune>;
    }
}

single_home_operations! {
    /// Networks, in which boxes reach each other by name, and that stay until they are removed by name.
    trait NetworkOperations {
        /// Makes a network.
        ///
        /// # Errors
        /// `Conflict` when there is one of that name, or another has some of its addresses; `InvalidInput` for a name or a
        /// subnet that cannot be.
        async fn create_network(&self, options: NetworkOptions) -> Result<NetworkInfo>;

        /// Lists the networks, by name.
        async fn networks(&self) -> Result<Vec<NetworkInfo>>;

        /// Describes the network of that name.
        ///
        /// # Errors
        /// `NotFound`; `Corrupt` for what is there instead of a network.
        async fn network(&self, name: &str) -> Result<NetworkInfo>;

        /// Removes the network.
        ///
        /// # Errors
        /// `Conflict`, naming them, while boxes are in it, whether or not they run; `Busy` while one joins; `NotFound`.
        async fn remove_network(&self, name: &str) -> Result<()>;

        /// Removes all networks that no box is in.
        async fn prune_networks(&self) -> Result<NetworkPrune>;
    }
}

home_operations! {
    /// New boxes, and all of them.
    trait BoxOperations {
        /// Creates a box: finds or pulls its image and records it; nothing runs yet.
        ///
        /// A caller that drops the future leaves no box behind, even if the box was recorded in the background.
        ///
        /// # Errors
        /// `Conflict` when the name is taken, `NotFound` when the image does not exist, `InvalidInput` for options
        /// that contradict each other or the image.
        async fn create(&self, options: BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo>;

        /// Makes a box whose start was refused for want of room again on another server, and removes it where it was; `None`
        /// where there is no other with room, and for a box that this runtime has not created or that has run.
        async fn place_elsewhere(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<Option<BoxInfo>>;

        /// Clones a box that is not running: the new box has its options, except as `options` say, and both share its disk,
        /// which neither changes.
        ///
        /// # Errors
        /// `Conflict` when the box runs or the name is taken, `ResourceExhausted` when the disk is too full.
        async fn clone_box(&self, id: &str, options: CloneOptions) -> Result<BoxInfo>;

        /// Lists the boxes, oldest first: the running ones, or all.
        async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>>;
    }
}

box_operations! {
    /// The life of one box.
    trait BoxLifecycle {
        /// Describes the box: what was asked for, and what it is doing now.
        ///
        /// # Errors
        /// `NotFound`; `InvalidInput` when several ids begin with this one.
        async fn inspect(&self) -> Result<BoxInfo>;

        /// Measures what the box consumes: its disk on the host and, while it runs, its network and what its guest reports.
        async fn consumption(&self) -> Result<Consumption>;

        /// Starts the box and returns when its main process runs; a running box is left as it is.
        ///
        /// # Errors
        /// `ResourceExhausted` with the figures when the disk is too full; the box then keeps its state and nothing
        /// was written. `Unsupported` when this host lacks what a box needs.
        async fn start(&self, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo>;

        /// Waits until the box is not running and returns how its last run ended.
        async fn wait(&self) -> Result<ExitStatus>;

        /// Stops the box: the stop signal, KILL after the timeout, then a clean unmount. A stopped box stays as it is.
        async fn stop(&self, options: StopOptions) -> Result<BoxInfo>;

        /// Changes the box: its name, disk quota, restart policy and time to live whether or not it runs, everything else while
        /// it does not. A box that is paused by its quota goes on with a larger one.
        ///
        /// The change is durable when this returns, and in force in the running box. After a crash in between, or an error of the
        /// shim, the box has it from its next start on, or once this is called again.
        ///
        /// # Errors
        /// `InvalidInput` with the figures for values that contradict each other or the image, a quota that is not below
        /// the disk's virtual size or leaves no room beside what the box has written already; `Conflict` for what cannot
        /// change while the box runs, and for a name that is taken.
        async fn update(&self, options: UpdateOptions) -> Result<BoxInfo>;

        /// Pauses the running box: its guest takes no processor time until [`Runtime::unpause`], and keeps its memory. A stop
        /// lets it go on first. Want of space pauses a box as well, and each reason holds by itself.
        ///
        /// # Errors
        /// `Conflict` when the box does not run, or its user has paused it already.
        async fn pause(&self) -> Result<BoxInfo>;

        /// Lets a box go on that [`Runtime::pause`] has paused, unless it waits for space as well.
        ///
        /// # Errors
        /// `Conflict` when the box does not run, or its user has not paused it.
        async fn unpause(&self) -> Result<BoxInfo>;

        /// Sends a signal to the main process of the running box.
        async fn kill(&self, signal: i32) -> Result<()>;

        /// Removes the box, its overlay and its logs; `gc` decides about its disk image.
        ///
        /// # Errors
        /// `Conflict` when it runs and `force` is not set.
        @without_doubt async fn remove(&self, options: RemoveOptions) -> Result<()>;

        /// Removes an auto-remove box whose run has ended, as soon as nobody attends it: no caller has just started it, waits
        /// for it or is attached to it. A box that runs again stays, and so does one that is not to remove itself.
        ///
        /// The shim calls this at its end; after a crash the next listing or gc does its work.
        ///
        /// # Errors
        /// `NotFound` when it was removed meanwhile; `Unsupported` on a remote runtime.
        async fn remove_ended(&self) -> Result<()>;

        /// Starts the box again by its restart policy after its run `run` has ended, after the pause that this asks for.
        /// Returns once the box runs again or is not to.
        ///
        /// The process beside the shim calls this, and shows meanwhile that a restart is pending; see [`crate::keep`].
        ///
        /// # Errors
        /// `NotFound` when it was removed meanwhile; `Unsupported` on a remote runtime.
        async fn restart_after(&self, run: &str) -> Result<()>;

        /// Removes the box once its time to live has passed after its run `run`, where that is soon. Returns once nothing more
        /// is to be done soon.
        ///
        /// The process beside the shim calls this; see [`crate::keep`].
        ///
        /// # Errors
        /// As for [`Runtime::restart_after`].
        async fn expire_after(&self, run: &str) -> Result<()>;
    }
}

box_operations! {
    /// The processes of one box, and what they write.
    trait BoxProcesses {
        /// Connects to the main process of the running box, from its first output on as far as the log reaches.
        async fn attach(&self) -> Result<Execution>;

        /// Runs a command in the running box.
        ///
        /// # Errors
        /// `Conflict` when the box is not running. A command that cannot be run is not an error: its status is 126 or
        /// 127.
        async fn exec(&self, options: ExecOptions) -> Result<Execution>;

        /// Lists the processes in the running box, as its guest's kernel has them.
        ///
        /// # Errors
        /// `Conflict` when the box is not running; `ResourceExhausted` while it waits for space; `Unavailable` when its
        /// guest does not answer.
        async fn processes(&self) -> Result<GuestProcesses>;

        /// Reads what the main process wrote in all runs of the box, or in one, as far as the bounded log still has it.
        ///
        /// # Errors
        /// `NotFound` for a run that the box has not had, or whose output is not kept any more.
        async fn logs(&self, options: LogOptions) -> Result<LogStream>;
    }
}

box_operations! {
    /// The network of one box.
    trait BoxNetwork {
        /// Connects to a TCP port inside the running box, on which a service listens at a loopback address or at all of
        /// them. It works without a network and without a published port.
        ///
        /// # Errors
        /// `Conflict` when the box is not running, `NotFound` when nothing listens on the port.
        async fn dial(&self, port: u16) -> Result<Tunnel>;
    }
}

box_operations! {
    /// Snapshots of one box's disk, which cost what was written since. They go with the box.
    trait BoxSnapshots {
        /// Takes a snapshot of the box, which runs on or stays at rest. A guest that runs writes out its disk and stands still
        /// while its disk is switched to a new overlay; its memory is not part of the snapshot.
        ///
        /// After a crash in between the box has all that it wrote, and the snapshot is there or not.
        ///
        /// # Errors
        /// `Conflict` when the name is taken, and for a box with too many snapshots or that stands on too many bases;
        /// `ResourceExhausted` when the disk is too full or the box is paused; `Unavailable` when the guest does not stand
        /// still: no snapshot was taken then.
        async fn create_snapshot(&self, options: SnapshotOptions) -> Result<Snapshot>;

        /// Lists the snapshots of the box, oldest first.
        async fn snapshots(&self) -> Result<Vec<Snapshot>>;

        /// Puts the box's disk back to a snapshot: what the box wrote since is gone, and the snapshot stays.
        ///
        /// # Errors
        /// `NotFound` for a snapshot that the box does not have; `Conflict` when it runs and `force` is not set.
        @without_doubt async fn restore_snapshot(&self, name: &str, options: RestoreOptions) -> Result<BoxInfo>;

        /// Removes a snapshot. Its bytes are freed by gc once nothing stands on them: what the box or a later snapshot
        /// stands on stays until then.
        ///
        /// # Errors
        /// `NotFound` for a snapshot that the box does not have.
        @without_doubt async fn remove_snapshot(&self, name: &str) -> Result<()>;
    }
}

box_operations! {
    /// Commands of one box that the box itself holds, so that their clients, servers among them, may come and go.
    ///
    /// The box keeps a command's status for five minutes after its end, and its output until a reader has acknowledged it:
    /// a command that nobody reads blocks as on a pipe, until it is hung up or released as its terms say. All of it is gone
    /// when the box stops.
    ///
    /// Besides its own errors, each of these fails with `NotFound` for an execution that the box does not hold,
    /// `Unsupported` for a box that an older boxlite has started and on a remote runtime.
    trait BoxExecutions {
        /// Begins a command under the id `execution`, a word that the caller has chosen; returns once its process runs or
        /// could not be run. If there is one of that id, it is left as it is: asking again is safe.
        ///
        /// # Errors
        /// `Conflict` when the box is not running; `Busy` when it holds as much as it may.
        async fn begin_execution(&self, execution: &str, options: ExecOptions, terms: HoldTerms) -> Result<ExecutionState>;

        /// Describes an execution.
        async fn execution(&self, execution: &str) -> Result<ExecutionState>;

        /// Lists the executions, the one begun last first.
        async fn executions(&self) -> Result<Vec<ExecutionState>>;

        /// Attaches to an execution, as its only client.
        ///
        /// # Errors
        /// `Conflict` when another client is attached, or the output from the wanted position on is not held any more.
        async fn attach_execution(&self, execution: &str, options: SeatOptions) -> Result<AttachedExecution>;

        /// Sends a signal to the process of an execution; one that has ended ignores it.
        ///
        /// # Errors
        /// `Unavailable` when the guest does not answer within some seconds; the signal may still arrive.
        async fn signal_execution(&self, execution: &str, signal: i32) -> Result<()>;

        /// Resizes the terminal of an execution.
        async fn resize_execution(&self, execution: &str, size: WindowSize) -> Result<()>;

        /// Kills an execution if it runs, and marks it as hidden.
        async fn end_execution(&self, execution: &str) -> Result<()>;
    }
}

box_operations! {
    /// The fate of one box's files, whether or not it runs.
    ///
    /// A box that is not running is locked meanwhile, and a guest is brought up for its files alone. What is mounted into
    /// the box belongs to no image and is left out.
    trait BoxImages {
        /// Lists what the box has changed of its image, in the order of paths.
        ///
        /// # Errors
        /// `Conflict` for a box that has exited and is being removed; `ResourceExhausted` while it is paused.
        async fn diff(&self) -> Result<Vec<FileChange>>;

        /// Makes an image of the box's changes over its image.
        ///
        /// Files that change meanwhile are in the image as they were when they were read.
        ///
        /// # Errors
        /// `InvalidInput` for options that cannot be; `NotFound` when the box's image was removed; `ResourceExhausted` where
        /// the disk is too full: what was written is removed again.
        async fn commit(&self, options: CommitOptions) -> Result<Image>;

        /// Packs all of the box's files into a tar archive.
        ///
        /// # Errors
        /// As for [`Runtime::diff`]. An archive that breaks off ends in an error.
        async fn export(&self) -> Result<TarStream>;
    }
}

single_home_operations! {
    /// Boxes of single files.
    trait BoxImports {
        /// Makes a box of a file that [`Runtime::export_box`] has written, which needs no trust; nothing runs yet.
        ///
        /// # Errors
        /// `Corrupt` for what is no such file, or not all of one; `Unsupported` for one of another platform or format;
        /// `NotFound` when it needs an image that is not here; `Conflict` when the wanted name is taken;
        /// `ResourceExhausted` when the disk is too full. Nothing of the box is left then.
        async fn import_box(&self, archive: TarStream, options: BoxImportOptions) -> Result<ImportedBox>;
    }
}

box_operations! {
    /// One box as a single file.
    trait BoxExports {
        /// Packs the whole box, its options and its disk, into one file, from which [`Runtime::import_box`] makes a box on any
        /// host. Named volumes and folders of the host are not in it.
        ///
        /// Of a running box this is its disk at one moment, for which it stands still as for a snapshot; one that rests is
        /// locked until the stream ends or is dropped.
        ///
        /// # Errors
        /// `NotFound` without such a snapshot; `Conflict` for a box that has exited and is being removed;
        /// `ResourceExhausted` while it is paused. A file that breaks off ends in an error.
        async fn export_box(&self, options: BoxExportOptions) -> Result<TarStream>;
    }
}

box_operations! {
    /// The files of one box, whether or not it runs.
    trait BoxFiles {
        /// Unpacks a tar stream into the directory `path` of the box; no entry escapes it.
        ///
        /// A box that is not running is locked meanwhile, and what was copied is durable at the end.
        ///
        /// # Errors
        /// `ResourceExhausted` with the figures where the disk is too full; `Conflict` for a box that has exited and is
        /// being removed.
        async fn copy_in(&self, path: &str, options: CopyOptions, tar: TarStream) -> Result<()>;

        /// Packs the file or directory `path` of the box into a tar stream.
        ///
        /// A box that is not running is locked until the stream ends or is dropped, or until the box is stopped or
        /// removed by force.
        ///
        /// # Errors
        /// `NotFound`; `Conflict` for a box that has exited and is being removed.
        async fn copy_out(&self, path: &str, options: CopyOptions) -> Result<TarStream>;
    }
}
