//! Networks that boxes join: their names, their addresses, and which address each box has.
//!
//! # Layout
//! `networks/<name>/` holds `network.json`, which is written once, the lock `members.lock`, and `members/`, in which the boxes of
//! the network find each other while they run (`boxlite-vm`). There is no row in the database: boxes' records say which
//! network they are members of, and with which address.
//!
//! # Locking
//! - `networks/.lock` is held exclusively while a network is being made, so that no two get the same addresses.
//! - `members.lock` is held exclusively while a box that joins is being recorded ([`JoinLease`]), so that no two get the same
//!   address, and while the network is being removed. So a removal either meets the lease, or finds the record, or the box
//!   finds the network gone.
//!
//! # Crash safety
//! A network is made out of sight, published by one rename and taken away by one rename. It holds no data, and gc neither
//! removes networks nor looks at them: only `network rm` and `network prune` do.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use boxlite_home::durable::{self, Lock, StagedDir, fault};
use boxlite_home::{Home, NetworkPaths};
use boxlite_types::{
    Doing, Error, ErrorCause, ErrorKind, MAX_MEMBERS, NetworkDescription, NetworkOptions, Result, Subnet,
    check_network_name,
};
use jiff::Timestamp;

use crate::named;
use crate::references::References;
use crate::store::Store;

/// Where the subnets of networks come from whose makers name none: `/24` blocks of it.
const POOL: Subnet = Subnet::new(Ipv4Addr::new(10, 89, 0, 0), 16);
const POOL_PREFIX: u8 = 24;

/// The widest and the narrowest subnet.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;

/// While this is held, no other box joins the network, and it is not removed.
#[derive(Debug)]
pub struct JoinLease {
    _lock: Lock,
    /// The address that was chosen for the box.
    pub address: Ipv4Addr,
}

/// Makes the network that `options` ask for, outside of the subnets to `avoid`.
///
/// # Errors
/// `Conflict` when there is one of that name, or another network has some of its addresses; `InvalidInput` for a name or a
/// subnet that cannot be.
pub fn create(home: &Home, options: &NetworkOptions, avoid: &[Subnet]) -> Result<NetworkDescription> {
    check_network_name(&options.name)?;
    named::ensure_own(&home.networks(), "networks")?;
    let _lock = Lock::exclusive(&home.networks_lock())?;
    let paths = home.of_network(&options.name);
    if paths.root().symlink_metadata().is_ok() {
        return Err(conflict(format!("there is a network '{}' already", options.name)).at(paths.root()));
    }
    let network = NetworkDescription {
        format: NetworkDescription::FORMAT,
        id: uuid::Uuid::new_v4().simple().to_string(),
        name: options.name.clone(),
        subnet: subnet_of(home, options.subnet, avoid)?,
        internal: options.internal,
        labels: options.labels.clone(),
        created_at: Timestamp::now(),
    };
    let staged = StagedDir::create(&home.tmp())?;
    staged.create_dir(NetworkPaths::MEMBERS)?;
    let text = serde_json::to_vec_pretty(&network)
        .map_err(|source| Error::bug(format!("a network cannot be written down: {source}")))?;
    let unseen = NetworkPaths::new(staged.path().to_owned());
    durable::write_atomically(&home.tmp(), &unseen.description(), &text)?;
    fault::point("network.unpublished").doing("making the network", paths.root())?;
    staged.publish(paths.root())?;
    Ok(network)
}

