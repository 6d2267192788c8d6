//! The host's libslirp, loaded at run time: the part of its interface that a box's network needs.
//!
//! The structures are those of version 1 of its configuration, which every libslirp since 4.0 takes.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use crate::net::{GATEWAY, GUEST, PREFIX, RESOLVER, SUBNET};

/// Slirp's own events, which it asks for and is told of.
pub(super) mod event {
    use std::ffi::c_int;

    pub(in super::super) const IN: c_int = 1;
    pub(in super::super) const OUT: c_int = 2;
    pub(in super::super) const PRI: c_int = 4;
    pub(in super::super) const ERR: c_int = 8;
    pub(in super::super) const HUP: c_int = 16;
}

/// An address in the byte order of the network.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct InAddr(pub(super) u32);

impl From<std::net::Ipv4Addr> for InAddr {
    fn from(address: std::net::Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

/// `SlirpConfig`, to the end of its first version.
#[repr(C)]
struct SlirpConfig {
    version: u32,
    restricted: c_int,
    in_enabled: bool,
    network: InAddr,
    netmask: InAddr,
    host: InAddr,
    in6_enabled: bool,
    prefix6: [u8; 16],
    prefix6_length: u8,
    host6: [u8; 16],
    hostname: *const c_char,
    tftp_server_name: *const c_char,
    tftp_path: *const c_char,
    bootfile: *const c_char,
    dhcp_start: InAddr,
    nameserver: InAddr,
    nameserver6: [u8; 16],
    dns_search: *const *const c_char,
    domain_name: *const c_char,
    mtu: usize,
    mru: usize,
    disable_host_loopback: bool,
    enable_emulation: bool,
}

impl SlirpConfig {
    /// The network that the frame filter was written for.
    fn of_box() -> Self {
        Self {
            version: 1,
            restricted: 0,
            in_enabled: true,
            network: SUBNET.address().into(),
            netmask: InAddr((u32::MAX << (32 - u32::from(PREFIX))).to_be()),
            host: GATEWAY.into(),
            in6_enabled: false,
            prefix6: [0; 16],
            prefix6_length: 64,
            host6: [0; 16],
            hostname: ptr::null(),
            tftp_server_name: ptr::null(),
            tftp_path: ptr::null(),
            bootfile: ptr::null(),
            dhcp_start: GUEST.into(),
            nameserver: RESOLVER.into(),
            nameserver6: [0; 16],
            dns_search: ptr::null(),
            domain_name: ptr::null(),
            mtu: 0,
            mru: 0,
            disable_host_loopback: false,
            enable_emulation: false,
        }
    }
}

/// `SlirpCb`, of which the last two are newer than the first version and never called.
#[repr(C)]
pub(super) struct Callbacks {
    pub(super) send_packet: extern "C" fn(*const c_void, usize, *mut c_void) -> isize,
    pub(super) guest_error: extern "C" fn(*const c_char, *mut c_void),
    pub(super) clock_get_ns: extern "C" fn(*mut c_void) -> i64,
    pub(super) timer_new: extern "C" fn(*const c_void, *mut c_void, *mut c_void) -> *mut c_void,
    pub(super) timer_free: extern "C" fn(*mut c_void, *mut c_void),
    pub(super) timer_mod: extern "C" fn(*mut c_void, i64, *mut c_void),
    pub(super) register_poll_fd: extern "C" fn(c_int, *mut c_void),
    pub(super) unregister_poll_fd: extern "C" fn(c_int, *mut c_void),
    pub(super) notify: extern "C" fn(*mut c_void),
    pub(super) newer: [Option<extern "C" fn()>; 2],
}

pub(super) type AddPoll = extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
pub(super) type GetEvents = extern "C" fn(c_int, *mut c_void) -> c_int;

type New = unsafe extern "C" fn(*const SlirpConfig, *const Callbacks, *mut c_void) -> *mut c_void;
type Input = unsafe extern "C" fn(*mut c_void, *const u8, c_int);
type Fill = unsafe extern "C" fn(*mut c_void, *mut u32, AddPoll, *mut c_void);
type Poll = unsafe extern "C" fn(*mut c_void, c_int, GetEvents, *mut c_void);
type AddForward = unsafe extern "C" fn(*mut c_void, c_int, InAddr, c_int, InAddr, c_int) -> c_int;

/// The functions of a loaded libslirp; it stays loaded until the process ends.
#[derive(Clone, Copy)]
pub(super) struct Library {
    new: New,
    input: Input,
    fill: Fill,
    poll: Poll,
    add_forward: AddForward,
}

impl Library {
    /// Loads the library at `path`.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: the name is a string, and the library's initialisers are those of any program that is linked with it.
        #[allow(unsafe_code)]
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(trouble());
        }
        let symbol = |name: &CStr| -> Result<*mut c_void, String> {
            // SAFETY: the handle is a loaded library's, which is never unloaded, and the name is a string.
            #[allow(unsafe_code)]
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if found.is_null() { Err(trouble()) } else { Ok(found) }
        };
        // SAFETY: these are the types of the functions of these names in every libslirp since 4.0; a function pointer is as
        // large as what `dlsym` returns, and not null.
        #[allow(unsafe_code)]
        unsafe {
            Ok(Self {
                new: std::mem::transmute::<*mut c_void, New>(symbol(c"slirp_new")?),
                input: std::mem::transmute::<*mut c_void, Input>(symbol(c"slirp_input")?),
                fill: std::mem::transmute::<*mut c_void, Fill>(symbol(c"slirp_pollfds_fill")?),
                poll: std::mem::transmute::<*mut c_void, Poll>(symbol(c"slirp_pollfds_poll")?),
                add_forward: std::mem::transmute::<*mut c_void, AddForward>(symbol(c"slirp_add_hostfwd")?),
            })
        }
    }

