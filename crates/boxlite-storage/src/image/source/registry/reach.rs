//! Which addresses a pull may connect to.
//!
//! A registry names further hosts: its token server, and where it redirects to. A registry on the Internet must not make
//! this host fetch something from a private network, still less have it handed over as a token. So:
//!
//! - Registries at private addresses are for pulls whose registry is trusted ([`RegistryPolicy`]).
//! - Only a registry that itself is at a private address may name hosts at private addresses.
//! - Names are judged by the addresses that are connected to, since a name may resolve differently the next time. The
//!   registry's own name is resolved once per pull.
//!
//! Behind a proxy (`HTTPS_PROXY`), the proxy resolves names and decides which are reached; addresses that are written
//! out are judged here all the same.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use boxlite_types::{Error, ErrorKind, Result};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::OnceCell;

/// Which registries pulls may use, decided by whoever runs the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RegistryPolicy {
    /// Every registry: whoever asks for a pull is the user of this host.
    #[default]
    Any,
    /// Registries with a public address and a trusted certificate, and those that are named here as `host[:port]`: the
    /// pulls are asked for by others.
    PublicAnd(Vec<String>),
}

impl RegistryPolicy {
    /// Tells whether the registry `host[:port]` may be at a private address and be used insecurely.
    pub(super) fn trusts(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::PublicAnd(named) => named.iter().any(|named| named.eq_ignore_ascii_case(host)),
        }
    }
}

/// The addresses that one pull may connect to.
#[derive(Debug)]
pub(super) struct Reach {
    /// The registry's host name or address.
    registry: String,
    /// The same with its port.
    authority: String,
    trusted: bool,
    /// The registry is at a private address: hosts that it names may be so, too.
    private: AtomicBool,
    /// The addresses of the registry's name.
    pinned: OnceCell<Vec<IpAddr>>,
    /// Names that are judged. Others are those of proxies.
    targets: Mutex<HashSet<String>>,
}

/// The reason why a connection was not made.
#[derive(Debug, Clone)]
pub(super) struct PrivateAddress {
    host: String,
    address: IpAddr,
    /// It is the registry itself.
    registry: bool,
}

impl fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address, registry } = self;
        if *registry {
            write!(
                f,
                "registry {host} is at the private address {address}, which a client may use only if the server's \
                 operator names it (`boxlite serve --allow-registry {host}`)"
            )
        } else {
            write!(
                f,
                "the registry refers to {host} at the private address {address}, and is not at one itself; nothing was sent \
                 to it"
            )
        }
    }
}

impl std::error::Error for PrivateAddress {}

impl From<PrivateAddress> for Error {
    fn from(refused: PrivateAddress) -> Self {
        Self::new(ErrorKind::Denied, refused.to_string())
    }
}

impl Reach {
    /// The reach of a pull from the registry at `url`.
    pub(super) fn new(url: &Url, trusted: bool) -> Self {
        let registry = url.host_str().unwrap_or_default().to_owned();
        let private = trusted && literal(url).is_some_and(is_private);
        Self {
            registry,
            authority: url.authority().to_owned(),
            trusted,
            private: AtomicBool::new(private),
            pinned: OnceCell::new(),
            targets: Mutex::default(),
        }
    }

    /// Checks an address that is written out, and has a name judged when it is connected to.
    ///
    /// # Errors
    /// `Denied` for a private address.
    pub(super) fn check(&self, url: &Url) -> Result<()> {
        let host = url.host_str().unwrap_or_default();
        if let Some(address) = literal(url) {
            self.filter(host, vec![address])?;
        } else {
            self.targets.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
        }
        Ok(())
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        if host == self.registry {
            let found = self.pinned.get_or_try_init(|| lookup(host)).await?;
            let private = self.trusted && found.iter().all(|address| is_private(*address));
            self.private.store(private, Ordering::Release);
            return Ok(self.filter(host, found.clone())?);
        }
        let found = lookup(host).await?;
        let judged = self.targets.lock().unwrap_or_else(PoisonError::into_inner).contains(host);
        if judged { Ok(self.filter(host, found)?) } else { Ok(found) }
    }

    /// Returns those of the addresses that may be connected to, of which there is at least one.
    fn filter(&self, host: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, PrivateAddress> {
        if self.private.load(Ordering::Acquire) {
            return Ok(found);
        }
        let (private, public): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| is_private(*address));
        match private.first() {
            Some(address) if public.is_empty() => {
                let registry = host == self.registry;
                let host = if registry { &self.authority } else { host };
                Err(PrivateAddress { host: host.to_owned(), address: *address, registry })
            }
            _ => Ok(public),
        }
    }
}

