use std::os::fd::AsRawFd;

use boxlite_types::parse_ports;

use super::*;

#[test]
fn slirp_and_the_wire_share_a_hub() {
    let arguments = arguments(&[], 12);
    let hubports: Vec<_> = arguments.iter().filter(|a| a.starts_with("hubport")).collect();
    assert_eq!(hubports.len(), 2);
    let user = arguments.iter().find(|a| a.starts_with("user,")).unwrap();
    assert!(user.contains("ipv6=off") && !user.contains("hostfwd"), "{user}");
}

#[test]
fn published_ports_become_forwards() {
    let mut ports = parse_ports("8080:80").unwrap();
    ports.extend(parse_ports("0.0.0.0:53:5353/udp").unwrap());
    let arguments = arguments(&ports, 12);
    let user = arguments.iter().find(|a| a.starts_with("user,")).unwrap();
    assert!(user.ends_with(",hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80,hostfwd=udp:0.0.0.0:53-10.0.2.15:5353"));
}

#[test]
fn the_stack_is_libslirp_where_qemu_is_linked_with_it_and_the_program_is_there() {
    let own = || ShimProgram::of_shim(&std::env::current_exe().unwrap());
    let code: Vec<PathBuf> = ["/lib/x/libc.so.6", "/lib/x/libslirp.so.0"].map(PathBuf::from).into();
    let ports = parse_ports("8080:80").unwrap();
    let command = |code, own| StackCommand::new(Path::new("/q"), code, own, &ports, 12);
    let library = command(&code, own());
    assert_eq!(library.program, std::env::current_exe().unwrap());
    assert!(library.code.contains(&library.program));
    assert_eq!(library.arguments[1..3], ["/lib/x/libslirp.so.0", "12"].map(OsString::from));
    assert_eq!(library.trial().arguments[2], "--version");
    for qemu in [command(&code[..1], own()), command(&code, None)] {
        assert_eq!((qemu.program.as_path(), qemu.code.len()), (Path::new("/q"), 0));
        assert_eq!(qemu.trial().arguments, ["--version"]);
    }
    assert!(ShimProgram::of_shim(Path::new("/no/such/shim")).is_none());
}

#[tokio::test]
async fn a_stack_that_ends_instead_of_serving_says_why() {
    let (wire, ends) = super::super::Wire::new(super::super::Policy::new(&[], []), None, 1).unwrap();
    // It complains of the arguments and ends.
    let command = StackCommand::new(Path::new("/bin/cat"), &[], None, &[], ends.stack.as_raw_fd());
    let mut cat = std::process::Command::new(&command.program);
    cat.args(command.arguments).env_clear().env("LC_ALL", "C").stderr(std::process::Stdio::piped());
    let cat = cat.spawn().unwrap();
    let ender = ChildEnder::of(&cat).unwrap();
    let stack = StackProcess::new(command.program, cat, ender);
    drop(ends);
    let error = wire.readiness(&stack, MacAddr::of_box("b")).unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("cat: invalid option"), "{error}");
    assert!(stack.watch().await.to_string().contains("exit status: 1"));
}