    /// Makes a stack that calls `callbacks` with `opaque`.
    ///
    /// # Safety
    /// Both must stay where they are for as long as the stack is used, and `opaque` must be what the callbacks expect.
    #[allow(unsafe_code)]
    pub(super) unsafe fn stack(
        self,
        callbacks: &'static Callbacks,
        opaque: *mut c_void,
    ) -> Result<Stack, String> {
        // SAFETY: the configuration is of the version that it names, and is copied; the rest is the caller's promise.
        let slirp =
            unsafe { (self.new)(&raw const *Box::leak(Box::new(SlirpConfig::of_box())), callbacks, opaque) };
        if slirp.is_null() {
            return Err("libslirp refuses the network's configuration".into());
        }
        Ok(Stack { library: self, slirp })
    }
}

fn trouble() -> String {
    // SAFETY: the text, where there is one, lives until the next call of the loader, and is copied before that.
    #[allow(unsafe_code)]
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "the library cannot be loaded".into()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// One network of libslirp's. Each of its calls may call the callbacks.
pub(super) struct Stack {
    library: Library,
    slirp: *mut c_void,
}

impl Stack {
    /// Has it take a frame of the guest's.
    pub(super) fn input(&self, frame: &[u8]) {
        // SAFETY: the stack is live, and reads the frame's bytes during the call.
        #[allow(unsafe_code)]
        unsafe {
            (self.library.input)(self.slirp, frame.as_ptr(), frame.len() as c_int);
        }
    }

    /// Has it name its sockets to `add` and lower `timeout`, in milliseconds, to when it wants to be called.
    pub(super) fn fill(&self, timeout: &mut u32, add: AddPoll, opaque: *mut c_void) {
        // SAFETY: the stack is live, and hands `opaque` to `add` alone.
        #[allow(unsafe_code)]
        unsafe {
            (self.library.fill)(self.slirp, timeout, add, opaque);
        }
    }

    /// Has it serve its sockets, whose events `events` tells; `failed` says that they could not be waited for.
    pub(super) fn poll(&self, failed: bool, events: GetEvents, opaque: *mut c_void) {
        // SAFETY: the stack is live, and hands `opaque` to `events` alone.
        #[allow(unsafe_code)]
        unsafe {
            (self.library.poll)(self.slirp, c_int::from(failed), events, opaque);
        }
    }

    /// Publishes a port of the guest's at an address of the host's.
    pub(super) fn publish(&self, port: &boxlite_types::PortForward) -> std::io::Result<()> {
        let is_udp = c_int::from(port.protocol == boxlite_types::Protocol::Udp);
        let (host, guest) = (c_int::from(port.host), c_int::from(port.guest));
        // SAFETY: the stack is live, and the arguments are numbers.
        #[allow(unsafe_code)]
        let added = unsafe {
            (self.library.add_forward)(self.slirp, is_udp, port.bind.into(), host, GUEST.into(), guest)
        };
        if added < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }
}