async fn lookup(host: &str) -> std::io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

/// Resolves names for an HTTP client.
#[derive(Debug, Clone)]
pub(super) struct ReachResolver(pub(super) Arc<Reach>);

impl Resolve for ReachResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = Arc::clone(&self.0);
        Box::pin(async move {
            let found = reach.resolve(name.as_str()).await?;
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// Returns the address that the URL writes out instead of a name.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Tells whether the address belongs to this host, its link or a private network, or can be translated into one that does.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => {
            let [first, second, third, .., high, low] = address.segments();
            let embedded = |high: u16, low: u16| {
                is_private_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            };
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                // Deprecated site-local addresses.
                || first & 0xffc0 == 0xfec0
                // NAT64, its local-use prefix, 6to4, and IPv4-compatible addresses.
                || (first == 0x64 && second == 0xff9b && embedded(high, low))
                || (first == 0x64 && second == 0xff9b && third == 1)
                || (first == 0x2002 && embedded(second, third))
                || (address.segments()[..6] == [0; 6] && embedded(high, low))
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || first == 0
        || first >= 240
        || (first == 100 && second & 0xc0 == 64)
        || (first == 192 && second == 0 && third == 0)
        || (first == 198 && second & 0xfe == 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(registry: &str, trusted: bool) -> Arc<Reach> {
        Arc::new(Reach::new(&url(registry), trusted))
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn addresses_that_lead_back_to_this_host_or_its_networks_are_private() {
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "198.20.0.1",
            "203.0.113.5",
            "2606:4700::1111",
            "64:ff9b::101:101",
            "2002:101:101::",
            "::ffff:1.1.1.1",
        ] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    /// Mutation tried: without the check in `check`, the metadata service's address is reached.
    #[test]
    fn a_public_registry_refers_to_no_private_address() {
        let public = reach("https://203.0.113.5/", true);
        for target in ["http://127.0.0.1/token", "https://[::1]:5000/", "https://169.254.169.254/latest"] {
            assert_eq!(public.check(&url(target)).unwrap_err().kind(), ErrorKind::Denied, "{target}");
        }
        assert!(public.check(&url("https://203.0.113.6/")).is_ok());
        assert!(reach("http://10.0.0.1:5000", true).check(&url("http://127.0.0.1/token")).is_ok());
        let of_client =
            reach("http://10.0.0.1:5000", false).check(&url("http://10.0.0.1:5000/v2/")).unwrap_err();
        assert!(of_client.to_string().contains("--allow-registry 10.0.0.1"), "{of_client}");
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_resolve_to() {
        let public = reach("https://203.0.113.5/", true);
        assert!(public.resolve("localhost").await.is_ok(), "a proxy's name is not judged");
        public.check(&url("https://localhost/token")).unwrap();
        let refused = public.resolve("localhost").await.unwrap_err();
        assert!(refused.is::<PrivateAddress>(), "{refused}");
        assert!(reach("http://localhost:5000", false).resolve("localhost").await.is_err());
        let trusted = reach("http://localhost:5000", true);
        assert!(!trusted.resolve("localhost").await.unwrap().is_empty());
        assert!(trusted.check(&url("http://127.0.0.1:1/token")).is_ok(), "the registry is at one itself");
    }

    /// Mutation tried: with `any` instead of `all`, one private address among the registry's opens the private networks.
    #[tokio::test]
    async fn a_registrys_name_cannot_be_rebound() {
        let rebound = reach("https://registry.example/", true);
        rebound.pinned.set(vec!["203.0.113.5".parse().unwrap(), "127.0.0.1".parse().unwrap()]).unwrap();
        let first = rebound.resolve("registry.example").await.unwrap();
        assert_eq!(first, ["203.0.113.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(rebound.resolve("registry.example").await.unwrap(), first);
        assert!(rebound.check(&url("http://127.0.0.1/token")).is_err());
    }

    #[test]
    fn a_policy_names_registries_with_their_ports() {
        let policy = RegistryPolicy::PublicAnd(vec!["Registry.local:5000".into()]);
        assert!(policy.trusts("registry.local:5000") && !policy.trusts("registry.local"));
        assert!(
            RegistryPolicy::Any.trusts("x") && !RegistryPolicy::PublicAnd(Vec::new()).trusts("localhost")
        );
    }
}