/// The subnet that was asked for, if it is free, or the first free one of the pool.
fn subnet_of(home: &Home, wanted: Option<Subnet>, avoid: &[Subnet]) -> Result<Subnet> {
    let mut taken = Vec::new();
    for name in names(home)? {
        // Whatever cannot be read has no boxes that could be started.
        taken.extend(read(home, &name).ok().map(|network| (name, network.subnet)));
    }
    let Some(wanted) = wanted else {
        let step = 1_u32 << (32 - POOL_PREFIX);
        let blocks = (POOL.first().to_bits()..=POOL.last().to_bits()).step_by(step as usize);
        let mut blocks = blocks.map(|first| Subnet::new(Ipv4Addr::from_bits(first), POOL_PREFIX));
        let is_free = |block: &Subnet| {
            !taken.iter().any(|(_, other)| other.overlaps(*block))
                && !avoid.iter().any(|other| other.overlaps(*block))
        };
        return blocks.find(is_free).ok_or_else(|| {
            conflict(format!("no block of {POOL} is free for another network; name one by --subnet"))
        });
    };
    if !PREFIXES.contains(&wanted.prefix()) {
        let (least, most) = (PREFIXES.start(), PREFIXES.end());
        return Err(invalid(format!("subnet {wanted}: a network's prefix is from {least} to {most}")));
    }
    if let Some(other) = avoid.iter().find(|other| other.overlaps(wanted)) {
        return Err(invalid(format!(
            "subnet {wanted} overlaps {other}, which boxes reach or no box may reach"
        )));
    }
    match taken.iter().find(|(_, other)| other.overlaps(wanted)) {
        Some((name, other)) => {
            Err(conflict(format!("subnet {wanted} overlaps {other}, which network '{name}' has")))
        }
        None => Ok(wanted),
    }
}

/// Reads what the network `name` is.
///
/// # Errors
/// `NotFound` when there is none; `Corrupt` for what is there instead; `Unsupported` for a network of a newer boxlite.
pub fn read(home: &Home, name: &str) -> Result<NetworkDescription> {
    check_network_name(name)?;
    let paths = home.of_network(name);
    let check = |network: &NetworkDescription| {
        let subnet = network.subnet;
        if PREFIXES.contains(&subnet.prefix()) { Ok(()) } else { Err(format!("its subnet is {subnet}")) }
    };
    named::read(paths.root(), &paths.description(), name, check)?.ok_or_else(|| missing(name))
}

fn conflict(message: String) -> Error {
    Error::conflict(message).about(ErrorCause::Network)
}

fn not_found(message: String) -> Error {
    Error::not_found(message).about(ErrorCause::Network)
}

fn invalid(message: String) -> Error {
    Error::invalid(message).about(ErrorCause::Network)
}

fn missing(name: &str) -> Error {
    not_found(format!("there is no network '{name}'; `boxlite network create {name}` makes one"))
}

/// The names of the networks, sorted.
///
/// # Errors
/// `Io` when the directory cannot be listed.
pub fn names(home: &Home) -> Result<Vec<String>> {
    let mut names = named::names(&home.networks())?;
    names.retain(|name| check_network_name(name).is_ok());
    Ok(names)
}

/// Chooses an address of the network `name` for the box `id`: the `wanted` one, or the first that no other box has.
///
/// Waits while another box joins. A box that joins several networks joins them in the order of their names, so that no two wait
/// for each other.
///
/// # Errors
/// `NotFound` when there is no such network; `InvalidInput` for an address that no box of it can have; `Conflict` for one that
/// another box has, naming it, and when the network is full.
pub fn join(home: &Home, store: &Store, name: &str, id: &str, wanted: Option<Ipv4Addr>) -> Result<JoinLease> {
    read(home, name)?;
    let lock = Lock::exclusive(&home.of_network(name).lock())?;
    // A network that was removed meanwhile is gone, and one that got its name since is another.
    let subnet = read(home, name)?.subnet;
    let references = References::of(home, store)?;
    let users: Vec<_> = references.to_network(name).iter().filter(|user| user.id != id).collect();
    if users.len() >= MAX_MEMBERS {
        return Err(conflict(format!("network '{name}' has {MAX_MEMBERS} boxes, which is the most")));
    }
    let taken: HashSet<Ipv4Addr> = users.iter().map(|user| user.address).collect();
    let address = match wanted {
        None => subnet.members().find(|address| !taken.contains(address)).ok_or_else(|| {
            conflict(format!("network '{name}' has no free address: {subnet} holds {} boxes", users.len()))
        })?,
        Some(wanted) if !subnet.members().any(|address| address == wanted) => {
            let (mut first, last) = (subnet.members(), subnet.members().last());
            let range =
                first.next().zip(last).map_or(String::new(), |(first, last)| format!(" ({first} to {last})"));
            return Err(invalid(format!(
                "boxes of network '{name}' have addresses of {subnet}{range}, not {wanted}"
            )));
        }
        Some(wanted) => match users.iter().find(|user| user.address == wanted) {
            Some(user) => {
                return Err(conflict(format!(
                    "box {} has the address {wanted} of network '{name}'",
                    user.name
                )));
            }
            None => wanted,
        },
    };
    Ok(JoinLease { _lock: lock, address })
}

