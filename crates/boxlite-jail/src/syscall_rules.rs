//! Rules about system calls and their arguments, and the filters that they make.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::error::{JailError, JailResult as Result};

/// Rules about system calls, each with conditions on the call's arguments.
#[derive(Default)]
pub(crate) struct SyscallRules(BTreeMap<i64, Vec<SeccompRule>>);

impl SyscallRules {
    /// Lists `calls` whatever their arguments are.
    pub(crate) fn list(&mut self, calls: &[libc::c_long]) {
        self.0.extend(calls.iter().map(|&call| (call, Vec::new())));
    }

    /// Lists `call` if all of `conditions` hold; further rules for the same call are alternatives.
    pub(crate) fn list_if(&mut self, call: libc::c_long, conditions: &[Condition]) -> Result<()> {
        if conditions.is_empty() {
            self.list(&[call]);
            return Ok(());
        }
        let conditions = conditions.iter().map(Condition::compile).collect::<Result<Vec<_>>>()?;
        let rule = SeccompRule::new(conditions).map_err(|error| invalid(&error))?;
        self.0.entry(call).or_default().push(rule);
        Ok(())
    }

    /// A filter that allows what is listed.
    pub(crate) fn allowing(self) -> Result<BpfProgram> {
        self.compile(SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow)
    }

    /// A filter that answers what is listed with `errno`, and denies the calls of the processor's other calling conventions.
    pub(crate) fn denying(self, errno: libc::c_int) -> Result<BpfProgram> {
        let mut program = deny_x32();
        program.extend(self.compile(SeccompAction::Allow, SeccompAction::Errno(errno as u32))?);
        Ok(program)
    }

    fn compile(self, otherwise: SeccompAction, listed: SeccompAction) -> Result<BpfProgram> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| invalid(&error))?;
        let filter = SeccompFilter::new(self.0, otherwise, listed, arch);
        filter.map_err(|error| invalid(&error))?.try_into().map_err(|error| invalid(&error))
    }
}

/// The beginning of a filter that denies the calls that x86-64 has once more under numbers from 2³⁰ on (the x32 ABI), where
/// a list of denied numbers would not find them. (What comes by `int 0x80` has another architecture, which ends the process.)
fn deny_x32() -> BpfProgram {
    const FIRST_OF_X32: u32 = 1 << 30;
    let step = |code: u32, k: u32, jt: u8, jf: u8| seccompiler::sock_filter { code: code as u16, jt, jf, k };
    vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, FIRST_OF_X32, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0, 0),
    ]
}

/// A condition on an argument of a system call.
#[derive(Clone)]
pub(crate) struct Condition {
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
}

impl Condition {
    fn compile(&self) -> Result<SeccompCondition> {
        SeccompCondition::new(self.argument, self.length.clone(), self.operator.clone(), self.value)
            .map_err(|error| invalid(&error))
    }
}

/// The lower half of `argument` is `value`: what the kernel reads of an `int`.
pub(crate) fn equals(argument: u8, value: u64) -> Condition {
    masked(argument, u32::MAX.into(), value & u64::from(u32::MAX))
}

/// The bits `mask` of the lower half of `argument` are `value`.
pub(crate) fn masked(argument: u8, mask: u64, value: u64) -> Condition {
    Condition { argument, length: SeccompCmpArgLen::Dword, operator: SeccompCmpOp::MaskedEq(mask), value }
}

/// The lower half of `argument` is not `value`.
pub(crate) fn differs(argument: u8, value: u64) -> Condition {
    Condition { argument, length: SeccompCmpArgLen::Dword, operator: SeccompCmpOp::Ne, value }
}

/// The bits `mask` of all of `argument` are `value`.
pub(crate) fn masked_long(argument: u8, mask: u64, value: u64) -> Condition {
    Condition { argument, length: SeccompCmpArgLen::Qword, operator: SeccompCmpOp::MaskedEq(mask), value }
}

fn invalid(error: &dyn std::error::Error) -> JailError {
    JailError::new(format!("the system call filter is invalid: {error}"))
}