/// Removes the network `name`.
///
/// # Errors
/// `Conflict` while a box is a member of it, whether or not it runs, naming the boxes; `Busy` while a box joins; `NotFound`.
pub fn remove(home: &Home, store: &Store, name: &str) -> Result<NetworkDescription> {
    let network = read(home, name)?;
    let paths = home.of_network(name);
    let busy = || {
        Error::new(ErrorKind::Busy, format!("a box joins network '{name}'; try again"))
            .about(ErrorCause::Network)
    };
    let _lock = Lock::try_exclusive(&paths.lock())?.ok_or_else(busy)?;
    if read(home, name)?.id != network.id {
        return Err(missing(name));
    }
    let references = References::of(home, store)?;
    let users: Vec<&str> = references.to_network(name).iter().map(|user| user.name.as_str()).collect();
    if !users.is_empty() {
        let message = format!("network '{name}' is used by box {}; remove that first", users.join(", "));
        return Err(conflict(message));
    }
    if let Some(doubt) = references.doubts.first() {
        return Err(conflict(format!("network '{name}' stays: {doubt}")));
    }
    durable::discard_dir(paths.root(), &home.tmp())?;
    Ok(network)
}

#[cfg(test)]
mod tests {
    use boxlite_types::{BoxDescription, BoxOptions, BoxRecord, ImageConfig, Membership, Phase, Restarts};

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        (dir, home)
    }

    fn named(name: &str, subnet: Option<&str>) -> NetworkOptions {
        let subnet = subnet.map(|text| text.parse().unwrap());
        NetworkOptions { name: name.into(), subnet, ..NetworkOptions::default() }
    }

    #[test]
    fn no_two_networks_have_an_address_in_common() {
        let (_dir, home) = home();
        let avoid = ["10.0.2.0/24".parse().unwrap(), "10.89.1.7/32".parse().unwrap()];
        let made = |options: &NetworkOptions| {
            create(&home, options, &avoid).map(|network| network.subnet.to_string())
        };
        assert_eq!(made(&named("a", None)).unwrap(), "10.89.0.0/24");
        assert_eq!(made(&named("b", None)).unwrap(), "10.89.2.0/24", "the host has 10.89.1.7");
        assert_eq!(made(&named("c", Some("10.89.3.0/29"))).unwrap(), "10.89.3.0/29");
        assert_eq!(made(&named("d", None)).unwrap(), "10.89.4.0/24");
        for (options, kind) in [
            (named("a", None), ErrorKind::Conflict),
            (named("e", Some("10.89.0.128/25")), ErrorKind::Conflict),
            (named("e", Some("10.0.0.0/16")), ErrorKind::InvalidInput),
            (named("e", Some("10.90.0.0/30")), ErrorKind::InvalidInput),
            (named("e", Some("10.0.0.0/8")), ErrorKind::InvalidInput),
            (named("../e", None), ErrorKind::InvalidInput),
        ] {
            assert_eq!(create(&home, &options, &avoid).unwrap_err().kind(), kind, "{options:?}");
        }
        assert_eq!(names(&home).unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(read(&home, "e").unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// A box that is a member, as its `box.json` says.
    fn member(home: &Home, number: usize, address: Ipv4Addr) -> String {
        let id = format!("{number:032x}");
        let record = BoxRecord {
            id: id.clone(),
            name: format!("box{number}"),
            image: String::new(),
            image_reference: String::new(),
            disk_digest: String::new(),
            disk_image_size: 0,
            image_config: ImageConfig::default(),
            volumes: Vec::new(),
            named_volumes: Vec::new(),
            memberships: vec![Membership { network: "a".into(), address }],
            options: BoxOptions::default(),
            created_at: Timestamp::UNIX_EPOCH,
            phase: Phase::Created,
            restarts: Restarts::default(),
            snapshots: Vec::new(),
        };
        let description = BoxDescription { format: BoxDescription::FORMAT, home: None, record };
        describe(home, &id, &serde_json::to_string(&description).unwrap());
        id
    }

    fn describe(home: &Home, id: &str, text: &str) {
        let file = home.of_box(id).description();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Mutations tried: an address that another box has is given, when it is asked for and when it is not; a box stands in its own
    /// way; a network has room for any number; one with boxes in it, or perhaps with boxes in it, is removed.
    #[test]
    fn no_two_boxes_have_an_address_and_no_network_goes_with_boxes_in_it() {
        let (_dir, home) = home();
        let store = Store::open_in(&home).unwrap();
        create(&home, &named("a", Some("10.89.3.0/24")), &[]).unwrap();
        let address = |last: u8| Ipv4Addr::new(10, 89, 3, last);
        let first = member(&home, 1, address(2));
        let joined = |id: &str, wanted| join(&home, &store, "a", id, wanted).map(|lease| lease.address);
        assert_eq!(joined("other", None).unwrap(), address(3));
        let taken = joined("other", Some(address(2))).unwrap_err();
        assert!(taken.kind() == ErrorKind::Conflict && taken.to_string().contains("box1"), "{taken}");
        assert_eq!(joined(&first, Some(address(2))).unwrap(), address(2));
        assert_eq!(joined(&first, None).unwrap(), address(2));
        let used = remove(&home, &store, "a").unwrap_err();
        assert!(used.kind() == ErrorKind::Conflict && used.to_string().contains("box1"), "{used}");

        for number in 2..=MAX_MEMBERS {
            member(&home, number, address(u8::try_from(number).unwrap() + 1));
        }
        let full = joined("other", None).unwrap_err();
        assert!(
            full.kind() == ErrorKind::Conflict && full.to_string().contains("which is the most"),
            "{full}"
        );
        assert_eq!(joined(&first, None).unwrap(), address(2), "it is one of them");

        std::fs::remove_dir_all(home.boxes()).unwrap();
        std::fs::create_dir(home.boxes()).unwrap();
        describe(&home, &first, "{");
        let doubtful = remove(&home, &store, "a").unwrap_err();
        assert!(
            doubtful.kind() == ErrorKind::Conflict && doubtful.to_string().contains(&first),
            "{doubtful}"
        );
        std::fs::remove_dir_all(home.of_box(&first).description().parent().unwrap()).unwrap();
        remove(&home, &store, "a").unwrap();
    }

    #[test]
    fn an_address_is_of_the_network_and_a_removed_network_is_gone() {
        let (_dir, home) = home();
        let store = Store::open_in(&home).unwrap();
        let network = create(&home, &named("a", Some("10.89.3.0/29")), &[]).unwrap();
        assert_eq!(join(&home, &store, "a", "id", None).unwrap().address, Ipv4Addr::new(10, 89, 3, 2));
        let wanted = Ipv4Addr::new(10, 89, 3, 6);
        assert_eq!(join(&home, &store, "a", "id", Some(wanted)).unwrap().address, wanted);
        for wrong in [[10, 89, 3, 0], [10, 89, 3, 1], [10, 89, 3, 7], [10, 89, 4, 2]] {
            assert_eq!(
                join(&home, &store, "a", "id", Some(wrong.into())).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
        let lease = join(&home, &store, "a", "id", None).unwrap();
        assert_eq!(remove(&home, &store, "a").unwrap_err().kind(), ErrorKind::Busy);
        drop(lease);
        assert_eq!(remove(&home, &store, "a").unwrap().id, network.id);
        assert_eq!(join(&home, &store, "a", "id", None).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(remove(&home, &store, "a").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
